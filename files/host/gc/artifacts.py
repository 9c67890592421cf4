"""What the tracking database knows of the bucket: what was deleted, and which files are whose.

Staged beside the programs that import it. A path is a place below the artifacts' prefix, without a
slash at its ends; times are in milliseconds since 1970.
"""

import os
import re
import urllib.parse

import sqlalchemy as sa
from fenced import fenced

# What can be deleted in MLflow: id, name, experiment, when, and where its files are.
DELETED = {
    "run": (
        "select run_uuid, name, experiment_id, deleted_time, artifact_uri from runs "
        "where lifecycle_stage = 'deleted' and deleted_time <= :limit",
        "run_uuid",
    ),
    "model": (
        "select model_id, name, experiment_id, last_updated_timestamp_ms, artifact_location "
        "from logged_models where lifecycle_stage = 'deleted' "
        "and last_updated_timestamp_ms <= :limit",
        "model_id",
    ),
    "experiment": (
        "select experiment_id, name, experiment_id, last_update_time, artifact_location "
        "from experiments where lifecycle_stage = 'deleted' and last_update_time <= :limit",
        "experiment_id",
    ),
}
# What an experiment holds beside its runs, and takes with it whether deleted itself or not.
HELD = {
    "model": "select model_id, name, experiment_id, last_updated_timestamp_ms, artifact_location "
    "from logged_models where experiment_id = :experiment",
    "trace": "select request_id, '', experiment_id, timestamp_ms, value "
    "from trace_info join trace_tags using (request_id) "
    "where key = 'mlflow.artifactLocation' and experiment_id = :experiment",
}
ID = re.compile(r"(?:m-)?[0-9a-f]{32}")
SHORTEST_ID = 16  # characters; a shorter key may well be the name of somebody's folder
NARROW = 50  # characters; a URI with an id in it needs more
DELETED_VERSION = "Deleted_Internal"  # the stage of a row that MLflow keeps of a deleted version


def within_fence(root, work, *folders):
    """Do something where what SQLite finds beside the server's databases removes nothing else."""
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    path = sa.make_url(uri).database if uri.startswith("sqlite") else None
    beside = [os.path.dirname(os.path.realpath(path))] if path else []
    wanted = {os.path.join(root, "data"), *beside, *folders}
    return fenced([folder for folder in wanted if os.path.isdir(folder)], work)


class Tracking:
    """One tracking database, SQLite or not, of any MLflow release: read by its schema alone."""

    def __init__(self, uri, bucket, prefix):
        patience = {"timeout": 60} if uri.startswith("sqlite") else {}
        self.engine = sa.create_engine(uri, connect_args=patience)
        place = (
            r"(?:mlflow-artifacts:(?://[^/\s\"']*)?"
            rf"|s3[an]?://{re.escape(bucket)}/{re.escape(prefix)}"
            r"|https?://[^\s\"']*/mlflow-artifacts/artifacts)"
        )
        self._uri = re.compile(place + r"(?:/(.*))?", re.S)
        # Ahead of it, so that a second one in what may belong to the first is found as well.
        self._mention = re.compile(place + r"/(?=([^\"'<>\\\r\n\t]*))")
        self._hints = ("mlflow-artifacts", f"://{bucket}/{prefix}/")

    def rows(self, query, **values):
        with self.engine.connect() as connection:
            return connection.execute(sa.text(query), values).fetchall()

    def path(self, uri):
        """Return the path that a URI means, or None where it leads elsewhere."""
        found = self._uri.fullmatch(uri or "")
        return plain(found[1] or "") if found else None

    # -- what was deleted ------------------------------------------------------------------------

    def condemned(self, limit):
        """List what was deleted until a moment, and what of it must be left.

        Each is {"kind": run, model or experiment, "id", "name", "experiment", "deleted", "paths"};
        what is left says "why". Experiments come last.
        """
        behind = self.behind()
        found, left = [], []
        for kind in DELETED:
            for entry in self._deleted(kind, limit):
                gone = {other["id"] for other in found}
                entry["why"] = self._why_left(entry, behind, gone)
                (left if entry["why"] else found).append(entry)
        return found, left

    def still(self, entry, limit, behind):
        """Tell whether something is condemned at this moment too."""
        fresh = self._deleted(entry["kind"], limit, entry["id"])
        return bool(fresh) and self._why_left(fresh[0], behind) is None

    def models_of(self, entries):
        """Count the logged models that stay although the run that made them goes."""
        gone = {entry["id"] for entry in entries}
        rows = self.rows(
            "select source_run_id, experiment_id from logged_models "
            "where lifecycle_stage != 'deleted'"
        )
        return sum(run in gone and experiment not in gone for run, experiment in rows)

    def behind(self):
        """Map the ids of runs and logged models to the registered version that needs them."""
        sources = dict(map(tuple, self.rows("select model_id, source_run_id from logged_models")))
        needed = {}
        for version, texts in self.versions():
            for id in ID.findall(" ".join(texts)):
                needed.setdefault(id, version)
                if sources.get(id):
                    needed.setdefault(sources[id], version)
        return needed

    def versions(self):
        """List the registered versions, each with all that may say where its files are."""
        rows = self.rows(
            "select name, version, run_id, source, storage_location, run_link from model_versions "
            "where current_stage is null or current_stage != :deleted",
            deleted=DELETED_VERSION,
        )
        return [(f"{row[0]} version {row[1]}", list(filter(None, row[2:]))) for row in rows]

    def _deleted(self, kind, limit, id=None):
        query, key = DELETED[kind]
        if id is None:
            return self._entries(kind, query + " order by 4", limit=limit)
        return self._entries(kind, f"{query} and {key} = :id", limit=limit, id=id)

    def _entries(self, kind, query, **values):
        fields = ("id", "name", "experiment", "deleted", "uri")
        return [
            {"kind": kind, **dict(zip(fields, row, strict=True))}
            for row in self.rows(query, **values)
        ]

    def _why_left(self, entry, behind, gone=frozenset()):
        """Say why something must stay, or note its paths and return None.

        `gone` are the runs that go with an experiment.
        """
        if entry["kind"] == "experiment":
            return self._why_experiment_left(entry, behind, gone)
        if entry["id"] in behind:
            return f"behind the registered model {behind[entry['id']]}"
        path = self.path(entry["uri"])
        # A folder of its own, whatever a client may have made of its place.
        if path is None or entry["id"] not in path.split("/"):
            return f"its files are not where they are looked for: {entry['uri']}"
        entry["paths"] = [path]
        return None

    def _why_experiment_left(self, entry, behind, gone):
        runs = self.rows("select run_uuid from runs where experiment_id = :id", id=entry["id"])
        stay = [id for (id,) in runs if id not in gone]
        if stay:
            return f"holds runs that are left: {len(stay)}"
        paths = []
        for kind, query in HELD.items():
            for held in self._entries(kind, query, experiment=entry["id"]):
                why = self._why_left(held, behind)
                if why:
                    return f"holds {kind} {held['id']}: {why}"
                paths += held["paths"]
        entry["paths"] = paths
        return None

    # -- what is known ---------------------------------------------------------------------------

    def experiments(self):
        """Map the paths of experiments to their names."""
        rows = self.rows("select artifact_location, name from experiments")
        return {self.path(location): name for location, name in rows}

    def knows(self):
        """Return the ids that may be the name of somebody's folder, and the paths that are named.

        Ids are the keys of all tables; paths are what stands in any text of any table.
        """
        ids, paths = set(), set()
        schema = sa.inspect(self.engine)
        for table in schema.get_table_names():
            keys = schema.get_pk_constraint(table)["constrained_columns"]
            for column in schema.get_columns(table):
                name = column["name"]
                if keys == [name] and isinstance(column["type"], sa.String):
                    ids.update(id for id in self._texts(table, name) if len(id) >= SHORTEST_ID)
                elif name not in keys and may_name_a_place(table, column):
                    for text in self._texts(table, name, self._hints):
                        paths |= self.named(text)
        for _, texts in self.versions():
            ids.update(ID.findall(" ".join(texts)))
        return ids, paths

    def _texts(self, table, name, hints=()):
        """Read a column as text; only what has one of the hints in it, where there are any."""
        # As text: to compile as many expressions as there are columns takes most of the time.
        quoted = self.engine.dialect.identifier_preparer.quote
        text = f"cast({quoted(name)} as text)"
        conditions = [f"{quoted(name)} is not null"]
        if table == "model_versions":
            conditions.append("coalesce(current_stage, '') != :deleted")
        values = {"deleted": DELETED_VERSION} if len(conditions) > 1 else {}
        values.update({f"hint{n}": f"%{escaped(hint)}%" for n, hint in enumerate(hints)})
        if hints:
            alike = (f"{text} like :hint{n} escape '/'" for n in range(len(hints)))
            conditions.append(f"({' or '.join(alike)})")
        query = sa.text(f"select {text} from {quoted(table)} where {' and '.join(conditions)}")
        with self.engine.connect() as connection:
            rows = connection.execution_options(yield_per=1000).execute(query, values)
            yield from (value for (value,) in rows)

    def named(self, text):
        """Return every path that a text may mean: a wrong one keeps a file, a missing one does not.

        In JSON a place ends with the quote, in a sentence with a blank or a stop.
        """
        whole = self._uri.fullmatch(text)
        found = {whole[1] or ""} if whole else set()
        for rest in self._mention.findall(text):
            word = (rest.split() or [""])[0]
            found |= {rest, word, word.rstrip(".,;:!?)]}")}
        found |= {path.split("*")[0].rpartition("/")[0] for path in found if "*" in path}
        found |= {urllib.parse.unquote(path) for path in found}
        return {plain(path) for path in found} - {""}


def may_name_a_place(table, column):
    """Tell whether a column can name a place; an experiment's own is no claim to all below it."""
    if (table, column["name"]) == ("experiments", "artifact_location"):
        return False
    kind = column["type"]
    if isinstance(kind, sa.String):
        return kind.length is None or kind.length > NARROW
    return isinstance(kind, sa.JSON)


def escaped(text):
    """Spell a text for SQL's LIKE with / as its escape."""
    return re.sub("([/%_])", r"/\1", text)


def plain(path):
    return path.strip().strip("/")
