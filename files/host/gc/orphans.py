"""Report the objects below the artifacts' prefix that nothing in MLflow knows, or delete them.

Runs on the host in the server's own environment.

`find` writes <root>/gc/<UTC time>.jsonl: what it is about, one object a line, and the sum, which is
missing where it was cut off. `last` reports the newest of these, `delete` deletes what stands in it
and is still unknown and the same. `check` ends with one line where nothing could be deleted.
"""

import collections
import dataclasses
import datetime
import glob
import json
import os
import time

import objects
import owner
import talk
from artifacts import Tracking, within_fence
from bucket import Bucket, Trouble, troubled
from sqlalchemy.exc import SQLAlchemyError

IN_FLIGHT = datetime.timedelta(hours=24)  # a client uploads before it says what for
LONGEST = datetime.timedelta(days=7)  # that a report may be deleted from
KEPT = 10  # reports
OURS = ".remote-mlflow-"  # what this project itself puts below the prefix begins so
DONE = ".deleted.jsonl"


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place
    root: str
    action: str  # find, last, check or delete

    @property
    def folder(self):
        return os.path.join(self.root, "gc")

    @property
    def about(self):
        where = f"s3://{self.place.bucket}/{self.place.prefix}/"
        return {"place": where, "endpoint": self.place.endpoint}


def now(bucket):
    """Return S3's time: it is S3's clock that objects are as old as."""
    here = datetime.datetime.now(datetime.timezone.utc)
    return here - datetime.timedelta(seconds=bucket.skew or 0)


class Known:
    """All that somebody may still ask for: here, and in the states that a rollback gives back."""

    def __init__(self, root, bucket):
        where = (bucket.name, bucket.prefix)
        present = Tracking(os.environ["MLFLOW_BACKEND_STORE_URI"], *where)
        self.names = present.experiments()
        self.ids, self.paths = present.knows()
        for path in sorted(glob.glob(os.path.join(root, "former", "*", "mlflow.db"))):
            try:
                ids, paths = Tracking("sqlite:///" + path, *where).knows()
            except SQLAlchemyError:
                talk.warn(f"{path} cannot be read; what only it knows counts as unknown")
                continue
            self.ids |= ids
            self.paths |= paths

    def has(self, path):
        """Tell whether one of the folders above an object has a known name or is mentioned."""
        parts = path.split("/")
        if not self.ids.isdisjoint(parts):
            return True
        return any("/".join(parts[:n]) in self.paths for n in range(1, len(parts) + 1))


def artifacts(bucket, backups):
    """List the objects that are somebody's; raises Trouble where another server's are below too."""
    below = bucket.prefix + "/"
    for entry in objects.under(bucket, below):
        path = entry["Key"].removeprefix(below)
        if path.endswith("/" + owner.NAME):
            raise Trouble(
                "owner",
                f"s3://{bucket.name}/{entry['Key']} bears another server's mark.",
                "Give each server a `prefix:` beside the others', not below them.",
            )
        ours = path.startswith(OURS) or entry["Key"].startswith(backups + "/")
        if path and not path.endswith("/") and not ours:
            yield path, entry


def line(entry):
    """Spell an object so that another one in its place can be told from it."""
    return {
        "key": entry["Key"],
        "bytes": entry["Size"],
        "etag": entry["ETag"],
        "modified": entry["LastModified"].isoformat(),
    }


# -- the report ----------------------------------------------------------------------------------


def find(request, bucket):
    """Write a report, and return its sum."""
    known = Known(request.root, bucket)
    places, recent, all_ = {}, 0, 0
    began = now(bucket)
    path = os.path.join(request.folder, began.strftime("%Y%m%dT%H%M%SZ.jsonl"))
    with open(path + ".part", "w") as stream:
        write(stream, dict(request.about, made=began.isoformat(timespec="seconds")))
        for below, entry in artifacts(bucket, request.place.backup_prefix):
            all_ += 1
            if known.has(below):
                continue
            if began - entry["LastModified"] < IN_FLIGHT:
                recent += 1
                continue
            write(stream, line(entry))
            count(places, known.names, below, entry)
        found = sorted(places.values(), key=lambda place: place["bytes"], reverse=True)
        sums = {name: sum(place[name] for place in found) for name in ("objects", "bytes")}
        sums.update(recent=recent, all=all_, places=found)
        write(stream, sums)
    os.replace(path + ".part", path)
    prune(request.folder)
    return dict(sums, report=path)


def write(stream, value):
    stream.write(json.dumps(value) + "\n")


def count(places, names, path, entry):
    """Add an object to the sum of its topmost folder, which mostly is an experiment's."""
    top = path.split("/")[0]
    place = places.setdefault(
        top, {"place": top, "experiment": names.get(top), "objects": 0, "bytes": 0, "newest": ""}
    )
    place["objects"] += 1
    place["bytes"] += entry["Size"]
    place["newest"] = max(place["newest"], entry["LastModified"].isoformat())


def prune(folder):
    """Keep the newest reports; what was cut off long ago is none."""
    paths = sorted(glob.glob(os.path.join(folder, "*.jsonl")), reverse=True)
    parts = glob.glob(os.path.join(folder, "*.part"))
    cut_off = [path for path in parts if time.time() - os.path.getmtime(path) > 86400]
    for path in paths[KEPT:] + cut_off:
        os.remove(path)


def last(request, bucket):
    """Return the newest report's path, heading and sum; raises Trouble where none will do."""
    again = "Type ./fab gc --orphans first, read what it reports, then run the same command again."
    path = max(glob.glob(os.path.join(request.folder, "*.jsonl")), default=None)
    if path is None:
        raise Trouble("report", "There is no report to delete from.", again)
    if path.endswith(DONE):
        raise Trouble("report", "What stood in the last report was deleted.", again)
    with open(path) as stream:
        heading = json.loads(next(stream))
        (text,) = collections.deque(stream, maxlen=1)
    sums = json.loads(text)
    age = now(bucket) - datetime.datetime.fromisoformat(heading["made"])
    about = request.about
    if {name: heading[name] for name in about} != about:
        what = f"The last report is about {heading['place']}, not {about['place']}."
        raise Trouble("report", what, again)
    if age > LONGEST:
        raise Trouble("report", f"The last report is {age.days} days old.", again)
    return path, sums


def reported(path):
    """Read a report's objects, by key."""
    found = {}
    with open(path) as stream:
        for text in stream:
            value = json.loads(text)
            if "key" in value:
                found[value["key"]] = value
    return found


# -- deleting ------------------------------------------------------------------------------------


def delete(request, bucket):
    """Delete what stands in the last report, but for what became known or another since."""
    path, sums = last(request, bucket)
    known, wanted, batch = Known(request.root, bucket), reported(path), []
    deleted, size = 0, 0
    for below, entry in artifacts(bucket, request.place.backup_prefix):
        if wanted.get(entry["Key"]) != line(entry) or known.has(below):
            continue
        batch.append(entry["Key"])
        deleted, size = deleted + 1, size + entry["Size"]
        if len(batch) == objects.MOST:
            objects.delete(bucket, batch)
            batch = []
            talk.say(f"{talk.counted(deleted, 'object')} deleted")
    objects.delete(bucket, batch)
    # A report is deleted from once; it stays to tell what it was.
    os.replace(path, path[: -len(".jsonl")] + DONE)
    return {"objects": deleted, "bytes": size, "left": sums["objects"] - deleted}


def main(request):
    place = request.place
    bucket = Bucket(place)
    owner.refuse_other(request.root, bucket)
    if request.action == "check":
        objects.may_delete(bucket)
    elif request.action == "last":
        path, sums = last(request, bucket)
        talk.report(dict(sums, report=path))
    else:
        talk.report({"find": find, "delete": delete}[request.action](request, bucket))


request = talk.request(Request)
with objects.explained(request.place):
    os.makedirs(request.folder, mode=0o700, exist_ok=True)
    folders = (request.folder, *glob.glob(os.path.join(request.root, "former", "*")))
    troubled(lambda: within_fence(request.root, lambda: main(request), *folders))
