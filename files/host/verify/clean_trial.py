"""Count what a trial left in the bucket, then remove it there and from the databases.

Runs on the host in the server's own environment. Reports {"found": n, "left": n, "place": uri};
`found` is None where the bucket could not be asked. Trials that were cut off long ago are removed
as well. MLflow's own delete only marks; its gc wants the whole server's deleted runs.
"""

import dataclasses
import os
import re
import time

import grants
import talk
from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy import text
from talk import Place

# The name is made by the trial; nothing else is ever touched. Its model has the same.
MARK = re.compile(r"remote-mlflow-verify-[0-9a-f]{12}")

OLD = 3600  # seconds: a trial takes one minute


@dataclasses.dataclass(frozen=True)
class Request:
    """What a trial made on the server in this folder; nothing where it failed before."""

    root: str
    place: Place
    experiment: str = ""  # its number


def objects(s3, place, under, ours):
    """List the keys of these runs and models: another server's experiment may have our number."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=under)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return [key for key in keys if not ours.isdisjoint(key.split("/"))]


def trials(tracking, number):
    """Return the trial, the first, and those that were cut off; fails where it is none."""
    from mlflow.entities import ViewType

    found = []
    if number:
        found = [tracking.get_experiment(number)]
        if not MARK.fullmatch(found[0].name):
            talk.fail(f"experiment {number} is not a trial's; nothing was removed")
    named = tracking.search_experiments(
        view_type=ViewType.ALL, filter_string="name LIKE 'remote-mlflow-verify-%'"
    )
    limit = (time.time() - OLD) * 1000
    cut_off = [each for each in named if MARK.fullmatch(each.name) and each.creation_time < limit]
    return found + [each for each in cut_off if each.experiment_id != number]


def remove_rows(root, tracking, trial, runs, models):
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry

    number = trial.experiment_id
    if trial.lifecycle_stage == "active":  # the trial failed before it could
        tracking.delete_experiment(number)
        registry = Registry(os.environ["MLFLOW_BACKEND_STORE_URI"])
        if registry.search_registered_models(f"name = '{trial.name}'"):
            registry.delete_registered_model(trial.name)
    for found in models:
        tracking._hard_delete_logged_model(found.model_id)
    for run in runs:
        tracking._hard_delete_run(run.info.run_id)
    tracking._hard_delete_experiment(number)
    with tracking.engine.begin() as rows:
        for run in runs:
            values = {"run": run.info.run_id}
            rows.execute(text("delete from inputs where source_id = :run"), values)
    grants.take_back(root, "experiment", number)
    grants.take_back(root, "registered_model", trial.name)


def removed(asked, tracking, trial):
    """Remove all that a trial made; return what is reported of it."""
    from mlflow.entities import ViewType

    number, place = trial.experiment_id, asked.place
    runs = tracking.search_runs([number], "", ViewType.ALL, max_results=100)
    models = tracking.search_logged_models([number])
    ours = {run.info.run_id for run in runs} | {made.model_id for made in models}
    under, left = f"{place.prefix}/{number}/", 0
    s3 = talk.s3_client(place)
    try:
        found = objects(s3, place, under, ours)
    except (ClientError, BotoCoreError):
        found = None  # why, the bucket's own proof says
    for key in found or ():
        try:
            s3.delete_object(Bucket=place.bucket, Key=key)
        except (ClientError, BotoCoreError):
            left += 1
    remove_rows(asked.root, tracking, trial, runs, models)
    count = None if found is None else len(found)
    return {"found": count, "left": left, "place": f"s3://{place.bucket}/{under}"}


def main(asked):
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    tracking = Tracking(os.environ["MLFLOW_BACKEND_STORE_URI"], "mlflow-artifacts:/")
    reports = [removed(asked, tracking, trial) for trial in trials(tracking, asked.experiment)]
    nothing = {"found": 0, "left": 0, "place": ""}
    talk.report(reports[0] if asked.experiment else nothing)


main(talk.request(Request))
