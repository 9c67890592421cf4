"""Count what a trial left in the bucket, then remove it there and from the database.

Runs on the host in the server's own environment. Reports {"found": n, "left": n, "place": uri}.
MLflow's own delete only marks; its gc wants the whole server's deleted runs.
"""

import dataclasses
import os

import grants
import talk
from botocore.exceptions import ClientError
from sqlalchemy import text
from talk import Place

# The name is made by the trial; nothing else is ever touched.
MARK = "remote-mlflow-verify-"


@dataclasses.dataclass(frozen=True)
class Request:
    """What a trial made on the server in this folder; nothing where it failed before."""

    root: str
    place: Place
    experiment: str = ""  # its number
    model: str = ""  # the registered model's name


asked = talk.request(Request)
bucket, experiment = asked.place.bucket, asked.experiment


def objects(s3, place, ours):
    """List the keys of these runs and models: another server's experiment may have our number."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=place)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return [key for key in keys if not ours.isdisjoint(key.split("/"))]


def trial_of(uri):
    """Find what the trial made; end here where the experiment is somebody's own."""
    from mlflow.entities import ViewType
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    tracking = Tracking(uri, "mlflow-artifacts:/")
    trial = tracking.get_experiment(experiment)
    if not trial.name.startswith(MARK):
        talk.fail(f"experiment {experiment} is not a trial's; nothing was removed")
    runs = tracking.search_runs([experiment], "", ViewType.ALL, max_results=100)
    return tracking, trial, runs, tracking.search_logged_models([experiment])


def remove_rows(uri, tracking, trial, runs, models):
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry

    if trial.lifecycle_stage == "active":  # the trial failed before it could
        tracking.delete_experiment(experiment)
        registry = Registry(uri)
        if registry.search_registered_models(f"name = '{asked.model}'"):
            registry.delete_registered_model(asked.model)
    for found in models:
        tracking._hard_delete_logged_model(found.model_id)
    for run in runs:
        tracking._hard_delete_run(run.info.run_id)
    tracking._hard_delete_experiment(experiment)
    with tracking.engine.begin() as rows:
        for run in runs:
            values = {"run": run.info.run_id}
            rows.execute(text("delete from inputs where source_id = :run"), values)
    grants.take_back(asked.root, experiment)


def cleaned():
    """Remove what the trial made; return what is reported."""
    if not experiment:
        return {"found": 0, "left": 0, "place": ""}
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    tracking, trial, runs, models = trial_of(uri)
    s3 = talk.s3_client(asked.place)
    place = f"{asked.place.prefix}/{experiment}/"
    ours = {run.info.run_id for run in runs} | {made.model_id for made in models}
    found = objects(s3, place, ours)
    left = 0
    for key in found:
        try:
            s3.delete_object(Bucket=bucket, Key=key)
        except ClientError:
            left += 1
    remove_rows(uri, tracking, trial, runs, models)
    return {"found": len(found), "left": left, "place": f"s3://{bucket}/{place}"}


talk.report(cleaned())
