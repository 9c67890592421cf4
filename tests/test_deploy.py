"""Only what differs is shipped, and a server that is well is left alone."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import pytest
from invoke import Exit
from stand_ins import (
    ROOT,
    SETTINGS,
    Reply,
    Task,
    blank,
    configured,
    context,
    deployed,
    installed,
    mark,
    request,
)

from tasks.changes import stream
from tasks.changes.deploy import changes
from tasks.changes.files import files, workers
from tasks.changes.proofs import CHECK, login_check
from tasks.changes.schedule import Plan, units
from tasks.changes.site import allowed_hosts, listeners, pair
from tasks.changes.surroundings import aws_variables
from tasks.deploy import deploy, serves
from tasks.engine import credentials
from tasks.engine.facts import READY, WEBHOOK_KEY, Facts, Listener, Managed, Tls, Unit, sites
from tasks.engine.login import Login
from tasks.engine.probe import managed_files
from tasks.engine.settings import Settings
from tasks.engine.templates import app_folder

LOGIN = Login("admin", "correct horse battery")
# A balancer stands in front of this one.
BEHIND = Settings(bucket="my-bucket", bind="0.0.0.0", balancer="10.0.1.10")
UNIT = "/etc/systemd/system/mlflow-server.service"
SITE = "/etc/nginx/sites-available/mlflow-server"
START = f"{ROOT}/start_mlflow_server.sh"
AUTH = f"{ROOT}/.mlflow_auth_config"
MARK = "mark s3://my-bucket/mlflow-artifacts/ as this server's"
WALL = f"put {app_folder('mlflow-server')}"
FIRST = [
    MARK,
    WALL,
    f"put {UNIT}",
    "put /etc/systemd/system/mlflow-server.socket",
    "put /etc/tmpfiles.d/mlflow-server.conf",
    f"put {SITE}",
    f"put {ROOT}/{READY}",
    f"put {START}",
    "start mlflow-server.socket",
    "start mlflow-server.service",
    "start nginx.service",
    "take the first password off the host",
    CHECK,
]


def test_a_host_without_the_wall_gets_it_and_another_wall_restarts_the_server():
    facts = deployed()
    facts = replace(facts, files={p: f for p, f in facts.files.items() if "/app-" not in p})
    assert sentences(facts) == [WALL, CHECK]
    script = next(file.text for file in files(SETTINGS, facts) if file.path == START)
    assert f"PYTHONPATH={app_folder('mlflow-server')}\n" in script


def sentences(facts: Facts, settings: Settings = SETTINGS) -> list[str]:
    return [line for change in changes(settings, facts, LOGIN) for line in change.sentences]


def differing(*paths: str, **values: object) -> Facts:
    """A deployed host where these files are others."""
    facts = deployed(**values)
    return replace(facts, files={**facts.files, **dict.fromkeys(paths, Managed("other", "644"))})


def without(unit: str, **values: object) -> Facts:
    facts = deployed()
    changed = replace(facts.units[unit], **values)  # type: ignore[arg-type]
    return replace(facts, units={**facts.units, unit: changed})


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (configured(), FIRST),
        (deployed(), []),
        (differing(UNIT), [f"put {UNIT}", CHECK]),
        (differing(SITE, START), [f"put {SITE}", f"put {START}", CHECK]),
        (differing(AUTH), [f"put {AUTH}", CHECK]),
        (differing("/etc/something/else"), []),
        (without("nginx.service", active="inactive"), ["start nginx.service", CHECK]),
        (without("nginx.service", file="disabled"), ["start nginx.service", CHECK]),
        (without("mlflow-server.socket", active="failed"), ["start mlflow-server.socket", CHECK]),
        (deployed(well=None), [CHECK]),
        (deployed(well="older"), [CHECK]),
        (deployed(bootstrap=True), ["take the first password off the host", CHECK]),
        (replace(deployed(), credentials="new keys"), [f"put {UNIT}", CHECK]),
        (replace(deployed(), proved="anew"), [CHECK]),
        (deployed(owned=None), [MARK]),
        (replace(deployed(), hostname="another"), [MARK]),
        (replace(deployed(), server_id="99999999"), [MARK]),
        (deployed(owned=None, well=None), [MARK, CHECK]),
    ],
)
def test_a_host_gets_what_differs_and_no_more(facts, wanted):
    assert sentences(facts) == wanted


KEYLESS = deployed().server_env - {WEBHOOK_KEY}
SEES, MAKES = "have the server see server.env", "make the keys of server.env"


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (deployed(server_env=KEYLESS), [MAKES, SEES, CHECK]),
        (deployed(server_env_changed=1_799_998_999), []),
        (deployed(server_env_changed=1_799_999_001), [SEES, CHECK]),
        (configured(server_env=KEYLESS), [MARK, MAKES, *FIRST[1:]]),
    ],
)
def test_a_server_of_a_former_project_gets_the_key_of_webhooks_and_sees_it(facts, wanted):
    *_, change = changes(SETTINGS, facts, LOGIN)[-1:] or [None]
    assert sentences(facts) == wanted
    assert change is None or " restart=yes\n" in change.script


def test_a_server_that_balancers_leave_out_is_brought_back():
    said = "have balancers send requests here again"
    drained = replace(deployed(), drained=True)
    assert said in sentences(drained, BEHIND)
    assert said not in sentences(deployed(), BEHIND)
    assert sentences(drained) == []


def test_a_restart_behind_a_balancer_begins_with_draining_the_server():
    drains = 'as_root touch "/run/$unit.drain"'
    for settings, wanted in ((SETTINGS, False), (BEHIND, True)):
        *_, change = changes(settings, differing(START), LOGIN)
        assert (drains in change.script) is wanted
        _, restart = change.script.split("drain all_back\n")
        assert restart.strip().startswith('say "restart the server')


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [(blank(), False), (configured(), False), (deployed(), True)],
)
def test_a_server_that_runs_is_one_that_others_have_to_mind(facts, wanted):
    assert serves(context(facts).server) is wanted


OPEN = {"bind": "0.0.0.0"}


@pytest.mark.parametrize(
    ("before", "change", "put", "restart"),
    [
        # The server listens on a socket of its own: where clients find it is nginx's matter.
        ({}, {"port": 6000}, [SITE], "no"),
        ({"public_name": "m.example.org"}, {"port": 6000}, [SITE], "no"),
        (OPEN, {"port": 6000}, [SITE], "no"),
        (OPEN | {"balancer": "10.0.1.10"}, {"port": 6000}, [SITE], "no"),
        (OPEN, {"bind": "10.0.0.5"}, [SITE], "no"),
        ({}, {"artifact_access": "direct"}, [SITE], "no"),
        # It refuses a Host that it was not told of.
        ({}, OPEN, [SITE, START], "yes"),
        (OPEN, {"balancer": "10.0.1.10"}, [SITE, START], "yes"),
        ({}, {"public_name": "mlflow.example.org"}, [START], "yes"),
        ({}, {"workers": 2}, [START], "yes"),
        ({}, {"prefix": "elsewhere"}, [START], "yes"),
        ({}, {"region": "eu-west-1"}, [START], "yes"),
        ({}, {"endpoint_url": "http://minio:9000"}, [START], "yes"),
        ({}, {"profile": "work"}, [START], "yes"),
        ({}, {"memory_max": "2G"}, [UNIT], "yes"),
        ({}, {"default_permission": "EDIT"}, [AUTH], "yes"),
    ],
)
def test_a_changed_setting_changes_its_files_and_restarts_only_whom_they_concern(
    before, change, put, restart
):
    former = Settings(**({"bucket": "my-bucket"} | before))
    settings = Settings(**({"bucket": "my-bucket"} | before | change))
    facts = deployed(former, addresses=("10.0.0.5",))
    *_, deploying = changes(settings, facts, LOGIN)
    said = deploying.sentences
    assert [line[len("put ") :] for line in said if line.startswith("put ")] == put
    assert f" restart={restart}\n" in deploying.script


@pytest.mark.parametrize(
    "values",
    [{"local_port": 6001}, {"backup_prefix": "b"}, {"keep": {"daily": 1}}, {"bind": "localhost"}],
)
def test_a_setting_that_the_server_does_not_see_changes_nothing(values):
    assert sentences(deployed(), Settings(**({"bucket": "my-bucket"} | values))) == []


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (blank(sudo=False), "sudo asks ubuntu for a password"),
        (blank(), "Type: ./fab install configure deploy"),
        (installed(complete=frozenset()), "MLflow is not installed"),
        (installed(), "The server has no first login yet. Type: ./fab configure deploy"),
        (configured(bootstrap=False), "The server has no first login yet"),
    ],
)
def test_what_must_come_first_is_named(facts, wanted):
    with pytest.raises(Exit, match=re.escape(wanted)):
        changes(SETTINGS, facts, LOGIN)


def test_a_missing_bucket_is_named():
    with pytest.raises(Exit, match="No bucket is configured"):
        changes(Settings(), configured(), LOGIN)


NGINX = Listener("127.0.0.1:5000", "nginx", 7)


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (
            configured(listeners=(Listener("0.0.0.0:5000", "python3", 4711),)),
            "Port 5000 of the host is taken by python3 (process 4711) at 0.0.0.0:5000",
        ),
        (configured(listeners=(Listener("*:5000", "", 0),)), "taken by a program (process 0)"),
        (configured(listeners=(NGINX,)), "taken by nginx (process 7) at 127.0.0.1:5000. If an env"),
        (deployed(listeners=(NGINX, Listener("[::1]:5000", "x", 1))), "taken by x (process 1)"),
    ],
)
def test_a_port_that_another_program_has_is_refused_by_name(facts, wanted):
    with pytest.raises(Exit, match=re.escape(wanted)):
        changes(SETTINGS, facts, LOGIN)


def test_our_own_nginx_may_have_the_port():
    assert sentences(deployed(listeners=(NGINX,))) == []


# -- what is shipped ---------------------------------------------------------------------------


def test_only_files_that_differ_are_shipped():
    (change,) = changes(SETTINGS, differing(SITE), LOGIN)
    assert change.files["places"] == f"file0\t644\t{SITE}\n"
    files = {name for name in change.files if not name.endswith((".py", ".json"))}
    assert files == {"places", "file0", "after"}


@pytest.mark.parametrize(
    ("facts", "restart"),
    [
        (configured(), "yes"),
        (differing(UNIT), "yes"),
        (differing(START), "yes"),
        (differing(AUTH), "yes"),
        (differing(SITE), "no"),
        (differing("/etc/tmpfiles.d/mlflow-server.conf"), "no"),
        (differing(SITE, UNIT), "yes"),
        (deployed(well=None), "no"),
    ],
)
def test_the_server_restarts_only_for_what_it_must_see(facts, restart):
    *_, change = changes(SETTINGS, facts, LOGIN)
    assert f"unit=mlflow-server port=5000 restart={restart}\n" in change.script


def test_the_login_travels_as_a_file():
    *_, change = changes(SETTINGS, configured(), LOGIN)
    assert request(change.files, "deep_check.py") == {
        "port": 5000, "login": {"username": "admin", "password": LOGIN.password},
    }  # fmt: skip
    assert LOGIN.password not in change.script + change.what


def test_without_a_login_the_check_asks_only_what_needs_none():
    *_, change = changes(SETTINGS, configured(), None)
    assert request(change.files, "deep_check.py")["login"] is None


def test_what_stays_on_the_host_holds_no_password():
    *_, change = changes(SETTINGS, configured(), LOGIN)
    assert str(change.files["after"]).endswith("\nadmin_password =\n")
    for name, content in change.files.items():
        assert (LOGIN.password in str(content)) is (name == "deep_check.json")


def test_a_login_can_be_checked_alone():
    change = login_check(SETTINGS, LOGIN)
    assert change.script == '"$root/venv/bin/python" "$here/deep_check.py"'
    assert {"deep_check.py", "deep_check.json"} <= set(change.files)


def test_every_file_that_is_shipped_is_looked_at_by_the_probe():
    shipped = {file.path for file in files(SETTINGS, blank())} | {AUTH}
    # Where nginx.org's package would have the site.
    shipped |= {site.file for site in sites(SETTINGS.unit)}
    # What backup.schedule ships is looked at too.
    shipped |= {file.path for file in units(SETTINGS, blank(), Plan()).values()}
    # So is what backup.stream ships.
    shipped |= {file.path for file in stream.files(SETTINGS, blank(), every=1)}
    # And what configure ships for a server on PostgreSQL.
    shipped |= {f"{blank().root}/.pgpass"}
    # So is a certificate of the operator's own.
    shipped.add(pair(SETTINGS, Tls("x", "own")).certificate)
    # By one of its files it is seen whether the whole wall is there.
    shipped.add(mark(SETTINGS).path)
    looked_at = {name.replace("~", "/home/ubuntu") for name in managed_files(SETTINGS)}
    assert looked_at == shipped


def test_the_start_script_is_bash():
    for settings in (SETTINGS, Settings(bucket="my-bucket", region="r", endpoint_url="http://x")):
        (script,) = (file.text for file in files(settings, blank()) if file.path == START)
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_new_release_changes_the_start_script(monkeypatch):
    before = files(SETTINGS, blank())[-1]
    monkeypatch.setattr("tasks.changes.files.release_of", lambda settings: "3.17.2-other")
    after = files(SETTINGS, blank())[-1]
    assert before.path == after.path == START
    assert before.text != after.text


@pytest.mark.parametrize(
    ("workers_", "cores", "gigabytes", "wanted"),
    [
        (1, 64, 512, 1),
        (3, 1, 1, 3),
        (0, 1, 64, 1),
        (0, 8, 0.5, 1),
        (0, 8, 1, 1),
        (0, 8, 2, 3),
        (0, 2, 2, 2),
        (0, 8, 4, 7),
        (0, 8, 8, 8),
    ],
)
def test_workers_come_from_the_settings_or_from_cores_and_memory(
    workers_, cores, gigabytes, wanted
):
    facts = blank(cores=cores, memory_kb=int(gigabytes * 1024**2))
    assert workers(Settings(workers=workers_), facts) == wanted


LOCAL = ["localhost", "localhost:*", "127.0.0.1:*"]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, LOCAL),
        ({"bind": "localhost"}, LOCAL),
        ({"bind": "10.0.0.5", "port": 6000}, [*LOCAL, "10.0.0.5", "10.0.0.5:*"]),
        ({"bind": "0.0.0.0"},
         [*LOCAL, "10.0.0.5", "10.0.0.5:*", "172.17.0.1", "172.17.0.1:*"]),
        ({"public_name": "m.example.org"}, [*LOCAL, "m.example.org", "m.example.org:*"]),
    ],
)  # fmt: skip
def test_the_server_answers_to_the_names_it_is_reached_by(values, wanted):
    facts = blank(addresses=("10.0.0.5", "172.17.0.1"))
    assert allowed_hosts(Settings(**values), facts) == wanted


def test_region_and_endpoint_are_quoted_for_the_shell():
    settings = Settings(region="eu-west-1", endpoint_url="http://m:9000/?a&b")
    assert aws_variables(settings) == (
        "AWS_DEFAULT_REGION=eu-west-1\nMLFLOW_S3_ENDPOINT_URL='http://m:9000/?a&b'"
    )
    assert aws_variables(Settings()).startswith("#")


# -- the task ----------------------------------------------------------------------------------


def test_a_server_that_is_well_costs_no_exec(capsys):
    c = context(deployed())
    deploy(c)
    assert c.recorder.runs == []
    assert capsys.readouterr().out == (
        "deploy: nothing to change, the server is well\n"
        "automatic backups are off: ./fab -H ec2 backup.schedule\n"
    )


def test_where_a_timer_makes_backups_nobody_is_told_of_it(capsys):
    timer = {"mlflow-server-backup.timer": Unit("loaded", "active", "waiting", "enabled")}
    deploy(context(deployed(units=deployed().units | timer)))
    assert capsys.readouterr().out == "deploy: nothing to change, the server is well\n"


def nobody(c: Task) -> Task:
    """The host says that nobody has marked the prefix, or that this server has."""
    c.recorder.replies = [Reply("@report null\n@exit 0\n")]
    return c


def test_a_first_deploy_is_one_exec(capsys):
    c = nobody(context(configured()))
    credentials.keep(c.server, LOGIN)
    deploy(c)
    (run,) = c.recorder.runs
    assert request(run.files, "owner.py")["action"] == "claim"
    assert LOGIN.password not in run.command + run.steps
    out, err = capsys.readouterr()
    assert "MLflow serves http://127.0.0.1:5000 on the host" in out
    assert "without a login" not in err


def test_a_deploy_without_a_login_says_what_was_not_checked(capsys):
    deploy(nobody(context(configured())))
    assert "checked without a login" in capsys.readouterr().err


def test_a_unit_that_would_not_start_after_a_reboot_is_not_running():
    unit = Unit("loaded", "active", "running", "static")
    assert "start nginx.service" in sentences(replace(deployed(), units={
        **deployed().units, "nginx.service": unit
    }))  # fmt: skip


@pytest.mark.parametrize(
    ("bind", "expected"),
    [
        ("127.0.0.1", ["127.0.0.1:5000"]),
        ("localhost", ["127.0.0.1:5000"]),
        ("10.0.0.5", ["127.0.0.1:5000", "10.0.0.5:5000"]),
        ("0.0.0.0", ["0.0.0.0:5000"]),
    ],
)
def test_the_tunnel_finds_the_server_wherever_it_listens(bind: str, expected: list[str]) -> None:
    settings = Settings(bucket="my-bucket", bind=bind)
    assert listeners(settings) == expected
    site = next(file.text for file in files(settings, blank()) if file.path == SITE)
    assert re.findall("listen (.*);", site) == expected


# -- several hosts with one database -----------------------------------------------------------

IN_COMMON = Settings(bucket="my-bucket", backend_store_uri="postgresql://mlflow@db/mlflow")
THERE = {
    "store": "postgresql+psycopg2://mlflow@db/mlflow",
    "auth_store": "postgresql+psycopg2://mlflow@db/mlflow_auth",
}


@pytest.mark.parametrize(
    ("settings", "values", "wanted"),
    [
        (IN_COMMON, THERE, "yes"),
        (IN_COMMON, THERE | {"users": 1}, "no"),
        (SETTINGS, {}, "no"),
    ],
)
def test_only_one_of_the_hosts_that_start_on_a_new_database_makes_its_tables(
    settings, values, wanted
):
    *_, change = changes(settings, configured(settings, **values), LOGIN)
    assert f" first={wanted}" in change.script
    assert ("first_start.py" in change.files) == (wanted == "yes")


def test_behind_a_balancer_it_says_whom_to_keep_out(capsys):
    settings = Settings(bucket="my-bucket", bind="0.0.0.0", balancer="10.0.1.10")
    deploy(context(deployed(settings), settings))
    err = capsys.readouterr().err
    assert "let nobody else reach port 5000" in err
    assert "tls.enable" not in err


# -- the wall around the process -----------------------------------------------------------------


@pytest.mark.parametrize(("credentials", "denied"), [(None, False), ("a digest", True)])
def test_only_a_server_without_keys_reaches_the_instance_s_role(credentials, denied):
    facts = replace(deployed(), credentials=credentials)
    service = next(file.text for file in files(SETTINGS, facts) if file.path == UNIT)
    assert ("IPAddressDeny=169.254.169.254 fd00:ec2::254\n" in service) is denied


def test_the_unit_writes_nothing_but_the_databases():
    service = next(file.text for file in files(SETTINGS, deployed()) if file.path == UNIT)
    words = [line.partition("=") for line in service.splitlines() if "=" in line]
    assert [value for name, _, value in words if name == "ReadWritePaths"] == [f"-{ROOT}/data"]
    # A list that began with what is forbidden would forbid nothing else.
    filters = [value for name, _, value in words if name == "SystemCallFilter"]
    assert filters[0] == "@system-service"
    assert {"symlink", "link", "mknod"} <= set(" ".join(filters[1:]).replace("~", "").split())
