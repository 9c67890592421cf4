"""Run `mlflow server` as one process: what its command line has loaded goes on as the server.

`python …/mlflow server …` takes what `mlflow` takes. MLflow's command line loads
itself, checks the databases, and then has a second Python load all of it anew, for uvicorn, while
the first waits with its 250 MB. Here uvicorn runs in the first, in the environment of the second.

Which variables that has, MLflow keeps to itself, and some are read while it is loaded, such as the
hosts that it answers to. So they are set before, and compared once MLflow says what it wants. Where
one differs, MLflow's own second process takes the place of the first: as safe, only slower. So it
is with several workers, which uvicorn starts. A release that goes about it in another way does so.
"""

import os
import sys
import uuid

# Only with it does MLflow's app check the host of a request: it asks whether a server is loaded.
import uvicorn

HOSTS = "MLFLOW_SERVER_ALLOWED_HOSTS"
# Read once MLflow is loaded: a new number at each start, and whether `basic-auth` has its admin.
LATE = ("_MLFLOW_SERVER_BOOT_ID", "_MLFLOW_AUTH_ADMIN_BOOTSTRAPPED")


def expected(words, given):
    """Return what `mlflow server` sets for uvicorn, as far as this is known of 3.16 and 3.17."""
    store = given.get("MLFLOW_BACKEND_STORE_URI", "")
    hosts = words[words.index("--allowed-hosts") + 1] if "--allowed-hosts" in words else None
    return {
        **({HOSTS: hosts} if hosts else {}),
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": given.get("MLFLOW_ARTIFACTS_DESTINATION", ""),
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
        "MLFLOW_ENABLE_WORKSPACES": "false",
        "MLFLOW_TRACKING_URI": store,
        "MLFLOW_REGISTRY_URI": store,
        "MLFLOW_SERVER_SECRETS_CACHE_TTL": "60",
        "MLFLOW_SERVER_SECRETS_CACHE_MAX_SIZE": "1000",
        LATE[0]: uuid.uuid4().hex,
    }


def differing(before, wanted):
    """Name the variables that were otherwise while MLflow was loaded than its server wants them."""
    names = {name for name in {*before, *wanted} if before.get(name) != wanted.get(name)}
    return sorted(names.difference(LATE))


def take_over(before):
    """Return what stands in for the start of a second process; it does not return."""

    def run(command, *, extra_env=None, **options):
        wanted = {**os.environ, **(extra_env or {})}
        words = [str(word) for word in command]
        alone = words[words.index("--workers") + 1] == "1" if "--workers" in words else False
        wrong = differing(before, wanted)
        if wrong:
            print(f"loading MLflow again, for {', '.join(wrong)}", file=sys.stderr)
        if wrong or not alone or words[1:3] != ["-m", "uvicorn"]:
            sys.stdout.flush()
            sys.stderr.flush()
            os.execve(words[0], words, wanted)
        os.environ.update(wanted)
        uvicorn.main.main(words[3:], "uvicorn")

    return run


def main():
    os.environ.update(expected(sys.argv[1:], os.environ))
    before = dict(os.environ)
    import mlflow.server
    from mlflow.cli import cli

    if callable(getattr(mlflow.server, "_exec_cmd", None)):
        mlflow.server._exec_cmd = take_over(before)
    cli(prog_name="mlflow")


if __name__ == "__main__":
    main()
