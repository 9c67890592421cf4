"""try_server.py: databases are served on the side before they are the server's."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host_side import execute, rows

from tasks.engine.templates import source

# Plays MLflow's server (one_process.py) on a unix socket: knows the admin of its ini, and does as
# it is told.
SERVER = """
import base64, configparser, http.server, json, os, socketserver, sys, urllib.parse

here = "{folder}"
told = json.load(open(here + "/told.json"))
with open(here + "/pid", "w") as stream:
    stream.write(str(os.getpid()))
with open(here + "/seen.json", "w") as stream:
    json.dump({{"words": sys.argv, "environment": dict(os.environ)}}, stream)
if "error" in told:
    print(told["error"], flush=True)
    sys.exit(1)
ini = configparser.ConfigParser(interpolation=None)
ini.read(os.environ["MLFLOW_AUTH_CONFIG_PATH"])
pair = ini["mlflow"]["admin_username"] + ":" + ini["mlflow"]["admin_password"]
login = "Basic " + base64.b64encode(pair.encode()).decode()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        place = urllib.parse.urlsplit(self.path)
        name = place.path.rsplit("/", 1)[-1]
        status = told.get(name, 200)
        if name != "health" and self.headers["Authorization"] != login:
            status = 401
        run = dict(urllib.parse.parse_qsl(place.query)).get("run_id")
        body = json.dumps({{"run": {{"info": {{"run_id": told.get("run", run)}}}}}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

    def address_string(self):
        return "client"

address = sys.argv[sys.argv.index("--uvicorn-opts") + 1].split()[1]
socketserver.UnixStreamServer(address, Handler).serve_forever()
"""


class Trial:
    """A release whose server does as it is told, beside the program that tries it."""

    def __init__(self, folder: Path, databases: Path, run_program: Any) -> None:
        self.folder, self.databases, self._run_program = folder, databases, run_program
        (folder / "here").mkdir()
        (folder / "here/try_server.py").write_text(source("try_server.py"))
        (folder / "here/one_process.py").write_text(SERVER.format(folder=folder))

    def run(self, **told: Any) -> tuple[int, str]:
        (self.folder / "told.json").write_text(json.dumps(told))
        place = dict.fromkeys(("backup_prefix", "environment"), "") | {
            "bucket": "my-bucket", "prefix": "mlflow-artifacts",
        }  # fmt: skip
        here = self.folder / "here"
        return self._run_program("try_server.py", place=place, folder=self.databases, staged=here)

    @property
    def seen(self) -> dict[str, Any]:
        return json.loads((self.folder / "seen.json").read_text())

    @property
    def is_over(self) -> bool:
        pid = (self.folder / "pid").read_text()
        return not Path(f"/proc/{pid}").exists()


@pytest.fixture
def trial(
    root: Path, databases: Any, run_program: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Trial]:
    # A socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="try", dir="/tmp"))
    yield Trial(folder, root, run_program)
    shutil.rmtree(folder)


def untouched(root: Path) -> tuple[Any, ...]:
    return (
        sorted(path.name for path in root.glob("*.db*")),
        rows(root / "basic_auth.db", "select username from users"),
        rows(root / "mlflow.db", "select run_uuid from runs"),
    )


def test_a_release_that_serves_the_databases_passes_and_leaves_nothing(trial, root):
    before = untouched(root)
    execute(root / "mlflow.db", "insert into runs values ('gone', 9000, 'deleted')")
    code, out = trial.run()
    assert code == 0, out
    assert json.loads(out.removeprefix("@report "))["run"] == "run2", "the newest that is active"
    execute(root / "mlflow.db", "delete from runs where run_uuid = 'gone'")
    assert untouched(root) == before
    assert trial.is_over
    assert sorted(os.listdir(trial.folder / "here")) == ["one_process.py", "try_server.py"]


def test_it_is_served_as_the_server_itself_would_and_no_password_is_told(trial, root):
    trial.run()
    environment, words = trial.seen["environment"], trial.seen["words"]
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{root}/mlflow.db"
    assert environment["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://my-bucket/mlflow-artifacts"
    # The program is one_process.py, as the unit's: MLflow is loaded once.
    assert Path(words[0]).name == "mlflow"
    assert words[1:4] == ["server", "--app-name", "basic-auth"]
    assert "127.0.0.1" not in " ".join(words)
    assert not any("password" in word for word in words)


def test_a_database_without_runs_is_served_too(trial, root):
    execute(root / "mlflow.db", "delete from runs")
    code, out = trial.run()
    assert (code, json.loads(out.removeprefix("@report "))["run"]) == (0, None)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"error": "noise\nModuleNotFoundError: No module named x\nbye"},
         "it ended at its start: ModuleNotFoundError: No module named x"),
        ({"error": ""}, "it ended at its start: its log is empty"),
        ({"search": 500}, "it cannot search experiments (500: "),
        ({"search": 401}, "it cannot search experiments (401: "),
        ({"get": 404}, "it cannot read the newest run (404: "),
        ({"run": "another"}, "it answers with another run than it was asked for"),
        ({"artifacts": 403}, "it cannot list the bucket (403: "),
    ],
)  # fmt: skip
def test_a_release_that_does_not_serve_says_why_and_is_ended(trial, root, told, said):
    before = untouched(root)
    code, out = trial.run(**told)
    assert code == 1
    assert out.startswith(f"@fail MLflow does not serve these databases: {said}")
    assert out.endswith(". Nothing was changed.\n")
    assert out.count("\n") == 1
    assert trial.is_over
    assert untouched(root) == before
    assert sorted(os.listdir(trial.folder / "here")) == ["one_process.py", "try_server.py"]
