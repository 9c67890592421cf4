"""Find experiments, versions of models and traces at places that no login may name.

They came about before the wall stood before MLflow, whose own rule (places.py) is asked here. Runs
on the host in MLflow's environment, with the variables of server.env, and changes nothing. Reports
`places`: for each kind {"count": n, "first": [{"name": [words], "place"}]}.
"""

import dataclasses
import re

import databases
import places
import talk

FIRST = 5
MOST = 10_000  # traces that are looked at: there may be millions, and few of these are odd
EXPERIMENTS = """
select experiment_id, name, artifact_location from experiments
where lifecycle_stage = 'active' order by 1
"""
# A deleted one takes no new runs; those that it has keep their folders there.
DELETED = """
select experiment_id, name, artifact_location from experiments
where lifecycle_stage <> 'active' and experiment_id in (select experiment_id from runs) order by 1
"""
VERSIONS = """
select v.name, v.version, v.source, v.storage_location, v.run_id, r.artifact_uri
from model_versions v left join runs r on r.run_uuid = v.run_id
where coalesce(v.current_stage, '') <> 'Deleted_Internal' order by 1, 2
"""
MODELS = "select artifact_location from logged_models"
# Where MLflow itself puts a trace: below its experiment, wherever that is.
TRACES = f"""
select t.request_id, i.experiment_id, t.key, substr(t.value, 1, 1000)
from trace_tags t
join trace_info i on i.request_id = t.request_id
join experiments e on e.experiment_id = i.experiment_id
where t.key in ('{places.TRACE_LOCATION}', '{places.ARCHIVE_LOCATION}')
and t.value <> e.artifact_location || '/traces/' || t.request_id || '/artifacts' limit {MOST}
"""


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's folder, and where its artifacts are."""

    root: str
    bucket: str
    prefix: str


class Server:
    """A server's databases, and its own root in the bucket."""

    def __init__(self, asked):
        self.folder, self.root = asked.root, f"s3://{asked.bucket}/{asked.prefix}/"

    def rows(self, query):
        return databases.rows(self.folder, databases.TRACKING, query)

    def has(self, table):
        return databases.has_table(self.folder, databases.TRACKING, table)

    def spelt(self, place):
        """Spell a place below our root as a client does that goes through the server."""
        place = place or ""
        return places.OWN + place[len(self.root) :] if place.startswith(self.root) else place

    def experiments(self, query):
        for id, name, location in self.rows(query):
            own = self.spelt(location)
            if own != f"{places.OWN}{id}" and refused(places.refuse_location, own):
                yield (str(id), name), location

    def versions(self):
        models = self.rows(MODELS) if self.has("logged_models") else ()
        models = {self.spelt(location).rstrip("/") for (location,) in models}
        for name, version, source, storage, run, uri in self.rows(VERSIONS):
            roots = [self.spelt(uri), *model_of(self.spelt(source), models)]
            if run and not uri:
                roots += run_of(self.spelt(source), run)
            if not self.is_a_source(source, roots):
                yield (name, str(version)), source
            elif self.leads_elsewhere(storage):
                yield (name, str(version)), storage

    def is_a_source(self, source, roots):
        """Tell whether the wall would take a source of a run or a model with these roots."""
        if not source or source in places.PROMPTS:
            return True
        if re.match("(models|runs):/[^/]", source):
            return not places.leads_out(source)
        return not refused(places.refuse_source, self.spelt(source), roots)

    def leads_elsewhere(self, storage):
        """Tell whether what a source became lies neither below our root nor in no place at all."""
        place = self.spelt(storage)
        known = not place or place in places.PROMPTS or re.match("(models|runs):/[^/]", place)
        return not known and (not place.startswith(places.OWN) or places.leads_out(place))

    def traces(self):
        if not self.has("trace_tags"):
            return
        for trace, experiment, key, value in self.rows(TRACES):
            tags = [(key, self.spelt(value))]
            if refused(places.refuse_trace, trace, experiment, tags):
                yield (str(experiment), trace), value


def model_of(source, models):
    """Return the logged model's artifacts in which a source lies; those of one that is gone too."""
    found = re.match(r"(mlflow-artifacts:/.*/models/m-[0-9a-f]{32}/artifacts)(/|$)", source)
    gone = re.match(r"mlflow-artifacts:/[0-9]+/models/", source)
    return [found[1]] if found and (found[1] in models or gone) else []


def run_of(source, run):
    """Return the artifacts of a run that is gone, where a source lies in what was its folder."""
    found = re.match(rf"mlflow-artifacts:/[0-9]+/{re.escape(run)}/artifacts", source)
    return [found[0]] if found else []


def refused(rule, *arguments):
    try:
        rule(*arguments)
    except places.Refused:
        return True
    return False


def told(found):
    """Count what was found, and name the first: what stands in a database may be anything."""
    found = list(found)
    first = [
        {"name": [plain(word) for word in words], "place": plain(place)}
        for words, place in found[:FIRST]
    ]
    return {"count": len(found), "first": first}


def plain(text):
    return talk.printable(text, longest=200)


def main(asked):
    server = Server(asked)
    found = {
        "experiments": told(server.experiments(EXPERIMENTS)),
        "deleted": told(server.experiments(DELETED)),
        "versions": told(server.versions()),
        "traces": told(server.traces()),
    }
    talk.report(found, key="places")


if __name__ == "__main__":
    main(talk.request(Request))
