"""The trial is run as any client would run it, and cleaned up after whatever it found."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from invoke import Exit
from stand_ins import SETTINGS, Reply, Task, blank, context, deployed

from tasks import verify as module
from tasks.engine import credentials, paths
from tasks.engine.facts import Unit
from tasks.engine.login import Login
from tasks.engine.settings import Settings
from tasks.laptop import play

LOGIN = Login("admin", "correct horse battery")


# -- the client's environment ------------------------------------------------------------------


def test_nothing_of_the_operator_s_leaks_into_the_client(monkeypatch):
    for name in (
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_INSECURE_TLS",
        "MLFLOW_S3_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "DATABRICKS_HOST",
    ):
        monkeypatch.setenv(name, "the operator's")
    environment = play.client_environment(LOGIN, "http://localhost:5001")
    assert "the operator's" not in environment.values()
    assert not any(name.startswith("AWS_") for name in environment)
    assert environment["MLFLOW_TRACKING_URI"] == "http://localhost:5001"
    assert environment["MLFLOW_TRACKING_USERNAME"] == "admin"
    assert environment["MLFLOW_TRACKING_PASSWORD"] == LOGIN.password


def test_a_proxy_of_the_operator_s_does_not_hide_the_tunnel(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    environment = play.client_environment(LOGIN, "x")
    assert environment["HTTP_PROXY"] == "http://proxy:3128"
    assert "localhost" in environment["NO_PROXY"]
    assert environment["no_proxy"] == environment["NO_PROXY"]


def test_the_trial_finds_this_project_from_any_folder():
    assert play.client_environment(LOGIN, "x")["PYTHONPATH"] == str(paths.PROJECT)


# -- running it --------------------------------------------------------------------------------


class Trial:
    """Plays the trial's process: says what it is told, and ends as it is told."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.errors = ""
        self.returncode = 0
        self.words: list[str] = []
        self.options: dict[str, Any] = {}

    def __call__(self, words: list[str], **options: Any) -> Trial:
        self.words, self.options = words, options
        self.stdout = io.StringIO("".join(json.dumps(line) + "\n" for line in self.lines))
        options["stderr"].write(self.errors)
        return self

    def wait(self) -> int:
        return self.returncode


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Trial:
    trial = Trial()
    trial.lines = [{"step": "trained"}, {"made": {"experiment": "7", "model": "m-1"}}]

    @contextmanager
    def forwarded(server: Any, port: int) -> Iterator[None]:
        yield None

    monkeypatch.setattr(module, "forwarded", forwarded)
    monkeypatch.setattr(subprocess, "Popen", trial)
    return trial


@pytest.fixture
def c() -> Task:
    return ready()


def ready(settings: Settings = SETTINGS, found: int = 5, left: int = 0) -> Task:
    c = context(deployed(settings), settings)
    credentials.keep(c.server, LOGIN)
    report = {"found": found, "left": left, "place": "s3://my-bucket/mlflow-artifacts/7/"}
    c.recorder.replies = [Reply(f"@report {json.dumps(report)}\n@exit 0\n")]
    return c


def failure(c: Task) -> str:
    with pytest.raises(Exit) as caught:
        module.verify(c)
    return str(caught.value.message)


def test_a_good_trial_is_verified_and_cleaned_up_in_one_exec(c, trial, capsys):
    module.verify(c)
    (run,) = c.recorder.runs
    request = json.loads(run.files["clean_trial.json"])
    assert request["experiment"] == "7"
    assert request["place"]["prefix"] == "mlflow-artifacts"
    # Whatever becomes of the proof, what was made is gone before.
    assert run.steps.index("clean_trial.py") < run.steps.index("prove_bucket.py")
    out = capsys.readouterr().out
    assert "trained" in out
    assert "5 objects in the bucket" in out
    assert "✓ verified" in out


@pytest.mark.parametrize(("access", "proxied"), [("proxied", True), ("direct", False)])
def test_the_trial_is_told_whether_artifacts_are_proxied(trial, access, proxied):
    module.verify(ready(Settings(bucket="my-bucket", artifact_access=access)))
    assert ("--proxied" in trial.words) is proxied


def test_the_password_is_in_the_environment_and_never_among_the_words(c, trial):
    module.verify(c)
    assert LOGIN.password not in " ".join(trial.words)
    assert trial.options["env"]["MLFLOW_TRACKING_PASSWORD"] == LOGIN.password
    assert trial.options["stdin"] is subprocess.DEVNULL


def test_a_failed_trial_is_cleaned_up_all_the_same(c, trial):
    trial.lines.append({"failed": "the model that came back predicts something else"})
    trial.returncode = 1
    assert failure(c) == (
        "ec2 fails the trial: the model that came back predicts something else. "
        "See its side: ./fab logs"
    )
    request = json.loads(c.recorder.changes[0].files["clean_trial.json"])
    assert request["experiment"] == "7"


@pytest.mark.parametrize(
    ("errors", "said"),
    [("Traceback\nImportError: no module\n", "ImportError: no module"), ("", "without a word")],
)
def test_a_trial_that_dies_is_named_by_its_last_words(c, trial, errors, said):
    trial.errors, trial.returncode = errors, 1
    assert said in failure(c)


def test_artifacts_that_went_elsewhere_are_found_out(trial):
    assert "No object under s3://my-bucket/mlflow-artifacts/7/: artifacts went elsewhere" in (
        failure(ready(found=0))
    )


def test_objects_that_cannot_be_deleted_are_named_and_no_failure(trial, capsys):
    module.verify(ready(left=5))
    err = capsys.readouterr().err
    assert "5 objects left under s3://my-bucket/mlflow-artifacts/7/" in err


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (blank(), "There is no server on ec2 yet"),
        (deployed(units={}), r"ec2 is stopped \(./fab start\)"),
        (
            deployed(units={**deployed().units, "nginx.service": Unit()}),
            "ec2 is running, but nginx is down",
        ),
    ],
)
def test_a_server_that_is_down_is_not_tried(trial, facts, wanted):
    c = context(facts)
    credentials.keep(c.server, LOGIN)
    with pytest.raises(Exit, match=wanted):
        module.verify(c)
    assert trial.words == []


def test_a_trial_that_complains_at_length_does_not_block(monkeypatch):
    script = "import sys; sys.stderr.write('x' * 10**6); print('{\"step\": \"done\"}')"
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda words, **options: popen([sys.executable, "-c", script], **options),
    )
    assert module._trial(ready().server, LOGIN, "http://localhost:1", {}) is None


def test_without_a_login_it_says_how_to_give_one(trial):
    with pytest.raises(Exit, match="No login for ec2 is known here"):
        module.verify(context(deployed()))


# -- any client's program ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "failure", "heard"),
    [
        ("print(json.dumps({'said': sys.stdin.readline()}))", None, [{"said": "a line\n"}]),
        ('print(\'{"failed": "why"}\'); sys.exit(1)', "why", [{"failed": "why"}]),
        ("os.close(0); raise OSError('gone')", "OSError: gone", []),
    ],
)
def test_a_program_is_told_one_line_and_heard_line_by_line(script, failure, heard):
    said: list[dict[str, Any]] = []
    words = [sys.executable, "-c", f"import json, os, sys; {script}"]
    assert play.play(words, {}, said.append, "a line") == failure
    assert said == heard


def test_a_wrong_password_is_said_at_once(monkeypatch, trial, c):
    monkeypatch.setattr(module, "is_refused", lambda port, login: True)
    with pytest.raises(Exit, match=r"ec2 refuses the password of admin\. \./fab client says"):
        module.verify(c)
    assert c.recorder.runs == []
