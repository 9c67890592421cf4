"""What the host is told, by tables; what proves the bucket; whose password is left alone."""

from __future__ import annotations

import configparser
import json
import re
from dataclasses import replace

import pytest
from invoke import Exit
from stand_ins import (
    ROOT,
    RUNNER,
    SETTINGS,
    Reply,
    Task,
    blank,
    configured,
    context,
    deployed,
    installed,
    request,
    sha256,
)

from tasks.changes.bucket import aws_changes, backup_changes, proof
from tasks.changes.configure import auth_changes, share_changes, store_changes
from tasks.changes.files import auth_config
from tasks.changes.keys import is_ours
from tasks.changes.surroundings import aws_profile_script
from tasks.configure import check, configure, configure_auth, configure_aws
from tasks.engine import credentials, paths, stores
from tasks.engine.credentials import gather_keys, gather_logins
from tasks.engine.facts import WEBHOOK_KEY, Facts, Managed, is_there
from tasks.engine.login import KEY, KEY_ID, PASSWORD, USERNAME, Keys, Login
from tasks.engine.settings import Settings

KEYS = Keys("AKIA", "hidden-key")
LOGIN = Login("admin", "correct horse battery")
BOTH = frozenset({"aws_access_key_id", "aws_secret_access_key"})
PROVE = "prove access to s3://my-bucket/mlflow-artifacts/"


def with_keys(keys: Keys, settings: Settings = SETTINGS, **values: object) -> Facts:
    """A host that has these keys and was proved with them."""
    given: dict[str, object] = {
        "credentials": keys.digest,
        "credential_keys": BOTH,
        "credentials_mode": "600",
        "proved": proof(settings, keys.digest),
    }
    return configured(settings, **(given | values))


def sentences(facts: Facts, keys: Keys | None = None, settings: Settings = SETTINGS) -> list[str]:
    return [change.what for change in aws_changes(settings, facts, keys)]


def write(*names: str, profile: str = "default") -> str:
    return f"write ~/.aws {' and '.join(names)} (profile {profile})"


IRELAND = Settings(bucket="my-bucket", region="eu-west-1")
MINIO = Settings(bucket="my-bucket", endpoint_url="http://minio:9000")


@pytest.mark.parametrize(
    ("facts", "keys", "settings", "wanted"),
    [
        (installed(), None, SETTINGS, [PROVE]),
        (configured(), None, SETTINGS, []),
        (configured(proved="older"), None, SETTINGS, [PROVE]),
        (installed(), KEYS, SETTINGS, [write("credentials"), PROVE]),
        (with_keys(KEYS), KEYS, SETTINGS, []),
        (with_keys(KEYS), None, SETTINGS, []),
        (with_keys(KEYS), Keys("NEW", "x"), SETTINGS, [write("credentials"), PROVE]),
        (with_keys(KEYS), replace(KEYS, token="T"), SETTINGS, [write("credentials"), PROVE]),
        (
            with_keys(KEYS, credentials_mode="644"),
            None,
            SETTINGS,
            ["close ~/.aws/credentials to others", PROVE],
        ),
        (with_keys(KEYS, IRELAND), KEYS, IRELAND, [write("config"), PROVE]),
        (with_keys(KEYS, IRELAND, aws_config={"region": "eu-west-1"}), KEYS, IRELAND, []),
        (
            with_keys(KEYS, IRELAND, aws_config={"region": "us-east-1"}),
            KEYS,
            IRELAND,
            [write("config"), PROVE],
        ),
        (installed(), KEYS, IRELAND, [write("credentials", "config"), PROVE]),
        (with_keys(KEYS, aws_config={"region": "us-east-1"}), KEYS, SETTINGS, []),
        (
            with_keys(KEYS, MINIO, aws_config={"endpoint_url": "http://minio:9000"}),
            KEYS,
            MINIO,
            [],
        ),
    ],
)
def test_the_host_s_aws_files_get_what_differs_and_no_more(facts, keys, settings, wanted):
    assert sentences(facts, keys, settings) == wanted


# -- backups with keys or a bucket of their own ---------------------------------------------------

OWN = Settings(bucket="my-bucket", backup_profile="vault", backup_bucket="my-backups")
PROVE_BACKUPS = "prove access to s3://my-backups/mlflow-backups/default/"
WRITE = "write the backups' own AWS keys (profile vault)"


def digest_of(keys: Keys) -> str:
    return sha256(keys.file().replace("\n", ""))[:8]


@pytest.mark.parametrize(
    ("values", "keys", "settings", "wanted"),
    [
        ({}, KEYS, SETTINGS, []),
        ({}, None, Settings(bucket="my-bucket", backup_bucket="my-bucket"), []),
        ({}, KEYS, OWN, [WRITE, PROVE_BACKUPS]),
        ({"backup_aws": digest_of(KEYS)}, KEYS, OWN, [PROVE_BACKUPS]),
        ({"backup_aws": "older"}, KEYS, OWN, [WRITE, PROVE_BACKUPS]),
        ({"backup_aws": "older"}, None, OWN, [PROVE_BACKUPS]),
        ({}, None, Settings(bucket="my-bucket", backup_bucket="my-backups"), [PROVE_BACKUPS]),
    ],
)
def test_backups_get_what_is_their_own(values, keys, settings, wanted):
    needed = backup_changes(settings, configured(settings, **values), keys)
    assert [change.what for change in needed] == wanted
    for change in needed:
        assert "hidden" not in change.script + change.what
    if needed:
        place = request(needed[-1].files, "prove_backups.py")["place"]
        assert (place["bucket"], place["prefix"]) == ("my-backups", "mlflow-backups/default")
        stamp = re.search("echo (.*) > ", needed[-1].script)
        assert stamp
        after = {"backup_aws": digest_of(keys) if keys else "older", "proved_backups": stamp[1]}
        assert backup_changes(settings, configured(settings, **after), keys) == []


def test_a_profile_that_nobody_has_is_one_line():
    with pytest.raises(Exit, match="`backup_profile: vault` stands neither in your"):
        backup_changes(OWN, configured(OWN), None)


def test_the_keys_of_a_profile_come_from_the_operator_s_own_file(home, monkeypatch):
    c = context(configured(OWN), OWN)
    assert credentials.backup_keys(c.server) is None
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = D\naws_secret_access_key = d\n"
        "[vault]\naws_access_key_id = AKIA\naws_secret_access_key = hidden%key\n[half]\n"
        "aws_access_key_id = H\n"
    )
    assert credentials.backup_keys(c.server) == Keys("AKIA", "hidden%key")
    half = context(configured(), OWN.model_copy(update={"backup_profile": "half"}))
    with pytest.raises(Exit, match=r"The profile half in .* lacks one of its two keys"):
        check([half.server])
    assert credentials.backup_keys(context(configured()).server) is None
    elsewhere = home / "elsewhere"
    elsewhere.write_text("[vault]\naws_access_key_id = E\naws_secret_access_key = e\n")
    c = context(configured(OWN), OWN, AWS_SHARED_CREDENTIALS_FILE=str(elsewhere))
    assert credentials.backup_keys(c.server) == Keys("E", "e")


def test_configure_lays_and_proves_them_where_the_server_cannot_read():
    c = context(configured(OWN, backup_aws="older"), OWN)
    configure(c)
    (run,) = c.recorder.runs
    assert "profile_of_backups=vault" in run.steps
    assert 'for_backups "$root/' in run.steps


def test_half_a_pair_of_keys_on_the_host_is_an_error_that_names_the_profile():
    facts = with_keys(KEYS, credential_keys=frozenset({"aws_access_key_id"}))
    with pytest.raises(Exit, match="Partial AWS credentials: profile default"):
        sentences(facts)
    assert sentences(facts, Keys("NEW", "x")) == [write("credentials"), PROVE], "new keys mend it"


def test_keys_travel_as_a_file_and_never_in_a_script():
    writing, proving = aws_changes(IRELAND, installed(), replace(KEYS, token="hidden-token"))
    assert json.loads(str(writing.files["write_aws.json"])) == {
        "profile": "default",
        "credentials": {
            "aws_access_key_id": "AKIA",
            "aws_secret_access_key": "hidden-key",
            "aws_session_token": "hidden-token",
        },
        "config": {"region": "eu-west-1"},
    }
    for change in (writing, proving):
        assert "hidden" not in change.script
        assert "hidden" not in change.what


def test_new_keys_take_the_former_proof_away_before_the_new_one():
    writing, proving = aws_changes(SETTINGS, installed(), KEYS)
    assert 'rm -f "$root/.proved"' in writing.script
    stamp = proof(SETTINGS, KEYS.digest)
    assert proving.script.endswith(f'prove_bucket.py"\necho {stamp} > "$root/.proved"')


def test_the_proof_gets_region_and_endpoint_in_its_request():
    settings = Settings(bucket="my-bucket", region="eu-west-1", endpoint_url="http://m:9000/a&b")
    (*_, proving) = aws_changes(settings, installed(), None)
    assert json.loads(str(proving.files["prove_bucket.json"]))["place"] == {
        "bucket": "my-bucket", "prefix": "mlflow-artifacts", "backup_prefix": "mlflow-backups",
        "environment": "default", "region": "eu-west-1", "endpoint": "http://m:9000/a&b",
    }  # fmt: skip
    assert "a&b" not in proving.script


@pytest.mark.parametrize(
    "values",
    [
        {"bucket": "other-bucket"},
        {"prefix": "other"},
        {"region": "eu-west-1"},
        {"endpoint_url": "http://minio:9000"},
        {"profile": "work"},
    ],
)
def test_the_proof_holds_until_something_that_it_covers_changes(values):
    changed = Settings(**({"bucket": "my-bucket"} | values))
    assert proof(changed, None) != proof(SETTINGS, None)
    assert proof(SETTINGS, "other keys") != proof(SETTINGS, None)
    assert proof(Settings(bucket="my-bucket", port=6000), None) == proof(SETTINGS, None)


def test_a_profile_that_stands_in_no_file_does_not_hide_the_role():
    assert aws_profile_script(Settings(profile="work")) == (
        "if grep -qs '^\\[\\(profile \\)\\?work\\]' ~/.aws/credentials ~/.aws/config; "
        "then export AWS_PROFILE=work; fi"
    )


# -- the first login ---------------------------------------------------------------------------

ENV = "make the keys of server.env"
AUTH = "write .mlflow_auth_config for admin"


def auth_sentences(facts: Facts, login: Login | None) -> list[str]:
    return [change.what for change in auth_changes(SETTINGS, facts, None, login)]


def with_login(login: Login, **values: object) -> Facts:
    users = stores.sqlite(configured(), "basic_auth.db")
    text = auth_config(SETTINGS, users, login.username, login.password)
    return configured(files={f"{ROOT}/.mlflow_auth_config": Managed(sha256(text), "600")}, **values)


@pytest.mark.parametrize(
    ("facts", "login", "wanted"),
    [
        (installed(), LOGIN, [ENV, AUTH]),
        (with_login(LOGIN), LOGIN, []),
        (with_login(Login("admin", "another password")), LOGIN, [AUTH]),
        (configured(), LOGIN, [AUTH]),
        (configured(), None, []),
        (deployed(), LOGIN, []),
        (deployed(), None, []),
        (deployed(server_env=frozenset()), None, [ENV]),
        (deployed(server_env=deployed().server_env - {WEBHOOK_KEY}), None, [ENV]),
    ],
)
def test_a_server_without_users_gets_a_login_and_others_are_left_alone(facts, login, wanted):
    assert auth_sentences(facts, login) == wanted


def test_a_login_file_that_others_may_read_is_written_again():
    facts = with_login(LOGIN)
    path = f"{ROOT}/.mlflow_auth_config"
    opened = replace(facts, files={path: Managed(facts.files[path].digest, "644")})
    assert auth_sentences(opened, LOGIN) == [AUTH]


def test_the_first_password_travels_as_a_file_and_mlflow_reads_it():
    login = Login("admin", "100% %(sure)s = it; is # so")
    _, change = auth_changes(SETTINGS, installed(), None, login)
    assert change.script == 'place "$here/auth_config" "$root/.mlflow_auth_config" 0600'
    config = configparser.ConfigParser()
    config.read_string(str(change.files["auth_config"]))
    assert config["mlflow"]["admin_password"] == login.password
    assert config["mlflow"]["admin_username"] == "admin"


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        (None, f"MLFLOW_BACKEND_STORE_URI='sqlite:///{ROOT}/mlflow.db'\n"),
        ("mysql://u:p@h/d", "MLFLOW_BACKEND_STORE_URI='mysql://u:p@h/d'\n"),
        (
            "postgresql://u:p@h/d?sslmode=require",
            "MLFLOW_BACKEND_STORE_URI='postgresql+psycopg2://u@h/d?sslmode=require'\n"
            "AUTH_STORE_URI='postgresql+psycopg2://u@h/d_auth?sslmode=require'\n"
            f"PGPASSFILE='{ROOT}/.pgpass'\n",
        ),
    ],
)
def test_the_database_is_sqlite_unless_another_is_named(uri, wanted):
    settings = Settings(bucket="my-bucket", backend_store_uri=uri)
    change = auth_changes(settings, installed(), None, None)[0]
    assert change.files["stores"] == wanted
    assert "://" not in change.script, "an address may hold a password"


POSTGRES = Settings(bucket="my-bucket", backend_store_uri="postgresql://mlflow@db/mlflow")
PROOF = "prove access to PostgreSQL on db"
ON_POSTGRES = {
    "store": "postgresql+psycopg2://mlflow@db/mlflow",
    "auth_store": "postgresql+psycopg2://mlflow@db/mlflow_auth",
    "database": "postgresql",
}


def with_pass(line: str) -> Facts:
    files = {f"{ROOT}/.pgpass": Managed(sha256(line), "600")}
    return deployed(**ON_POSTGRES, files=files)


@pytest.mark.parametrize(
    ("facts", "password", "wanted"),
    [
        (installed(), None, [PROOF]),
        (installed(), "word", ["write .pgpass for mlflow", PROOF]),
        (configured(**ON_POSTGRES), None, [PROOF]),
        (deployed(**ON_POSTGRES), None, []),
        (with_pass("db:5432:*:mlflow:word\n"), "word", []),
        (with_pass("db:5432:*:mlflow:word\n"), "new", ["write .pgpass for mlflow", PROOF]),
    ],
)
def test_a_postgresql_database_is_proved_with_the_password_that_it_needs(facts, password, wanted):
    changes = store_changes(POSTGRES, facts, password)
    assert [change.what for change in changes] == wanted
    assert not any("word" in change.script for change in changes)


AGREE = "agree on keys and id with the database's other servers"


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (installed(), [AGREE]),
        (deployed(**ON_POSTGRES), [AGREE]),
        (deployed(**ON_POSTGRES, shared=True), []),
    ],
)
def test_servers_of_one_database_agree_on_key_and_id(facts, wanted):
    assert [change.what for change in share_changes(POSTGRES, facts)] == wanted


@pytest.mark.parametrize("uri", [None, "postgresql://mlflow@/mlflow?host=/var/run/postgresql",
                                 "postgresql://mlflow@localhost/mlflow"])  # fmt: skip
def test_a_database_of_one_host_alone_is_nothing_to_agree_on(uri):
    assert share_changes(Settings(bucket="my-bucket", backend_store_uri=uri), installed()) == []


def whose(**found: object) -> Reply:
    """Say on the host whose keys these are: a user's who may do no more than a server needs."""
    user = {"account": "1234", "arn": "arn:aws:iam::1234:user/mlflow", "why": ""}
    seen = {**user, "may": [], "role": None, **found}
    return Reply(f"@report {json.dumps(seen)}\n@exit 0\n")


def told(c: Task) -> Task:
    """Answer what configure asks, and whose the keys are."""
    c.recorder.replies = [whose()]
    return c.handed(answers={gather_keys: KEYS, gather_logins: LOGIN})


def joining(monkeypatch: pytest.MonkeyPatch, after: Facts) -> Task:
    """Configure a new host of a database; `after` is how it looks once it can ask that."""
    c = told(context(installed(), POSTGRES))
    monkeypatch.setattr(c.server, "forget", lambda: setattr(c.server, "_facts", after))
    configure(c)
    return c


def test_the_first_host_of_a_database_gets_the_login(monkeypatch):
    c = joining(monkeypatch, configured(**ON_POSTGRES, shared=True))
    _, first, second = c.recorder.changes
    assert "share.py" in first.files
    assert LOGIN.password in second.files["auth_config"]
    assert credentials.kept(c.server) == LOGIN


def test_a_host_whose_database_has_users_keeps_no_login_that_they_do_not_know(monkeypatch, capsys):
    c = joining(monkeypatch, configured(**ON_POSTGRES, shared=True, users=3))
    assert not any("auth_config" in run.files for run in c.recorder.changes)
    assert credentials.kept(c.server) is None
    assert "its database has 3 users already" in capsys.readouterr().out


def test_sqlite_needs_no_proof():
    assert store_changes(SETTINGS, installed(), None) == []


def test_another_database_than_the_one_with_the_runs_is_refused():
    with pytest.raises(Exit, match=r"^This server's runs are in sqlite:.* postgres\.migrate"):
        store_changes(POSTGRES, deployed(store=f"sqlite:///{ROOT}/mlflow.db"), None)
    elsewhere = Settings(bucket="my-bucket", backend_store_uri="postgresql://mlflow@other/mlflow")
    with pytest.raises(Exit, match="names postgresql\\+psycopg2://mlflow@other/mlflow"):
        store_changes(elsewhere, deployed(**ON_POSTGRES), None)


def test_a_server_that_was_moved_stays_where_it_is_when_the_settings_name_nothing():
    assert store_changes(SETTINGS, deployed(**ON_POSTGRES), None) == []


@pytest.mark.parametrize(
    ("uri", "variables", "wanted"),
    [
        ("postgresql://u:in%40it@h/d", {"PGPASSWORD": "variable"}, "in@it"),
        ("postgresql://u@h/d?password=in%40it", {}, "in@it"),
        ("postgresql://u@h/d", {"PGPASSWORD": "variable"}, "variable"),
        ("postgresql://mlflow@kept/d", {}, "kept-word"),
        ("postgresql://u@h/d", {}, None),
        ("sqlite:////x", {"PGPASSWORD": "variable"}, None),
    ],
)
def test_the_database_s_password_comes_from_address_variable_or_copy(uri, variables, wanted):
    kept = stores.of("postgresql://mlflow@kept/d")
    file = credentials.keep_database_password(kept, "kept-word")
    assert file.stat().st_mode & 0o777 == 0o600
    c = context(deployed(), Settings(bucket="my-bucket", backend_store_uri=uri), **variables)
    assert credentials.database_password(c.server) == wanted


def test_a_file_is_there_with_its_content_and_mode_or_it_is_not():
    facts = blank(files={"/x": Managed(sha256("text"), "600")})
    assert is_there(facts, "/x", "text", "600")
    assert not is_there(facts, "/x", "text", "644")
    assert not is_there(facts, "/x", "other", "600")
    assert not is_there(facts, "/y", "text", "600")


# -- what is refused before anything is sent ---------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "variables", "wanted"),
    [
        (Settings(), {}, "No bucket is configured"),
        (SETTINGS, {KEY_ID: "A"}, "Partial AWS credentials"),
        (SETTINGS, {PASSWORD: "short"}, "Too short: 5 characters, needs 12."),
        (Settings(), {PASSWORD: "short", KEY_ID: "A"}, "No bucket is configured"),
    ],
)
def test_what_is_wrong_here_is_refused_before_any_connection(settings, variables, wanted):
    c = context(None, settings, **variables)
    with pytest.raises(Exit, match=wanted):
        check([c.server])
    assert c.recorder.opened == 0


def test_a_host_without_mlflow_says_what_to_type():
    with pytest.raises(Exit, match=re.escape("Type: ./fab install configure")):
        configure(context(blank()))


def test_a_host_without_sudo_is_refused():
    with pytest.raises(Exit, match="sudo asks ubuntu for a password"):
        configure(context(installed(sudo=False)))


# -- the tasks ---------------------------------------------------------------------------------


def new(**variables: str) -> Task:
    return told(context(installed(), **variables))


def test_everything_is_sent_in_one_exec_without_a_secret_in_the_command():
    c = new()
    configure(c)
    look, run = c.recorder.runs
    for secret in ("hidden-key", LOGIN.password):
        assert secret not in look.command + run.command
        assert secret not in look.steps + run.steps
    assert f"admin_password = {LOGIN.password}" in run.files["auth_config"]
    assert "hidden-key" in run.files["write_aws.json"]


def test_the_login_is_kept_before_it_is_sent():
    c = new()
    c.recorder.replies = [whose(), OSError("gone")]
    with pytest.raises(Exit, match="The connection to ec2 was lost"):
        configure(c)
    assert credentials.kept(c.server) == LOGIN


def test_the_login_s_place_is_said_but_not_the_password(capsys):
    configure(new())
    out = capsys.readouterr().out
    assert "the login of admin is kept in " in out
    assert LOGIN.password not in out


def test_the_halves_do_their_half():
    c = new()
    configure_aws(c)
    assert set(c.recorder.changes[1].files) == {
        *RUNNER, "write_aws.py", "write_aws.json", "bucket.py", "prove_bucket.py",
        "prove_bucket.json", "talk.py",
    }  # fmt: skip
    c = new()
    configure_auth(c)
    assert set(c.recorder.changes[0].files) == {
        *RUNNER, "stores", "auth_config",
    }  # fmt: skip


@pytest.mark.parametrize("task", [configure, configure_aws, configure_auth])
def test_a_configured_host_costs_no_exec(task, capsys):
    c = context(deployed())
    task(c)
    assert c.recorder.runs == []
    assert "nothing to change" in capsys.readouterr().out


def test_a_server_with_users_keeps_its_admin_s_password(home):
    c = context(deployed(proved="older"))
    configure(c)
    (run,) = c.recorder.runs
    assert "auth_config" not in run.files
    assert not (paths.config() / "ec2.json").exists()


def test_a_login_that_is_supplied_for_a_server_with_users_is_checked_and_kept(capsys):
    c = context(deployed(), **{PASSWORD: LOGIN.password, USERNAME: "admin"})
    configure(c)
    (run,) = c.recorder.runs
    login = {"username": "admin", "password": LOGIN.password}
    assert request(run.files, "deep_check.py")["login"] == login
    assert LOGIN.password not in run.command + run.steps
    assert credentials.kept(c.server) == LOGIN
    assert "is right, and kept in" in capsys.readouterr().out


def test_a_login_that_the_server_refuses_is_not_kept():
    c = context(deployed(), **{PASSWORD: LOGIN.password})
    c.recorder.replies = [Reply("@fail The server refuses the password of admin.\n@exit 1\n")]
    with pytest.raises(Exit, match="refuses the password of admin"):
        configure(c)
    assert credentials.kept(c.server) is None


def test_a_login_that_is_kept_already_is_not_checked_again():
    c = context(deployed(), **{PASSWORD: LOGIN.password})
    credentials.keep(c.server, LOGIN)
    configure(c)
    assert c.recorder.runs == []


def test_a_stopped_server_cannot_check_a_login_and_says_so(capsys):
    c = context(deployed(units={}), **{PASSWORD: LOGIN.password})
    configure(c)
    assert c.recorder.runs == []
    assert "cannot be checked while the server is stopped" in capsys.readouterr().err


def test_keys_of_the_variables_reach_the_host():
    c = context(installed(), **{KEY_ID: "AKIA", KEY: "hidden-key"})
    c.recorder.replies = [whose()]
    configure_aws(c.handed(answers={gather_keys: gather_keys([c.server])["ec2"]}))
    assert "hidden-key" in c.recorder.changes[1].files["write_aws.json"]


# -- whose keys the host is given --------------------------------------------------------------

ROOT_USER = whose(arn="arn:aws:iam::1234:root", may=["iam:ListUsers"])
OURS = "arn:aws:sts::1234:assumed-role/mlflow-server-eu-central-1/i-0"
ROLE = whose(role="arn:aws:sts::1234:assumed-role/mlflow/i-0")
MORE = whose(may=["s3:ListAllMyBuckets", "iam:ListUsers"])


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (ROOT_USER, "The keys are those of the root user of account 1234."),
        (ROLE, "The instance has a role (arn:aws:sts::1234:assumed-role/mlflow/i-0)"),
        (MORE, "more than a server needs. AWS answered: s3:ListAllMyBuckets, iam:ListUsers."),
    ],
)
def test_keys_that_are_too_good_for_a_server_are_written_after_a_question_alone(
    reply, said, terminal, capsys
):
    for answer, written in (("n", False), ("", False), ("y", True)):
        terminal.append(answer)
        c = new()
        c.recorder.replies = [reply]
        if written:
            configure_aws(c)
        else:
            with pytest.raises(Exit, match=r"Nothing was changed\. Better: unset AWS_ACCESS"):
                configure_aws(c)
        assert said in capsys.readouterr().err
        look, *rest = c.recorder.changes
        assert request(look.files, "look_at_keys.py")["keys"] == KEYS.profile()
        assert "change.sh" not in look.files, "it takes no lock and leaves no line"
        assert ["write_aws.json" in run.files for run in rest] == ([True] if written else [])


def test_to_a_host_that_has_the_server_s_own_role_no_keys_go(capsys):
    """They are mostly an administrator's, who has just made that role."""
    c = new()
    c.recorder.replies = [whose(role=OURS, may=["iam:ListUsers"])]
    configure_aws(c, yes=True)
    assert ["write_aws.json" in run.files for run in c.recorder.changes[1:]] == [False]
    assert f"the server's own role ({OURS}): no keys go there" in capsys.readouterr().out


def test_another_environment_s_role_is_none_of_a_server_s_own():
    staging = OURS.replace("mlflow-server-", "mlflow-server-staging-")
    assert is_ours(OURS, SETTINGS)
    assert not is_ours(staging, SETTINGS)
    assert is_ours(staging, SETTINGS.model_copy(update={"environment": "staging"}))


def test_without_a_terminal_one_line_says_whose_and_how_to_go_on(capsys):
    c = new()
    c.recorder.replies = [ROOT_USER]
    question = r"Give ec2 \(default\) the AWS keys of arn:aws:iam::1234:root\? .*Add --yes"
    with pytest.raises(Exit, match=question):
        configure(c)
    assert len(c.recorder.runs) == 1
    c = new()
    c.recorder.replies = [ROOT_USER]
    configure(c, yes=True)
    assert len(c.recorder.runs) == 2
    assert "root user" in capsys.readouterr().err


def test_a_server_s_own_keys_are_named_and_nothing_is_asked(capsys):
    configure_aws(new())
    assert "the keys are those of arn:aws:iam::1234:user/mlflow\n" in capsys.readouterr().out


def test_keys_of_which_aws_says_nothing_are_named_by_their_id(capsys):
    c = new()
    c.recorder.replies = [whose(arn=None, account=None, why="no way out")]
    configure_aws(c)
    said = "an unknown user (AKIA): AWS does not say whose (no way out)"
    assert said in capsys.readouterr().out


def test_another_store_than_aws_tells_nobody_whose_keys_these_are(capsys):
    c = told(context(installed(), Settings(bucket="my-bucket", endpoint_url="http://minio:9000")))
    configure_aws(c)
    assert len(c.recorder.runs) == 1
    assert "the keys are those with the ID AKIA" in capsys.readouterr().out


def test_keys_that_the_host_has_already_are_no_question():
    c = told(context(configured(credentials=KEYS.digest, credential_keys=BOTH)))
    configure_aws(c)
    assert [set(run.files) & {"look_at_keys.py"} for run in c.recorder.changes] == [set()]
