"""Users on a real server: what they are given works, what is taken does not, and nothing leaks."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import ROOT, SEARCH, UNIT, Host, answer
from test_e2e_chain import SAMPLER
from waiting import until

CREATE = "/api/2.0/mlflow/runs/create"


@pytest.fixture
def alone(host: Host) -> Iterator[Host]:
    """Give the host, and take the users away that a test makes."""
    yield host
    for row in rows(host):
        if row["user"] != "admin":
            host.fab("users.remove", row["user"], "--yes")


def rows(host: Host) -> list[dict[str, object]]:
    return list(json.loads(host.fab("users.list", "--json").out))


def folder(host: Host) -> Path:
    # With two hyphens stand the logins of other environments, which other tests leave here.
    copies = (host.home / ".config/remote-mlflow").glob("*.json")
    (copy,) = [copy for copy in copies if "--" not in copy.name]
    return copy.with_suffix("") / "users"


def login_of(host: Host, name: str) -> tuple[str, str]:
    """Source the file that an admin hands over, as its reader would."""
    file = folder(host) / f"{name}.env"
    assert file.stat().st_mode & 0o777 == 0o600
    show = f'. {shlex.quote(str(file))}; echo "$MLFLOW_TRACKING_USERNAME $MLFLOW_TRACKING_PASSWORD"'
    name, password = subprocess.check_output(["bash", "-c", show], text=True).split()
    return name, password


def may_write(host: Host, login: tuple[str, str]) -> bool:
    """Tell whether somebody may make a run in the experiment Default, by trying."""
    asked = f'user = "{login[0]}:{login[1]}"\nurl = "http://127.0.0.1:5000{CREATE}"\n'
    asked += 'header = "Content-Type: application/json"\ndata = "{\\"experiment_id\\": \\"0\\"}"\n'
    status = host.run("curl -s -o /dev/null -w '%{http_code}' -K -", asked, code=None)
    assert status in ("200", "403"), status
    return status == "200"


def test_a_user_can_do_what_was_granted_and_no_more(alone: Host) -> None:
    host = alone
    assert "✓ added alice" in host.fab("users.add", "alice").out
    alice = login_of(host, "alice")
    assert host.status(SEARCH, alice) == 200
    assert not may_write(host, alice), "READ is what everybody has"
    assert "✓ alice has EDIT on Default" in host.fab("users.grant", "alice", "Default", "EDIT").out
    assert may_write(host, alice)
    assert "nothing to change" in host.fab("users.grant", "alice", "0", "edit").out
    granted = [{"on": "experiment", "id": "0", "name": "Default", "permission": "EDIT"}]
    assert {"user": "alice", "admin": False, "grants": granted}.items() <= rows(host)[1].items()
    host.fab("users.revoke", "alice", "Default")
    assert not may_write(host, alice)
    assert "nothing to change" in host.fab("users.revoke", "alice", "Default").out
    host.refused("users.remove", "alice", because=("needs a confirmation", "--yes"))
    host.fab("users.remove", "alice", "--yes")
    assert host.status(SEARCH, alice) == 401
    assert not (folder(host) / "alice.env").exists()


def test_an_admin_may_do_everything_and_others_no_user_s_work(alone: Host) -> None:
    host = alone
    host.fab("users.add", "boss", "--admin")
    host.fab("users.add", "carol")
    for name, right in (("boss", True), ("carol", False)):
        login = login_of(host, name)
        variables = dict(
            zip(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), login, strict=True)
        )
        if right:
            host.fab("users.grant", "carol", "Default", "READ", **variables)
        else:
            because = ("carol is no admin", "MLFLOW_TRACKING_USERNAME")
            host.refused("users.grant", "carol", "Default", "EDIT", because=because, **variables)


def test_a_new_password_of_one_s_own_is_known_everywhere(alone: Host) -> None:
    host = alone
    old = host.login()
    host.fab("users.passwd")
    new = host.login()
    assert new != old
    assert host.status(SEARCH, old) == 401
    assert host.status(SEARCH, new) == 200
    assert new[1] in (host.home / ".mlflow/credentials").read_text()
    assert "\nadmin_password =\n" in host.run(f"cat {ROOT}/.mlflow_auth_config; echo .")
    assert not list(folder(host).glob("admin*"))
    assert "✓ verified" in host.fab("verify").out


def test_a_password_that_was_cut_off_half_way_is_finished_by_the_same_command(alone: Host) -> None:
    host = alone
    with host.start("users.passwd") as working:
        until(lambda: list(folder(host).glob("admin.env.new")), "the new one is kept here")
        working.kill()
    host.fab("users.passwd")
    assert host.status(SEARCH, host.login()) == 200
    assert not list(folder(host).glob("admin*"))


@contextmanager
def asked(host: Host, login: tuple[str, str]) -> Iterator[list[int]]:
    """Have somebody ask the server all the time; gives the answers."""
    statuses: list[int] = []
    over = threading.Event()
    with host.tunnel() as uri:

        def ask() -> None:
            while not over.is_set():
                statuses.append(answer(uri + SEARCH, login))

        asker = threading.Thread(target=ask)
        asker.start()
        try:
            until(lambda: len(statuses) > 3, "answers")
            yield statuses
            seen = len(statuses)
            until(lambda: len(statuses) > seen + 3, "answers afterwards")
        finally:
            over.set()
            asker.join()


def test_a_lost_password_is_set_anew_while_the_server_serves(alone: Host) -> None:
    host = alone
    host.fab("users.add", "alice")
    alice, lost = login_of(host, "alice"), host.login()
    assert host.status(SEARCH, lost) == 200  # so that the server remembers it
    copy = folder(host).parent.with_suffix(".json")
    copy.unlink()
    host.refused("users.list", because=("No login", "users.reset-admin"))
    began = host.unit(UNIT, "ActiveEnterTimestampMonotonic")
    with asked(host, alice) as statuses:
        host.refused("users.reset-admin", because=("needs a confirmation", "--yes"))
        assert "✓ admin has a new password" in host.fab("users.reset-admin", "--yes").out
    assert set(statuses) == {200}
    assert host.unit(UNIT, "ActiveEnterTimestampMonotonic") == began
    assert host.status(SEARCH, host.login()) == 200
    assert host.status(SEARCH, lost) == 401


def test_a_stopped_server_can_have_its_password_set_anew_too(alone: Host) -> None:
    host = alone
    host.fab("stop")
    host.fab("users.reset-admin", "--yes")
    host.refused("users.list", because=("down", f"./fab -H {host.alias} doctor"))
    host.fab("start")
    assert host.status(SEARCH, host.login()) == 200


def test_a_team_comes_from_a_file_and_the_second_time_nothing_is_new(alone: Host) -> None:
    host = alone
    host.fab("users.add", "old")
    old = login_of(host, "old")
    file = host.home / "team.csv"
    file.write_text("name,admin,experiment,permission\ncarol,,Default,EDIT\ndave,yes,,\nold,,,\n")
    first = host.fab("users.import", str(file))
    assert "left as they are: old" in first.out
    assert "✓ 2 users with 1 grant" in first.out
    place = folder(host) / "import-team.csv"
    assert place.stat().st_mode & 0o777 == 0o600
    passwords = place.read_text()
    host.fab("users.import", str(file))
    assert place.read_text() == passwords
    logins = [line.split(",") for line in passwords.splitlines()[1:]]
    assert [name for name, _ in logins] == ["carol", "dave"]
    for name, password in logins:
        assert host.status(SEARCH, (name, password)) == 200
        assert password not in first.out + first.err
    assert may_write(host, (logins[0][0], logins[0][1]))
    assert host.status(SEARCH, old) == 200
    assert [row["user"] for row in rows(host) if row["admin"]] == ["admin", "dave"]


def test_no_password_is_ever_seen(alone: Host) -> None:
    host = alone
    with subprocess.Popen(
        ["nsenter", f"--target={host.pid}", "--all", "--", "python3", "-c", SAMPLER],
        stdout=subprocess.PIPE, text=True,
    ) as sampler:  # fmt: skip
        try:
            said = [
                host.fab("users.add", "alice"),
                host.fab("users.passwd", "--name", "alice"),
                host.fab("users.passwd"),
                host.fab("users.reset-admin", "--yes"),
            ]
        finally:
            host.run("touch /root/e2e-stop")
            scans, _ = sampler.communicate(timeout=30)
            commands = host.run("cat /root/e2e-commands; rm /root/e2e-*")
    assert int(scans) > 20
    assert "users.py" in commands
    assert "reset_admin.py" in commands
    journal = host.run("journalctl --since -5min -o cat")
    places = "\n".join((*map(str, said), commands, journal, host.audit()))
    for name, password in (login_of(host, "alice"), host.login()):
        assert len(password) > 20, name
        assert password not in places
    assert "users.reset-admin admin\tdone" in host.audit()


@pytest.mark.parametrize(
    ("words", "because"),
    [
        (("users.add", "admin"), ("a user 'admin' already", "users.passwd --name admin")),
        (("users.add", "al ice"), ("'al ice' cannot be a user's name",)),
        (("users.add", "ünal"), ("cannot be a user's name",)),
        (("users.grant", "admni", "Default", "EDIT"), ("did you mean 'admin'", "users.list")),
        (("users.grant", "admin", "Defalt", "EDIT"), ("did you mean 'Default'",)),
        (("users.grant", "admin", "Default", "ALL"), ("'ALL' cannot be granted", "DENY")),
        (("users.grant", "admin", "nomodel", "READ", "--model"), ("no model 'nomodel'",)),
        (("users.remove", "admin", "--yes"), ("You are logged in as admin",)),
        (("users.remove", "alicia"), ("There is no user 'alicia'",)),  # and asks nothing
        (("users.passwd", "--name", "nobody"), ("There is no user 'nobody'",)),
        (("users.import", "/nowhere.csv"), ("/nowhere.csv cannot be read",)),
    ],
    ids=lambda value: "-".join(value[:3]) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_one_line(
    host: Host, words: tuple[str, ...], because: tuple[str, ...]
) -> None:
    host.refused(*words, because=because)


def test_a_wrong_login_names_the_way_back(host: Host) -> None:
    because = ("refuses the password of admin", "users.reset-admin")
    for task in ("users.list", "verify"):
        done = host.refused(task, because=because, MLFLOW_TRACKING_PASSWORD="not-the-password")
        assert len(done.err.strip().splitlines()) == 1, done
        assert done.seconds < 15, "verify's client would ask for half a minute"
