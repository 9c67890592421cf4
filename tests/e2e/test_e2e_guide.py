"""A server that the guide made is taken over without losing a run, and given back as it ran."""

from __future__ import annotations

import pytest
from guide import PROFILE, Guide
from lab import ROOT, SEARCH, UNIT, Host
from waiting import until

AIM = {"FABRIC_MLFLOW_PROFILE": PROFILE}


def adopted(guide: Guide) -> str:
    """Take it over, and assert that all is there; returns what deploy said."""
    host = guide.host
    done = host.fab("deploy", "--yes", timeout=600, **AIM)
    host.healthy()
    assert guide.runs() == 3
    assert "releases/3.17.2" in host.run(f"readlink {ROOT}/venv")
    assert host.run(f"cat {ROOT}/../.aws/credentials").count("aws_access_key_id") == 1
    assert "nothing to change" in host.fab("deploy", **AIM).out
    return done.out + done.err


def rolled_back(guide: Guide) -> None:
    """Give it back, and assert that it runs as it ran, with nothing of ours in its way."""
    host = guide.host
    host.refused("rollback", because=("--yes",), **AIM)
    assert "guide's server" in host.fab("rollback", "--yes", timeout=600, **AIM).out
    guide.serves_as_before()
    assert host.run(f"ls /etc/nginx/sites-enabled /run/{UNIT}.sock || true", code=None) in (
        "/etc/nginx/sites-enabled:",
        "",
    )
    assert not host.run(f"ls /etc/systemd/system/{UNIT}.socket || true", code=None)


@pytest.fixture
def by_nohup(blank: Host) -> Guide:
    return Guide(blank, "3.16.0", unit=False).make()


@pytest.fixture
def by_unit(blank: Host) -> Guide:
    return Guide(blank, "2.22.1", unit=True).make()


def test_one_that_runs_by_nohup_is_taken_over_and_given_back(by_nohup: Guide, full: bool) -> None:
    guide, host = by_nohup, by_nohup.host
    listening = guide.listening()
    host.refused("install", because=(f"profile: {PROFILE}", "fabric.yaml"))
    host.refused("backup", because=("deploy",), **AIM)
    host.fab("install", "configure", timeout=600, **AIM)
    done = host.refused("deploy", because=("--yes",), **AIM)
    assert "MLflow 3.16.0, run by process" in done.out
    assert "3 runs, 2 users" in done.out
    assert "bind: 0.0.0.0" in done.err
    assert guide.listening() == listening

    if full:
        fails_and_goes_back(guide)

    # What is killed is the operator's side, once the old server is gone; the host's goes on.
    with host.start("deploy", "--yes", **AIM) as working:
        ended = "it ended"
        over = lambda: ended in working.so_far or not working.running  # noqa: E731
        until(over, "the old server is stopped", 240)
        assert ended in working.so_far, working.done()
        working.kill()
    adopted(guide)
    guide.holds_its_runs()
    assert "0.0.0.0:5000" not in host.run("ss -Hltn 'sport = :5000'")
    rolled_back(guide)
    assert guide.runs() == 3


def fails_and_goes_back(guide: Guide) -> None:
    """Nothing can listen where a folder lies: seen only once the old server is stopped."""
    host = guide.host
    host.run(f"mkdir -p /run/{UNIT}.sock/in-the-way")
    failed = host.fab("deploy", "--yes", code=1, timeout=600, **AIM)
    assert "runs, as it ran before" in failed.out, failed
    guide.serves_as_before()
    host.run(f"rm -r /run/{UNIT}.sock; ! ls /etc/systemd/system/{UNIT}.*")


@pytest.mark.costly
def test_one_that_is_a_unit_of_mlflow_2_is_migrated_and_given_back(by_unit: Guide) -> None:
    guide, host = by_unit, by_unit.host
    host.fab("install", "configure", timeout=600, **AIM)
    said = adopted(guide)
    assert "MLflow 2.22.1, run by the unit mlflow-server" in said
    # MLflow 3.17 itself refuses the password that every guide names.
    assert "users.reset-admin" in said
    assert host.status(SEARCH, guide.login) == 401
    assert host.status(SEARCH, ("colleague", "a colleague's password")) == 200
    host.fab("users.reset-admin", "--yes", **AIM)
    login = host.login()
    path = f"/api/2.0/mlflow-artifacts/artifacts/0/{guide.run}/artifacts/note.txt"
    assert host.status(path, login) == 200
    assert host.status(SEARCH, login) == 200
    rolled_back(guide)
