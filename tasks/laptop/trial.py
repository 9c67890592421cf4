"""Use the server as a data scientist would: train, log, read back through the proxy.

A program of its own, run by `verify` with nothing but MLFLOW_TRACKING_* in its environment: MLflow
keeps its state in the process, and several hosts are verified side by side. Prints one JSON object
a line: {"step": ...} as it goes, {"made": ...} for what must be removed, {"failed": ...} once.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import uuid
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

TEXT = "logged by remote-mlflow's verify\n"


class Failed(Exception):
    """The server works, but not as promised."""


# MLflow prints links to runs; only our own lines belong on standard output.
LINES = sys.stdout


def say(**words: Any) -> None:
    """Print one line for `verify` to read."""
    print(json.dumps(words), file=LINES, flush=True)


def trial(proxied: bool) -> None:
    """Train, log and read back; raises Failed or whatever MLflow raises."""
    import mlflow
    import requests
    from mlflow import MlflowClient
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    uri = os.environ["MLFLOW_TRACKING_URI"]
    client = MlflowClient()
    client.search_experiments(max_results=1)
    say(step="the server answers, and takes the login")
    info = requests.get(f"{uri}/api/3.0/mlflow/server-info", timeout=30)
    if proxied and info.status_code != 404:
        raise Failed(
            "the server offers direct access to S3, so clients would go past it. Type: ./fab deploy"
        )

    name = f"remote-mlflow-verify-{uuid.uuid4().hex[:12]}"
    experiment = client.create_experiment(name)
    say(made={"experiment": experiment, "model": name})
    root = client.get_experiment(experiment).artifact_location
    if not root.startswith("mlflow-artifacts:/"):
        raise Failed(f"artifacts go to {root}, not through the server (mlflow-artifacts:/)")

    features, kinds = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(features, kinds)
    accuracy = float(model.score(features, kinds))
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_params({"max_iter": 500})
        mlflow.log_metric("accuracy", accuracy)
        mlflow.log_text(TEXT, "note.txt")
        logged = mlflow.sklearn.log_model(
            model, name="model", registered_model_name=name, input_example=features[:2]
        )
    say(step=f"trained a model (accuracy {accuracy:.2f}), logged it with parameters and a file")

    seen = client.get_run(run.info.run_id).data
    if seen.params != {"max_iter": "500"} or seen.metrics["accuracy"] != accuracy:
        raise Failed("parameters or metrics did not come back as they were logged")
    with tempfile.TemporaryDirectory() as folder:
        path = mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path="note.txt", dst_path=folder
        )
        if Path(path).read_text() != TEXT:
            raise Failed("the file did not come back as it was logged")
    again = mlflow.sklearn.load_model(logged.model_uri)
    if list(again.predict(features)) != list(model.predict(features)):
        raise Failed("the model that came back predicts something else")
    registered = mlflow.sklearn.load_model(f"models:/{name}/1")
    if registered.coef_.tolist() != model.coef_.tolist():
        raise Failed("the registered model is another one")
    say(step="read all of it back through the server")
    # Through the API first: it takes the grants back that creating them gave.
    client.delete_registered_model(name)
    client.delete_experiment(experiment)


def main() -> int:
    import logging
    import warnings

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    try:
        with redirect_stdout(sys.stderr):
            trial(proxied="--proxied" in sys.argv)
    except Exception as error:  # noqa: BLE001 (whatever MLflow raises is the finding)
        kind = "" if isinstance(error, Failed) else f"{type(error).__name__}: "
        say(failed=kind + (str(error).strip().splitlines() or ["no reason given"])[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
