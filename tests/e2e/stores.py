"""What a release's own MLflow makes of its databases, and programs of the host run beside it.

Run by the release's Python, which takes long to load all of MLflow: so it is loaded once, and every
request is served by a fork. A request is a line of JSON, {"do": name, "with": [words], "first":
code, "beside": folder, "environment": variables, "out": file}; answered by two lines, the fork's
process id and its exit code.
"""

# ruff: noqa: E402 (MLflow reads its variables while it is loaded)

import contextlib
import io
import json
import logging
import os
import runpy
import sys
import time
import traceback
import warnings

warnings.simplefilter("ignore")
os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = "unused"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.server.auth.db import utils  # noqa: F401 (loaded for the forks)
from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore as Users

AWKWARD = (
    "tab\t newline\n return\r \\N \\. \\t 'q' \"d\" $1 %s \U0001f600 é e\N{COMBINING ACUTE ACCENT}"
)
NUMBERS = (float("nan"), float("inf"), float("-inf"), 1 / 3, -0.0, 5e-324, 1e16, 123456789012345678)


def made(folder):
    """Fill mlflow.db and basic_auth.db with something of all that people keep in MLflow."""
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri, uri)
    names = ("Größe " + AWKWARD, "case", "Case", "CASE")
    experiments = [client.create_experiment(name, f"file://{folder}/files") for name in names]
    for n in range(60):
        run = client.create_run(experiments[n % 4], run_name=AWKWARD, tags={"n": str(n)}).info
        metrics = [Metric(f"m{k}", value, 1000 + n, k) for k, value in enumerate(NUMBERS)]
        metrics += [Metric("loss", 1 / (step + n + 1), 2000 + step, step) for step in range(40)]
        params = [Param("p", AWKWARD), Param("P", "x" * 6000), Param("empty", "")]
        client.log_batch(run.run_id, metrics, params, [RunTag("note", "é" * 5000)])
        client.log_inputs(
            run.run_id,
            [DatasetInput(Dataset(f"d{n}", str(n), "local", "{}"), [InputTag("a", "train")])],
        )
        client.set_terminated(run.run_id)
    client.delete_run(run.run_id)
    client.delete_experiment(experiments[2])
    for name in ("model", "Model"):
        client.create_registered_model(name, {"t": AWKWARD}, AWKWARD)
        for _ in range(3):
            client.create_model_version(name, "mlflow-artifacts:/1/x", run.run_id, {"v": "1"})
        client.set_registered_model_alias(name, "champion", "2")
        client.set_registered_model_alias(name, "Champion", "3")
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=experiments[1])
    for n in range(3):
        with mlflow.start_span("root") as span:
            span.set_inputs({"question": AWKWARD * n})
            span.set_outputs("zero\0 " + "y" * 200_000 * n)
            span.set_attributes({"n": 1.5, "nothing": None, "yes": True})
    mlflow.flush_trace_async_logging()
    users = Users()
    users.init_db(f"sqlite:///{folder}/basic_auth.db")
    for name in ("admin", "anna", "Anna", "ünal"):
        users.create_user(name, "a long password", is_admin=name == "admin")
    users.grant_user_permission("anna", "experiment", experiments[0], "EDIT")
    users.grant_user_permission("Anna", "registered_model", "Model", "MANAGE")


def told(tracking, auth):
    """Print as JSON what MLflow's own clients see in two databases."""
    client = MlflowClient(tracking, tracking)
    every = mlflow.entities.ViewType.ALL
    experiments = client.search_experiments(view_type=every, order_by=["experiment_id"])
    ids = [each.experiment_id for each in experiments]
    runs = client.search_runs(ids, run_view_type=every, max_results=1000)
    histories = {
        run.info.run_id: [
            [repr(metric.value), metric.timestamp, metric.step]
            for key in sorted(run.data.metrics)
            for metric in client.get_metric_history(run.info.run_id, key)
        ]
        for run in runs[:5]
    }
    models = [client.get_registered_model(name) for name in ("model", "Model")]
    mlflow.set_tracking_uri(tracking)
    traces = [
        client.get_trace(trace.info.trace_id).to_dict() for trace in client.search_traces(ids)
    ]
    users = Users()
    users.init_db(auth)
    seen = {
        "experiments": list(map(written, experiments)),
        "runs": sorted(json.dumps(run.to_dictionary(), sort_keys=True) for run in runs),
        "inputs": sorted(repr(run.inputs.to_dictionary()) for run in runs),
        "histories": histories,
        "models": list(map(written, models)),
        "versions": sorted(map(written, client.search_model_versions())),
        "champion": [client.get_model_version_by_alias("Model", "Champion").version],
        "traces": sorted(json.dumps(trace, sort_keys=True) for trace in traces),
        "users": [user.to_json() for user in users.list_users()],
        "login": [users.authenticate_user(name, "a long password") for name in ("ünal", "Ünal")],
        "grants": [
            [role.to_json() for role in users.list_user_roles(user.id)]
            for user in users.list_users()
        ],
    }
    print(json.dumps(seen, default=str, sort_keys=True))


def written(entity):
    """Write one of MLflow's entities, in whatever order the database has its parts."""
    return json.dumps(dict(entity), default=dict, sort_keys=True)


def more(tracking, auth):
    """Make one more of what is numbered by the database; print the numbers."""
    users = Users()
    users.init_db(auth)
    made = users.create_user("last", "a long password"), users.create_role("last", "default")
    experiment = MlflowClient(tracking, tracking).create_experiment("last", "file:///nowhere")
    print(json.dumps([int(experiment), *(each.id for each in made)]))


def schemas(tracking, auth):
    """Make both databases as MLflow does on a server's first start, by its own stores."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(tracking, "mlflow-artifacts:/")
    Users().init_db(auth)


def program(name, *words):
    """Run one of the host's programs as the host does."""
    sys.argv = [name, *words]
    runpy.run_path(name, run_name="__main__")


def serve():
    logging.disable(logging.WARNING)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            served(request)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def served(request):
    """Serve a request in a process of its own, and end it."""
    with open(request["out"], "w") as out:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(out.fileno(), stream.fileno())
    code = 0
    try:
        os.environ.update(request["environment"])
        sys.path.insert(0, request["beside"])
        exec(request["first"], {})
        globals()[request["do"]](*request["with"])
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 (the one who asked reads it)
        traceback.print_exc()
        code = 2
    with contextlib.suppress(io.UnsupportedOperation, ValueError):
        sys.stdout.flush()
    # What MLflow's threads still hold back is not waited for.
    time.sleep(0)
    os._exit(code)


if __name__ == "__main__":
    print("ready", flush=True)
    serve()
