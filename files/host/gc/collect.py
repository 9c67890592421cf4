"""Find what was deleted in MLflow some time ago, or remove it for good with its files.

Runs on the host in the server's own environment. Reports {"found": [...], "left": [...], "objects":
n, "bytes": n, "models": n}; what is left says "why", and `models` are logged models that stay.

Not `mlflow gc`: whatever runs it is given, it removes all deleted experiments and models as well,
asks the registry for nothing, takes what S3 refuses to delete for deleted, and needs a password.
"""

import dataclasses
import datetime
import os
import time
from concurrent.futures import ThreadPoolExecutor

import grants
import objects
import talk
from artifacts import Tracking, within_fence
from bucket import Bucket, troubled

LISTERS = 8  # requests at a time; the client keeps 10 connections
BATCH = 50  # entries between two looks at the registry
PATIENCE = 10  # seconds between two signs of life


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place
    root: str
    action: str  # find, remove, or check: end with one line where nothing could be removed
    age: int  # seconds


def measured(bucket, entries):
    """Note of each entry how many objects and bytes its files are."""

    def measure(entry):
        sizes = [
            one["Size"]
            for path in entry["paths"]
            for one in objects.under(bucket, f"{bucket.prefix}/{path}/")
        ]
        entry["objects"], entry["bytes"] = len(sizes), sum(sizes)

    with ThreadPoolExecutor(LISTERS) as pool:
        list(pool.map(measure, entries))


def remove(root, tracking, bucket, limit):
    """Remove what is condemned, files first: where they stay the run does, to be tried again."""
    wanted, left = tracking.condemned(limit)
    measured(bucket, wanted)
    store, done, spoke = store_of(), [], time.monotonic()
    for n, entry in enumerate(wanted):
        if n % BATCH == 0:
            behind = tracking.behind()
        if time.monotonic() - spoke > PATIENCE:
            talk.say(f"{n} of {len(wanted)} removed")
            spoke = time.monotonic()
        if not tracking.still(entry, limit, behind):
            continue  # somebody restored it, or registered a model from it
        for path in entry["paths"]:
            place = f"{bucket.prefix}/{path}/"
            objects.delete(bucket, [one["Key"] for one in objects.under(bucket, place)])
        forget(root, store, entry)
        done.append(entry)
    return done, left


def store_of():
    """Return MLflow's own store of this release; slow to import, and needed for this alone."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(os.environ["MLFLOW_BACKEND_STORE_URI"], "mlflow-artifacts:/")


def forget(root, store, entry):
    """Remove an entry's rows; those of an experiment's models and traces go with it."""
    if entry["kind"] == "run":
        store._hard_delete_run(entry["id"])
    elif entry["kind"] == "model":
        store._hard_delete_logged_model(entry["id"])
    else:
        store._hard_delete_experiment(str(entry["id"]))
        grants.take_back(root, "experiment", entry["id"])


def told(entry):
    """Spell an entry for the operator."""
    moment = datetime.datetime.fromtimestamp(entry["deleted"] / 1000, datetime.timezone.utc)
    fields = ("kind", "name", "objects", "bytes", "why")
    return {
        "id": str(entry["id"]),
        "experiment": str(entry["experiment"]),
        "deleted": moment.isoformat(timespec="seconds"),
        **{field: entry[field] for field in fields if entry.get(field) is not None},
    }


def main(request):
    place = request.place
    tracking = Tracking(os.environ["MLFLOW_BACKEND_STORE_URI"], place.bucket, place.prefix)
    bucket = Bucket(place)
    limit = int((time.time() - request.age) * 1000)
    if request.action == "check":
        objects.may_delete(bucket)
        return
    if request.action == "remove":
        found, left = remove(request.root, tracking, bucket, limit)
    else:
        found, left = tracking.condemned(limit)
        measured(bucket, found)
    talk.report(
        {
            "models": tracking.models_of(found),
            "found": [told(entry) for entry in found],
            "left": [told(entry) for entry in left],
            "objects": sum(entry["objects"] for entry in found),
            "bytes": sum(entry["bytes"] for entry in found),
        }
    )


request = talk.request(Request)
with objects.explained(request.place):
    troubled(lambda: within_fence(request.root, lambda: main(request)))
