"""Users: passwords are kept before they are sent, never shown; a wrong line is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from invoke import Exit
from stand_ins import SETTINGS, Reply, Task, blank, context, deployed

from tasks import users
from tasks.changes import team
from tasks.engine import credentials
from tasks.engine.console import console
from tasks.engine.login import Login
from tasks.engine.settings import Settings

OWN = Login("admin", "the-password-kept-here")
DONE = Reply("@report {}\n@exit 0\n")


@pytest.fixture
def c() -> Task:
    c = context(deployed())
    credentials.keep(c.server, OWN)
    return c


def asked(c: Task) -> Any:
    return json.loads(c.recorder.changes[-1].files["users.json"])


def sent(c: Task) -> Any:
    """Read what the last change asks for, beside where and as whom."""
    beside = ("port", "login", "action")
    return {key: value for key, value in asked(c).items() if key not in beside}


def said(c: Task, **answer: Any) -> None:
    c.recorder.replies = [Reply(f"@report {json.dumps(answer)}\n@exit 0\n")]


def test_a_list_is_one_look_and_its_rows(c, capsys):
    grant = {"on": "experiment", "id": "3", "name": "iris", "permission": "READ"}
    rows = [{"user": "admin", "admin": True, "grants": []},
            {"user": "al", "admin": False, "grants": [grant, grant | {"name": None}]}]  # fmt: skip
    c.recorder.replies = [Reply(f"@report {json.dumps(rows)}\n@exit 0\n")]
    assert users.list_(c, json=True) == rows
    (run,) = c.recorder.runs
    assert "look.sh" in run.command
    users.show({"ec2": rows})
    out = capsys.readouterr().out
    assert "READ on iris (experiment 3)" in out
    assert "one that is gone" in out


def test_a_new_user_s_password_is_generated_kept_and_never_shown(c, capsys):
    c.recorder.replies = [DONE]
    users.add(c, "alice", admin=True)
    file = users.file_of(c.server, "alice")
    password = users._read(file)
    assert password
    assert len(password) == 24
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert sent(c) == {"name": "alice", "password": password, "admin": True}
    out = capsys.readouterr().out
    assert password not in out
    assert password not in c.recorder.commands[-1]
    assert "users.add alice" in c.recorder.commands[-1]
    assert str(file.name) in out


def test_a_password_is_kept_before_it_is_sent_and_taken_again(c):
    c.recorder.replies = [Reply("@fail The server is down.\n@exit 1\n")]
    with pytest.raises(Exit, match="The server is down"):
        users.add(c, "alice")
    first = sent(c)["password"]
    assert users._read(users._pending(c.server, "alice")) == first
    assert not users.file_of(c.server, "alice").exists()
    c.recorder.replies = [DONE]
    users.add(c, "alice")
    assert sent(c)["password"] == first
    assert not users._pending(c.server, "alice").exists()


def test_on_a_terminal_the_password_is_asked_for(c, terminal):
    terminal += ["a-password-of-mine", "a-password-of-mine"]
    c.recorder.replies = [DONE]
    users.add(c, "alice")
    assert sent(c)["password"] == "a-password-of-mine"


@pytest.mark.parametrize("name", ["", "-x", "a b", "a:b", "a%b", "a'b", "ünal", "x" * 65, "a\nb"])
def test_a_name_that_does_not_work_everywhere_is_refused(c, name):
    with pytest.raises(Exit, match="cannot be a user's name"):
        users.add(c, name)
    assert c.recorder.runs == []


def test_removing_says_what_goes_and_asks(c, terminal, capsys):
    rows = [{"user": "al", "admin": False, "grants": [
        {"on": "model", "id": "m", "name": "m", "permission": "EDIT"}]}]  # fmt: skip
    terminal.append("n")
    c.recorder.replies = [Reply(f"@report {json.dumps(rows)}\n@exit 0\n")]
    with pytest.raises(Exit, match="Nothing was changed"):
        users.remove(c, "al")
    assert "It loses: EDIT on m (model)." in capsys.readouterr().out
    assert len(c.recorder.runs) == 1


def listed(*names: str) -> str:
    rows = [{"user": name, "admin": False, "grants": []} for name in names]
    return f"@report {json.dumps(rows)}\n@exit 0\n"


def test_nobody_is_asked_about_a_user_that_there_is_not(c):
    c.recorder.replies = [Reply(listed("alice", "admin"))]
    with pytest.raises(Exit, match=r"no user 'alicia' \(did you mean 'alice'\?\)"):
        users.remove(c, "alicia")
    assert len(c.recorder.runs) == 1


def test_users_of_a_host_without_a_server_are_not_asked_for_a_login():
    with pytest.raises(Exit, match="There is no server on ec2 yet"):
        users.list_(context(blank()))


def test_removing_takes_the_handed_over_login_away(c):
    credentials.write_privately(users.file_of(c.server, "al"), "x")
    c.recorder.replies = [Reply(listed("al")), DONE]
    users.remove(c, "al", yes=True)
    assert not users.file_of(c.server, "al").exists()


@pytest.mark.parametrize(("count", "restarts"), [(1, False), (2, True)])
def test_several_workers_are_made_to_forget_an_old_password(count, restarts):
    settings = Settings(bucket="my-bucket", workers=count)
    c = context(deployed(settings), settings)
    credentials.keep(c.server, OWN)
    c.recorder.replies = [DONE]
    users.passwd(c)
    assert ("bring_up restart" in c.recorder.changes[0].steps) is restarts


def test_one_s_own_new_password_is_kept_everywhere_and_the_old_one_proves_it(c):
    c.recorder.replies = [DONE]
    users.passwd(c)
    new = sent(c)["password"]
    assert asked(c)["login"] == {"username": "admin", "password": OWN.password}
    assert credentials.kept(c.server) == credentials.mlflow_file() == Login("admin", new)
    assert not users.file_of(c.server, "admin").exists()


def test_another_s_new_password_leaves_one_s_own_alone(c):
    c.recorder.replies = [DONE]
    users.passwd(c, name="alice")
    assert credentials.kept(c.server) == OWN
    assert users._read(users.file_of(c.server, "alice")) == sent(c)["password"]


def test_an_old_password_in_the_variables_is_warned_of(capsys):
    c = context(deployed(), MLFLOW_TRACKING_PASSWORD="the-former-password")
    c.recorder.replies = [DONE]
    users.passwd(c)
    assert "MLFLOW_TRACKING_PASSWORD of this shell is the old one" in capsys.readouterr().err


def test_a_lost_password_needs_no_login(capsys):
    c = context(deployed())
    said(c, made=False)
    users.reset_admin(c, yes=True)
    (change,) = c.recorder.changes
    kept = credentials.kept(c.server)
    assert kept
    assert json.loads(change.files["reset_admin.json"])["password"] == kept.password
    assert asked(c)["login"]["password"] == kept.password
    assert kept.password not in change.steps
    assert "users.reset-admin admin" in change.command
    assert "✓ admin has a new password" in capsys.readouterr().out


def test_a_server_that_runs_is_told_to_forget_the_lost_one():
    c = context(deployed())
    said(c, made=False)
    users.reset_admin(c, yes=True)
    steps = c.recorder.changes[0].steps
    assert "systemctl is-active --quiet mlflow-server.service" in steps
    assert 'python3 "$here/users.py"' in steps
    assert asked(c)["action"] == "forget"


def test_an_admin_that_had_to_be_made_is_said(capsys):
    c = context(deployed())
    said(c, made=True)
    users.reset_admin(c, name="boss", yes=True)
    assert "boss did not exist and was made" in capsys.readouterr().err
    assert users._read(users.file_of(c.server, "boss"))


def test_nobody_to_ask_resets_nothing():
    c = context(deployed())
    with pytest.raises(Exit, match="needs a confirmation"):
        users.reset_admin(c)
    assert c.recorder.runs == []


def test_a_password_of_the_variables_is_used_where_it_is_not_the_lost_one(c):
    given = context(deployed(), MLFLOW_TRACKING_PASSWORD="a-new-one-of-mine")
    said(given, made=False)
    users.reset_admin(given, yes=True)
    assert credentials.kept(given.server) == Login("admin", "a-new-one-of-mine")
    again = context(deployed(), MLFLOW_TRACKING_PASSWORD="a-new-one-of-mine")
    said(again, made=False)
    users.reset_admin(again, yes=True)
    assert credentials.kept(again.server) != Login("admin", "a-new-one-of-mine")


def test_a_grant_says_what_it_replaces(c, capsys):
    said(c, former="READ", on="iris")
    users.grant(c, "alice", "iris", "edit")
    assert sent(c) == {"name": "alice", "on": "iris", "model": False, "permission": "EDIT"}
    assert "✓ alice has EDIT on iris instead of READ" in capsys.readouterr().out
    said(c, former="EDIT", on="iris")
    users.grant(c, "alice", "iris", "EDIT")
    assert "nothing to change" in capsys.readouterr().out


@pytest.mark.parametrize(("revoked", "says"), [(True, "READ"), (False, "nothing to change")])
def test_a_revocation_says_what_is_left(c, capsys, revoked, says):
    said(c, revoked=revoked, on="iris")
    users.revoke(c, "alice", "iris")
    assert says in capsys.readouterr().out


def test_a_host_without_a_server_says_what_to_type():
    with pytest.raises(Exit, match=r"no server on ec2 yet.*install configure deploy"):
        users.add(context(blank()), "alice")


# -- a team ------------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    file = folder / "team.csv"
    file.write_text(text)
    return file


def test_a_team_is_read_one_user_with_all_grants(tmp_path):
    file = written(tmp_path, "\ufeffname, admin, experiment, model, permission\n"
                   "al,,iris,,edit\nal,yes,,m,READ\nbo,no,,,\n")  # fmt: skip
    assert team.team(file) == (
        [{"name": "al", "admin": True}, {"name": "bo", "admin": False}],
        [{"name": "al", "on": "iris", "model": False, "permission": "EDIT"},
         {"name": "al", "on": "m", "model": True, "permission": "READ"}],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("", "first line must name the columns"),
        ("user\nal\n", "It names: user"),
        ("name\n", "names nobody"),
        ("name\na b\n", "line 2: 'a b' cannot be"),
        ("name,admin\nal,maybe\n", "line 2: admin is 'maybe'"),
        ("name,experiment\nal,iris\n", "line 2: a grant needs"),
        ("name,permission\nal,READ\n", "line 2: a grant needs"),
        ("name,experiment,permission\nal,,\nal,iris,ALL\n", "line 3: 'ALL' cannot be granted"),
        ("name,experiment,model,permission\nal,a,b,READ\n", "line 2: a grant needs"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_sent(c, tmp_path, text, because):
    with pytest.raises(Exit) as caught:
        users.import_(c, str(written(tmp_path, text)))
    assert because in (caught.value.message or "")
    assert c.recorder.runs == []


def test_a_team_s_passwords_are_kept_in_one_closed_file_and_taken_again(c, tmp_path, capsys):
    file = written(tmp_path, "name\nal\nbo\n")
    c.recorder.replies = [Reply("@fail The server is down.\n@exit 1\n")]
    with pytest.raises(Exit, match="down"):
        users.import_(c, str(file))
    first = {user["name"]: user["password"] for user in sent(c)["users"]}
    said(c, new=["al"], there=["bo"])
    users.import_(c, str(file))
    assert {user["name"]: user["password"] for user in sent(c)["users"]} == first
    place = users.folder_of(c.server) / "import-team.csv"
    assert place.read_text() == f"name,password\nal,{first['al']}\n"
    assert place.stat().st_mode & 0o777 == 0o600
    out = capsys.readouterr().out
    assert "left as they are: bo" in out
    assert first["al"] not in out


def test_a_team_that_is_there_leaves_no_file_of_passwords(c, tmp_path):
    said(c, new=[], there=["al"])
    users.import_(c, str(written(tmp_path, "name\nal\n")))
    assert not list(users.folder_of(c.server).glob("*.csv"))


def test_passwords_are_blotted_out_whoever_echoes_them(c):
    c.recorder.replies = [DONE]
    users.add(c, "alice")
    assert sent(c)["password"] not in console.redacted(f"echo {sent(c)['password']}")


def test_an_environment_keeps_its_users_apart():
    settings = SETTINGS.model_copy(update={"environment": "staging"})
    here, there = context(deployed()), context(deployed(settings), settings)
    assert users.file_of(here.server, "al") != users.file_of(there.server, "al")
