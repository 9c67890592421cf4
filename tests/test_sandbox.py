"""The tasks around rehearsal hosts: what they say, ask and refuse; no host is booted here."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from invoke import Context, Exit

from tasks import sandbox
from tasks.engine import paths, rehearsed


@dataclass
class Machine:
    alias: str
    address: str = "10.0.0.2"
    suite: str = "bookworm"
    booted: bool = True

    @property
    def name(self) -> str:
        return f"mb-1a2b-{self.alias}"


@dataclass
class Rehearsal:
    """Plays the rehearsal hosts of this clone."""

    hosts: list[Machine] = field(default_factory=list)
    reason: str | None = None
    done: list[str] = field(default_factory=list)
    bucket: str = "toy-bucket"
    endpoint: str = "http://10.0.0.1:9000"
    network: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(bridge="mb-1a2b"))

    def why_not(self) -> str | None:
        return self.reason

    def machines(self) -> list[Machine]:
        return self.hosts

    def footprint(self) -> list[str]:
        return ["a bridge", "one NAT rule"]

    def up(self, count: int, suite: str) -> list[Machine]:
        self.done.append(f"up {count} {suite}")
        names = ["sandbox", *(f"sandbox-{n}" for n in range(2, count + 1))]
        self.hosts = [Machine(name, suite=suite) for name in names]
        return self.hosts

    def down(self) -> None:
        self.done.append("down")
        self.hosts = []


@pytest.fixture
def rehearsal(monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    rehearsal = Rehearsal()
    monkeypatch.setattr(sandbox, "ours", lambda: rehearsal)
    return rehearsal


C = Context()


def test_hosts_are_booted_and_told_what_to_use(rehearsal, capsys):
    sandbox.up(C, count=2)
    assert rehearsal.done == ["up 2 bookworm"]
    found = rehearsed.rehearsed("mb-1a2b-sandbox-2")
    assert found is not None
    assert found.settings.bucket == "toy-bucket"
    assert found.settings.endpoint_url == "http://10.0.0.1:9000"
    assert found.settings.artifact_prefix == "mlflow-artifacts-2"
    assert found.variables == sandbox.KEYS
    assert "up: sandbox, sandbox-2." in capsys.readouterr().out


def test_what_changes_on_this_machine_is_said_before(rehearsal, capsys):
    sandbox.up(C)
    out = capsys.readouterr().out
    assert out.index("- a bridge") < out.index("up: sandbox")
    assert "sandbox.down takes all of it back" in out


def test_a_running_host_changes_nothing_more(rehearsal, capsys):
    rehearsal.hosts = [Machine("sandbox")]
    sandbox.up(C)
    assert "a bridge" not in capsys.readouterr().out


def test_on_a_terminal_it_asks_first(rehearsal, terminal):
    terminal.append("n")
    with pytest.raises(Exit, match="Nothing was changed"):
        sandbox.up(C)
    assert rehearsal.done == []


def test_yes_answers_the_question(rehearsal, terminal):
    sandbox.up(C, yes=True)
    assert rehearsal.done == ["up 1 bookworm"]


def test_without_a_terminal_it_goes_on(rehearsal):
    sandbox.up(C)
    assert rehearsal.done == ["up 1 bookworm"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"suite": "jessie"}, "Unknown suite 'jessie'. Give --suite one of: bookworm, trixie"),
        ({"count": 0}, "--count is 0"),
    ],
)
def test_bad_options_are_refused(rehearsal, options, wanted):
    with pytest.raises(Exit, match=wanted):
        sandbox.up(C, **options)
    assert rehearsal.done == []


def test_where_it_cannot_run_it_names_the_way_out(rehearsal):
    rehearsal.reason = "Rehearsal hosts need root."
    with pytest.raises(Exit, match=r"need root\. A real host works from anywhere"):
        sandbox.up(C)
    assert rehearsal.done == []


def test_down_removes_all_and_their_logins_but_nobody_else_s(rehearsal, terminal):
    sandbox.up(C, yes=True)
    paths.config().mkdir(parents=True)
    for name in ("mb-1a2b-1.json", "ec2.json", "mb-9999-1.json"):
        (paths.config() / name).touch()
    terminal.append("y")
    sandbox.down(C)
    assert rehearsal.done[-1] == "down"
    assert rehearsed.rehearsed("mb-1a2b-sandbox") is None
    assert sorted(file.name for file in paths.config().iterdir()) == ["ec2.json", "mb-9999-1.json"]


def test_down_asks_and_the_default_is_no(rehearsal, terminal):
    rehearsal.hosts = [Machine("sandbox")]
    terminal.append("")
    with pytest.raises(Exit, match="Nothing was removed"):
        sandbox.down(C)
    assert rehearsal.done == []


def test_down_without_a_terminal_needs_yes(rehearsal):
    rehearsal.hosts = [Machine("sandbox")]
    with pytest.raises(Exit, match="--yes"):
        sandbox.down(C)
    sandbox.down(C, yes=True)
    assert rehearsal.done == ["down"]


def test_down_sweeps_although_no_host_is_left(rehearsal, capsys):
    sandbox.down(C)
    assert rehearsal.done == ["down"]
    assert "there was nothing left" in capsys.readouterr().out


def test_the_list_shows_what_runs(rehearsal, capsys):
    rehearsal.hosts = [Machine("sandbox"), Machine("sandbox-2", suite="trixie", booted=False)]
    sandbox.list_(C)
    assert capsys.readouterr().out.splitlines() == [
        "sandbox  10.0.0.2  bookworm  running",
        "sandbox-2  10.0.0.2  trixie  off (./fab sandbox.up boots it)",
    ]


def test_an_empty_list_says_how_to_get_one(rehearsal, capsys):
    sandbox.list_(C)
    assert "./fab rehearse" in capsys.readouterr().out
