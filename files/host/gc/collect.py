"""Find what was deleted in MLflow some time ago, or remove it for good with its files.

Runs on the host in the server's own environment. Arguments: `find`, `check` or `remove`, root,
bucket, prefix, region or "", endpoint or "", age in seconds. `check` ends with one line where
nothing could be removed. The others report {"found": [...], "left": [...], "objects": n,
"bytes": n, "models": n}; what is left says "why", and `models` are logged models that stay.

Not `mlflow gc`: whatever runs it is given, it removes all deleted experiments and models as well,
asks the registry for nothing, takes what S3 refuses to delete for deleted, and needs a password.
"""

import datetime
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grants
import objects
from artifacts import Tracking
from bucket import Bucket, troubled

ACTION, ROOT, BUCKET, PREFIX, REGION, ENDPOINT, AGE = sys.argv[1:8]
LISTERS = 8  # requests at a time; the client keeps 10 connections
BATCH = 50  # entries between two looks at the registry
PATIENCE = 10  # seconds between two signs of life


def measured(bucket, entries):
    """Note of each entry how many objects and bytes its files are."""

    def measure(entry):
        sizes = [
            one["Size"]
            for path in entry["paths"]
            for one in objects.under(bucket, "%s/%s/" % (PREFIX, path))
        ]
        entry["objects"], entry["bytes"] = len(sizes), sum(sizes)

    with ThreadPoolExecutor(LISTERS) as pool:
        list(pool.map(measure, entries))


def remove(tracking, bucket, limit):
    """Remove what is condemned, files first: where they stay the run does, to be tried again."""
    wanted, left = tracking.condemned(limit)
    measured(bucket, wanted)
    store, done, spoke = store_of(), [], time.monotonic()
    for n, entry in enumerate(wanted):
        if n % BATCH == 0:
            behind = tracking.behind()
        if time.monotonic() - spoke > PATIENCE:
            print("@say %d of %d removed" % (n, len(wanted)), flush=True)
            spoke = time.monotonic()
        if not tracking.still(entry, limit, behind):
            continue  # somebody restored it, or registered a model from it
        for path in entry["paths"]:
            place = "%s/%s/" % (PREFIX, path)
            objects.delete(bucket, [one["Key"] for one in objects.under(bucket, place)])
        forget(store, entry)
        done.append(entry)
    return done, left


def store_of():
    """Return MLflow's own store of this release; slow to import, and needed for this alone."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(os.environ["MLFLOW_BACKEND_STORE_URI"], "mlflow-artifacts:/")


def forget(store, entry):
    """Remove an entry's rows; those of an experiment's models and traces go with it."""
    if entry["kind"] == "run":
        store._hard_delete_run(entry["id"])
    elif entry["kind"] == "model":
        store._hard_delete_logged_model(entry["id"])
    else:
        store._hard_delete_experiment(str(entry["id"]))
        grants.take_back(ROOT, entry["id"])


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


def main():
    tracking = Tracking(os.environ["MLFLOW_BACKEND_STORE_URI"], BUCKET, PREFIX)
    bucket = Bucket(BUCKET, PREFIX, REGION, ENDPOINT)
    limit = int((time.time() - float(AGE)) * 1000)
    if ACTION == "check":
        objects.may_delete(bucket)
        return
    if ACTION == "remove":
        found, left = remove(tracking, bucket, limit)
    else:
        found, left = tracking.condemned(limit)
        measured(bucket, found)
    objects.report(
        {
            "models": tracking.models_of(found),
            "found": [told(entry) for entry in found],
            "left": [told(entry) for entry in left],
            "objects": sum(entry["objects"] for entry in found),
            "bytes": sum(entry["bytes"] for entry in found),
        }
    )


with objects.explained(BUCKET, PREFIX):
    troubled(main)
