"""Start one MLflow release on databases that nobody else uses, and prove that it is usable.

Runs on the host in that release's environment. The server starts as the unit's does
(one_process.py), and listens on a socket beside this file, not on the public one. This logs in as
an admin of its own, made in a copy of SQLite's database of users, or in PostgreSQL's for as long as
it is needed; reads the newest run, and lists the bucket. Reports {"seconds": n, "run": id or null}.
"""

import base64
import ctypes
import dataclasses
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress

import databases
import postgres
import talk

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 150  # seconds; a start takes 10, and the host may be busy
NAME, PASSWORD = "remote-mlflow-check", secrets.token_hex(16)
INI = """[mlflow]
default_permission = READ
database_uri = {users}
admin_username = {name}
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


OURS = "insert into users (username, password_hash, is_admin) values (%s, %s, %s)"
NEWEST = (
    "select run_uuid from runs where lifecycle_stage = 'active' order by start_time desc limit 1"
)


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place
    folder: str  # with mlflow.db and basic_auth.db, or a server.env that names PostgreSQL's
    app: str = ""  # the folder of the wall, where the release must serve behind it


class Unusable(Exception):
    """Why the release does not serve these databases."""


class State:
    """The databases in a folder, which nobody else uses."""

    def __init__(self, folder):
        self.folder, self.uris = folder, databases.addresses(folder)
        self.on_postgres = databases.on_postgres(folder)

    def users_with_ours(self, scratch):
        """Add an admin whose password is known here alone; return where the users are."""
        from werkzeug.security import generate_password_hash

        # Few rounds: it lives for seconds, and each request is hashed anew.
        ours = (NAME, generate_password_hash(PASSWORD, method="pbkdf2:sha256:1000"), True)
        if self.on_postgres:
            self.forget_ours()
            postgres.change(self.uris[databases.AUTH], OURS, ours)
            return self.uris[databases.AUTH].replace("%", "%%")  # it is read with interpolation
        databases.copy(self.folder, (databases.AUTH,), scratch)
        path = os.path.join(scratch, databases.AUTH)
        with closing(sqlite3.connect(path)) as users, users:
            users.execute(OURS.replace("%s", "?"), ours)
        return "sqlite:///" + path

    def forget_ours(self):
        """Take our admin out of a database that is to be served."""
        if self.on_postgres:
            postgres.change(
                self.uris[databases.AUTH], "delete from users where username = %s", (NAME,)
            )

    def newest_run(self):
        if self.on_postgres:
            return postgres.ask(self.uris[databases.TRACKING], NEWEST)
        path = os.path.join(self.folder, databases.TRACKING)
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as base:
            row = base.execute(NEWEST).fetchone()
        return row and row[0]

    def fold_log(self):
        """Leave each database of SQLite's in one file."""
        for name in () if self.on_postgres else databases.NAMES:
            with closing(sqlite3.connect(os.path.join(self.folder, name), timeout=20)) as base:
                base.execute("pragma wal_checkpoint(truncate)").fetchall()


def started(state, destination, scratch, address, app):
    ini = os.path.join(scratch, "auth.ini")
    with open(ini, "w") as stream:
        stream.write(INI.format(users=state.users_with_ours(scratch), name=NAME, password=PASSWORD))
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": state.uris[databases.TRACKING],
        "MLFLOW_AUTH_CONFIG_PATH": ini,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
        "MLFLOW_ARTIFACTS_DESTINATION": destination,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_MODEL_CATALOG_URI": "",
        "MLFLOW_SERVER_X_FRAME_OPTIONS": "DENY",
    }
    if app:
        environment["PYTHONPATH"] = app
    # Where it lies alone, since Python looks for modules beside the program first; and by this
    # name, for whoever looks for `mlflow server` among the processes.
    program = os.path.join(scratch, "mlflow")
    shutil.copy(os.path.join(HERE, "one_process.py"), program)
    words = [
        sys.executable, program, "server",
        "--app-name", "remote-mlflow" if app else "basic-auth",
        "--workers", "1", "--uvicorn-opts", "--uds " + address,
    ]  # fmt: skip
    libc = ctypes.CDLL(None)
    return subprocess.Popen(
        words, env=environment, cwd=scratch, stdin=subprocess.DEVNULL,
        stdout=open(os.path.join(scratch, "log"), "w"), stderr=subprocess.STDOUT,
        start_new_session=True,
        # prctl(PR_SET_PDEATHSIG): it must not outlive this program, however that ends.
        preexec_fn=lambda: libc.prctl(1, signal.SIGTERM),
    )  # fmt: skip


def ask(address, path, body=None):
    """Return status and text of one request on the unix socket."""
    connection = http.client.HTTPConnection("localhost", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(60)
    with closing(connection.sock):
        connection.sock.connect(address)
        pair = base64.b64encode((f"{NAME}:{PASSWORD}").encode()).decode()
        headers = {"Authorization": "Basic " + pair, "Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")


def await_health(server, address, scratch):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise Unusable("it ended at its start: " + last_error(scratch))
        try:
            if ask(address, "/health")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise Unusable(f"it did not answer within {PATIENCE} s: {last_error(scratch)}")


def last_error(scratch):
    with open(os.path.join(scratch, "log"), errors="replace") as stream:
        lines = [line.strip() for line in stream if line.strip()]
    return ([line for line in lines if "rror" in line] or lines or ["its log is empty"])[-1][:300]


def prove(state, address):
    """Log in, read the newest run through the server, list the bucket; returns the run's id."""
    wanted(ask(address, "/api/2.0/mlflow/experiments/search?max_results=1"), "search experiments")
    newest = state.newest_run()
    if newest:
        status, text = ask(address, "/api/2.0/mlflow/runs/get?run_id=" + newest)
        wanted((status, text), "read the newest run")
        if json.loads(text)["run"]["info"]["run_id"] != newest:
            raise Unusable("it answers with another run than it was asked for")
    wanted(ask(address, "/api/2.0/mlflow-artifacts/artifacts?path="), "list the bucket")
    return newest


def wanted(answer, what):
    status, text = answer
    if status != 200:
        # Of a page only the words, in one line.
        words = " ".join(re.sub(r"<[^>]*>", " ", text).split())
        raise Unusable(f"it cannot {what} ({status}: {words[:200]})")


def end(server):
    """End the server and whatever it started."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def main(request):
    began = time.monotonic()
    state, place = State(request.folder), request.place
    scratch = tempfile.mkdtemp(dir=HERE)
    address = os.path.join(scratch, "s")
    server = started(state, f"s3://{place.bucket}/{place.prefix}", scratch, address, request.app)
    try:
        await_health(server, address, scratch)
        run = prove(state, address)
    finally:
        end(server)
        state.fold_log()
        state.forget_ours()
        shutil.rmtree(scratch, ignore_errors=True)
    talk.report({"seconds": round(time.monotonic() - began, 1), "run": run})


try:
    main(talk.request(Request))
except (Unusable, postgres.Refused, OSError, sqlite3.Error) as error:
    reason = str(error).rstrip(".")
    talk.fail(f"MLflow does not serve these databases: {reason}. Nothing was changed.")
