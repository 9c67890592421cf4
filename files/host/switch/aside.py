"""Take the databases of a state to one MLflow release, on the side, and serve them there.

Runs on the host, in that release's environment: copies both of the server's into a folder, brings
them to the release's schema and serves them. Reports {"migrated": [names], "seconds": n}. Its
functions serve what is staged beside it as well; migrate.py and try_server.py, which do the work,
run as processes of their own, that of each ends with it.
"""

import ctypes
import dataclasses
import json
import os
import signal
import subprocess
import sys

import databases
import talk

BACKUPS = "REMOTE_MLFLOW_BACKUP_"  # what backup_secrets.sh names its variables by


@dataclasses.dataclass(frozen=True)
class Request:
    root: str
    folder: str


def copy(root, folder):
    """Copy both databases into a folder as they are at one moment, whatever they are kept in.

    With what their logs hold: somebody who reads all the time, such as a stream to the bucket,
    keeps these from being folded into the files.
    """
    if not databases.on_postgres(root):
        databases.copy(root, databases.NAMES, folder)
        return
    import beside  # imports what only releases have
    import postgres

    try:
        beside.copy(root, folder)
    except postgres.Refused as error:
        talk.fail(f"{str(error).rstrip('.')}. Nothing was changed.")


def serve(folder, python=sys.executable):
    """Bring a folder's databases to a release's schema, and serve them; return what was migrated.

    `python` is that of the release's environment.
    """
    migrated = ask(python, "migrate.py", folder)
    talk.say("serve them on the side (usually 10 to 30 s)")
    ask(python, "try_server.py", folder)
    return migrated


def ask(python, program, folder):
    """Have a program that is staged beside this one work on a folder; return what it reports.

    What it tells the operator is passed on; where it fails, this process ends as well.
    """
    here = os.path.dirname(os.path.abspath(__file__))
    library, reported = ctypes.CDLL(None), None
    with subprocess.Popen(
        [python, os.path.join(here, program), f"folder={folder}"],
        # What is served is anybody's, and need not know where the backups' keys are.
        env={name: value for name, value in os.environ.items() if not name.startswith(BACKUPS)},
        stdout=subprocess.PIPE, text=True,
        # prctl(PR_SET_PDEATHSIG): it must not outlive this process, however that ends.
        preexec_fn=lambda: library.prctl(1, signal.SIGTERM),
    ) as running:  # fmt: skip
        for line in running.stdout:
            word, _, value = line.partition(" ")
            if word == "@report":
                reported = json.loads(value)
            else:
                print(line, end="", flush=True)
    if running.returncode:
        sys.exit(1)
    return reported


if __name__ == "__main__":
    request = talk.request(Request)
    copy(request.root, request.folder)
    talk.report(serve(request.folder))
