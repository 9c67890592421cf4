"""Logins and keys: where they come from, where they are kept, and who never gets them."""

from __future__ import annotations

import ast
import configparser
import hashlib
import json
import os
from pathlib import Path

import pytest
from invoke import Exit
from stand_ins import Task, blank, context, deployed

from tasks.engine import credentials, login, paths, stores
from tasks.engine.console import console
from tasks.engine.login import KEY, KEY_ID, PASSWORD, TOKEN, USERNAME, Keys, Login
from tasks.engine.settings import Settings

GOOD = "correct horse battery"
LOGIN = Login("admin", GOOD)


def mlflow_reads() -> tuple[str | None, str | None]:
    """Read ~/.mlflow/credentials with MLflow's own code, without importing all of MLflow."""
    import importlib.util

    found = importlib.util.find_spec("mlflow")
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).parent / "utils/credentials.py"
    wanted = ("_get_credentials_path", "_read_mlflow_creds_from_file")
    functions = [
        node
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name in wanted
    ]
    assert len(functions) == len(wanted)

    class Name:
        def __init__(self, name: str) -> None:
            self.name = name

    module = {
        "os": os,
        "configparser": configparser,
        "MLFLOW_TRACKING_USERNAME": Name(USERNAME),
        "MLFLOW_TRACKING_PASSWORD": Name(PASSWORD),
    }
    exec(compile(ast.Module(functions, []), str(source), "exec"), module)
    return module["_read_mlflow_creds_from_file"]()  # type: ignore[operator]


# -- passwords ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("password", "wanted"),
    [
        ("quick", "Too short: 5 characters, needs 12. Give a longer one"),
        ("elevenchars", "Too short: 11 characters"),
        ("ab", "Too short: 2 characters"),
        ("password1234", "It is the one that every guide names"),
        (" twelve chars and", "starts or ends with a blank"),
        ("twelve chars and ", "starts or ends with a blank"),
        ("twelve\nchars and", "holds a control character"),
    ],
)
def test_a_password_that_mlflow_would_refuse_is_refused_here(password, wanted):
    with pytest.raises(Exit) as caught:
        credentials.supplied_login(Settings(), {PASSWORD: password})
    text = str(caught.value.message)
    assert wanted in text
    assert PASSWORD in text
    assert password not in text


@pytest.mark.parametrize("password", ["twelve chars", "a%b$c'd\"e\\f#g;h", "pässwörd-ümläut"])
def test_a_password_may_hold_anything_else(password):
    assert credentials.supplied_login(Settings(), {PASSWORD: password}) == Login("admin", password)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, None),
        ({USERNAME: "boss"}, None),
        ({PASSWORD: ""}, None),
        ({PASSWORD: GOOD}, Login("root", GOOD)),
        ({PASSWORD: GOOD, USERNAME: "boss"}, Login("boss", GOOD)),
    ],
)
def test_a_login_is_supplied_by_the_password_s_variable(variables, wanted):
    assert credentials.supplied_login(Settings(username="root"), variables) == wanted


def test_a_supplied_password_is_never_printed():
    credentials.supplied_login(Settings(), {PASSWORD: GOOD})
    assert console.redacted(GOOD) == "********"


def test_generated_passwords_are_long_and_different():
    passwords = {credentials.generated() for _ in range(100)}
    assert len(passwords) == 100
    assert all(login.long_enough(password, "x") for password in passwords)


# -- AWS keys ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, None),
        ({TOKEN: "T"}, None),
        ({KEY_ID: "A", KEY: "B"}, Keys("A", "B")),
        ({KEY_ID: " A\n", KEY: "B "}, Keys("A", "B")),
        ({KEY_ID: "A", KEY: "B", TOKEN: "T"}, Keys("A", "B", "T")),
        ({KEY_ID: "A", KEY: "B", TOKEN: ""}, Keys("A", "B")),
    ],
)
def test_keys_are_supplied_by_the_standard_variables(variables, wanted):
    assert credentials.supplied_keys(variables) == wanted


@pytest.mark.parametrize(("there", "missing"), [(KEY_ID, KEY), (KEY, KEY_ID)])
def test_one_of_two_keys_is_refused_and_the_other_is_named(there, missing):
    with pytest.raises(Exit, match=f"{there} is set, {missing} is not"):
        credentials.supplied_keys({there: "x"})


def test_supplied_keys_are_never_printed():
    credentials.supplied_keys({KEY_ID: "A", KEY: " hidden-key\n", TOKEN: "hidden-token"})
    assert console.redacted("hidden-key hidden-token") == "******** ********"


def test_keys_are_compared_by_a_digest_of_their_profile():
    text = "aws_access_key_id=A\naws_secret_access_key=B\naws_session_token=T\n"
    assert Keys("A", "B", "T").digest == hashlib.sha256(text.encode()).hexdigest()
    assert Keys("A", "B").digest != Keys("A", "C").digest
    assert "aws_session_token" not in Keys("A", "B").profile()


# -- the operator's copy -----------------------------------------------------------------------


@pytest.fixture
def c() -> Task:
    return context(blank())


def test_the_copy_is_for_its_owner_alone(c):
    copy = credentials.keep(c.server, LOGIN)
    assert copy == paths.config() / "ec2.json"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(copy.read_text()) == {"username": "admin", "password": GOOD}
    assert [file.name for file in copy.parent.iterdir()] == ["ec2.json"]


def test_the_copy_is_private_although_the_umask_is_not(c):
    former = os.umask(0)
    try:
        assert credentials.keep(c.server, LOGIN).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(former)


def test_the_copy_comes_back(c):
    assert credentials.kept(c.server) is None
    credentials.keep(c.server, LOGIN)
    assert credentials.kept(c.server) == LOGIN
    assert console.redacted(GOOD) == "********"


@pytest.mark.parametrize(
    ("alias", "environment", "name"),
    [
        ("ec2", None, "ec2.json"),
        ("ec2", "staging", "ec2--staging.json"),
        ("me@10.0.0.1:2222", None, "me@10.0.0.1_2222.json"),
        ("../../etc/x", None, ".._.._etc_x.json"),
    ],
)
def test_each_host_and_environment_has_a_copy_of_its_own(alias, environment, name):
    c = context(blank(), Settings(bucket="my-bucket", environment=environment), alias)
    assert credentials.copy_of(c.server) == paths.config() / name


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"username": "a"}', '"x"'])
def test_a_copy_that_cannot_be_read_is_one_line_that_names_it(c, text):
    copy = credentials.copy_of(c.server)
    copy.parent.mkdir(parents=True)
    copy.write_text(text)
    with pytest.raises(Exit, match=r"ec2\.json cannot be read .*Move it away"):
        credentials.kept(c.server)


def test_the_variables_win_over_the_copy(c):
    credentials.keep(c.server, LOGIN)
    c.server.variables = {PASSWORD: "another password"}
    assert credentials.known(c.server) == Login("admin", "another password")


def test_without_any_login_it_says_how_to_give_one(c):
    with pytest.raises(Exit, match=f"{USERNAME} and {PASSWORD}.*configure deploy"):
        credentials.required(c.server)


# -- MLflow's own file -------------------------------------------------------------------------


def ours(home: Path) -> Path:
    return home / ".mlflow/credentials"


def test_mlflow_s_own_file_is_written_where_there_is_none(c, home):
    credentials.keep(c.server, LOGIN)
    assert mlflow_reads() == ("admin", GOOD)
    assert ours(home).stat().st_mode & 0o777 == 0o600


def test_mlflow_s_own_file_follows_where_it_is_this_server_s(c):
    credentials.keep(c.server, LOGIN)
    credentials.keep(c.server, Login("admin", "another password"))
    assert mlflow_reads() == ("admin", "another password")


def test_mlflow_s_own_file_is_left_to_another_server(c):
    credentials.use(Login("boss", "somebody else's"))
    credentials.keep(c.server, LOGIN)
    assert mlflow_reads() == ("boss", "somebody else's")


@pytest.mark.parametrize("text", ["[mlflow]\n", "[mlflow]\nmlflow_tracking_password = 100% mine\n"])
def test_a_file_that_is_not_ours_is_left_alone_whatever_it_holds(c, home, text):
    ours(home).parent.mkdir()
    ours(home).write_text(text)
    credentials.keep(c.server, LOGIN)
    assert ours(home).read_text() == text


def test_a_file_that_is_no_ini_is_left_alone(c, home):
    ours(home).parent.mkdir()
    ours(home).write_text("just a line\n")
    credentials.keep(c.server, LOGIN)
    assert ours(home).read_text() == "just a line\n"


def test_a_rehearsal_host_never_writes_mlflow_s_own_file(home):
    c = context(blank(), alias="sandbox", rehearsal=True)
    credentials.keep(c.server, LOGIN)
    assert not ours(home).exists()
    assert credentials.kept(c.server) == LOGIN


@pytest.mark.parametrize(
    "password", ["100% sure it is", "%(password)s-%%-%", "a = b : c ; d # e", "ünïcödé-pässwörd"]
)
def test_mlflow_s_own_parser_reads_any_password(password):
    credentials.use(Login("ad%min", password))
    assert mlflow_reads() == ("ad%min", password)
    assert credentials.mlflow_file() == Login("ad%min", password)


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "file"
    credentials.write_privately(file, "former")

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        credentials.write_privately(file, "new")
    assert file.read_text() == "former"


# -- asking ------------------------------------------------------------------------------------


def two(**values: object) -> list[Task]:
    return [context(blank(**values), alias=name) for name in ("alpha", "beta")]  # type: ignore[arg-type]


def servers(tasks: list[Task]) -> list:
    return [c.server for c in tasks]


def test_keys_are_asked_for_once_for_all_hosts(terminal):
    terminal += ["A", "B"]
    found = credentials.gather_keys(servers(two()))
    assert found == {"alpha": Keys("A", "B"), "beta": Keys("A", "B")}


def test_enter_means_the_instance_role(terminal):
    terminal += [""]
    assert credentials.gather_keys(servers(two())) == {"alpha": None, "beta": None}


def test_an_id_without_its_key_is_partial(terminal):
    terminal += ["A", ""]
    with pytest.raises(Exit, match="Partial AWS credentials"):
        credentials.gather_keys(servers(two()))


@pytest.mark.parametrize("values", [{"credentials": "digest"}, {"proved": "stamp"}])
def test_a_host_that_has_keys_or_a_role_is_not_asked_about(terminal, values):
    assert credentials.gather_keys(servers(two(**values))) == {"alpha": None, "beta": None}


def test_only_hosts_without_keys_are_asked_about(terminal):
    terminal += ["A", "B"]
    first, second = context(blank(credentials="x"), alias="alpha"), context(blank(), alias="beta")
    found = credentials.gather_keys([first.server, second.server])
    assert found == {"alpha": None, "beta": Keys("A", "B")}


def test_the_variables_are_not_asked_about(terminal):
    c = context(blank(), **{KEY_ID: "A", KEY: "B"})
    assert credentials.gather_keys([c.server]) == {"ec2": Keys("A", "B")}


def test_without_a_terminal_it_is_the_instance_role():
    c = context(blank())
    assert credentials.gather_keys([c.server]) == {"ec2": None}


def test_a_password_is_asked_for_twice_and_once_for_all_hosts(terminal):
    terminal += [GOOD, GOOD]
    found = credentials.gather_logins(servers(two()))
    assert found == {"alpha": LOGIN, "beta": LOGIN}
    assert console.redacted(GOOD) == "********"


def test_a_short_password_or_a_slip_is_asked_for_again(terminal, capsys):
    terminal += ["short", GOOD, "a slip of the hand", GOOD, GOOD]
    c = context(blank())
    assert credentials.gather_logins([c.server]) == {"ec2": LOGIN}
    err = capsys.readouterr().err
    assert err.splitlines() == [
        "Too short: 5 characters, needs 12. Type a longer one, or press Enter to generate one.",
        "The two passwords differ. Type the new password again.",
    ]


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [(None, "admin on ec2 (Enter"), ("staging", "admin on ec2, environment staging (Enter")],
)
def test_the_question_names_host_and_environment(monkeypatch, terminal, environment, wanted):
    questions = []
    settings = Settings(bucket="my-bucket", environment=environment)
    monkeypatch.setattr(
        "tasks.engine.questions.read", lambda question, secret: questions.append(question) or ""
    )
    credentials.gather_logins([context(blank(), settings).server])
    assert [wanted in question for question in questions] == [True]


@pytest.mark.parametrize("answers", [["Ctrl-D"], [GOOD, "Ctrl-D"], ["short", "Ctrl-D"]])
def test_ctrl_d_at_a_password_ends_it(terminal, answers):
    terminal += answers
    with pytest.raises(Exit, match="No answer was given"):
        credentials.gather_logins([context(blank()).server])


@pytest.mark.parametrize("answers", [["Ctrl-D"], ["AKIA", "Ctrl-D"]])
def test_ctrl_d_at_a_key_ends_it(terminal, answers):
    terminal += answers
    with pytest.raises(Exit, match="No answer was given"):
        credentials.ask_keys("ec2")


def test_enter_generates_one_for_each_host(terminal):
    terminal += [""]
    first, second = credentials.gather_logins(servers(two())).values()
    assert len(first.password) == 24
    assert first.password != second.password


SHARED = Settings(bucket="my-bucket", backend_store_uri="postgresql://mlflow@db.example/mlflow")


def several() -> list[Task]:
    return [context(blank(), SHARED, alias=name) for name in ("alpha", "beta")]


def test_hosts_with_one_database_get_one_login(terminal):
    terminal += [""]
    first, second = credentials.gather_logins(servers(several())).values()
    assert first == second


def test_hosts_with_one_database_have_one_copy():
    first, second = servers(several())
    credentials.keep(first, LOGIN)
    assert credentials.kept(second) == LOGIN
    assert credentials.copy_of(second).name == "mlflow@db.example_mlflow.json"
    assert not credentials.is_anothers(second, LOGIN)


def test_a_login_from_before_there_were_several_is_still_known():
    alone = context(blank(), alias="alpha").server
    credentials.keep(alone, LOGIN)
    first, second = servers(several())
    assert credentials.kept(first) == LOGIN
    assert credentials.kept(second) is None


def test_a_database_s_password_is_nobody_s_login():
    credentials.keep_database_password(stores.of("postgresql://mlflow@db/mlflow"), GOOD)
    assert not credentials.is_anothers(context(blank()).server, LOGIN)


def test_without_a_terminal_one_is_generated():
    c = context(blank())
    login = credentials.gather_logins([c.server])["ec2"]
    assert login.username == "admin"
    assert console.redacted(login.password) == "********"


def test_a_login_that_is_known_is_not_asked_for(terminal):
    c = context(blank())
    credentials.keep(c.server, LOGIN)
    assert credentials.gather_logins([c.server]) == {"ec2": LOGIN}


def test_a_server_with_users_is_left_alone(terminal):
    c = context(deployed(), **{PASSWORD: GOOD})
    assert credentials.gather_logins([c.server]) == {}


def test_a_rehearsal_host_is_never_asked_about(terminal):
    c = context(blank(), alias="sandbox", rehearsal=True)
    assert credentials.gather_keys([c.server]) == {"sandbox": None}
    assert list(credentials.gather_logins([c.server])) == ["sandbox"]


def test_a_rehearsal_host_ignores_the_environment(monkeypatch):
    for name in (KEY_ID, KEY, PASSWORD):
        monkeypatch.setenv(name, "the operator's own")
    c = context(blank(), rehearsal=True, **{KEY_ID: "rehearsal", KEY: "toy"})
    assert credentials.gather_keys([c.server]) == {"ec2": Keys("rehearsal", "toy")}
    assert credentials.gather_logins([c.server])["ec2"].password != "the operator's own"
