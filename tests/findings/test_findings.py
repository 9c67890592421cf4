"""Every fault is a row: what was seen, and the finding that it must become."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from seen import DATABASE, HERE, NGINX, NOW, SERVICE, SOCKET, WELL, unit
from stand_ins import ROOT, SETTINGS, deployed

from tasks.doctor import AREAS
from tasks.engine.facts import WEBHOOK_KEY, Facts, Listener, Managed, Tls, Unit
from tasks.engine.settings import Settings
from tasks.findings.case import Case, Finding, Here, Remedy
from tasks.findings.diagnosis import Look, diagnose
from tasks.findings.symptoms import Certificate, Memory, Mount

LETS = Tls("m.example.org", "https://acme.example/dir")
LIVE = "/etc/letsencrypt/live/m.example.org/fullchain.pem"


def case(
    settings: Settings = SETTINGS,
    facts: Facts | None = None,
    here: Here = HERE,
    /,
    **symptoms: Any,
) -> Case:
    facts = facts or deployed(settings)
    return Case("ec2", settings, facts, replace(WELL, **symptoms), here)


def units(**changed: Unit) -> Facts:
    """A deployed host whose service, socket or nginx is otherwise."""
    facts = deployed()
    names = {"service": SERVICE, "socket": SOCKET, "nginx": NGINX}
    return replace(facts, units=facts.units | {names[key]: unit for key, unit in changed.items()})


def findings(given: Case) -> list[Finding]:
    return list(diagnose(given, AREAS).found)


def unseen(given: Case) -> list[str]:
    return [finding.area for finding in diagnose(given, AREAS).unseen]


def well(given: Case) -> list[str]:
    return list(diagnose(given, AREAS).well)


def only(given: Case) -> Any:
    (finding,) = findings(given)
    return finding


def test_a_healthy_server_has_no_finding_and_every_area_is_well():
    assert findings(case()) == []
    assert well(case()) == list(AREAS)


BY_TIMER = ("mlflow-server-backup.service", "mlflow-server-backup-verify.service")
DOWN = {"health": None, "stranger": None, "logins": {}}
ROWS = [
    # facts, symptoms, key, words in its text, what to type
    (units(service=unit("inactive"), socket=unit("inactive")), DOWN, "service-stopped",
     ("stopped", f"{SERVICE} inactive, {SOCKET} inactive"), ["./fab -H ec2 start"]),
    (units(service=unit("inactive")), DOWN, "service-stopped",
     ("next request would start it",), ["./fab -H ec2 start"]),
    (units(service=unit("failed"), socket=unit("failed")), DOWN, "service-stopped",
     ("failed",), ["./fab -H ec2 start"]),
    (units(socket=unit("inactive")), {}, "socket-stopped",
     ("a restart would lose requests",), ["./fab -H ec2 start"]),
    (units(service=unit("activating", restarts=7)), DOWN | {"error": "ValueError: x"}, "crash-loop",
     ("ValueError: x", "8 times"), ["./fab -H ec2 deploy"]),
    (units(service=unit("active", restarts=2, since=NOW - 3)), DOWN, "crash-loop",
     ("its log names no error",), ["./fab -H ec2 deploy"]),
    (units(service=Unit("not-found")), DOWN, "unit-missing",
     (SERVICE, "not-found"), ["./fab -H ec2 deploy"]),
    (units(service=replace(unit("active"), file="disabled")), {}, "unit-disabled",
     ("reboot", SERVICE, "is not enabled"), [f"ssh ec2 'sudo systemctl enable {SERVICE}'"]),
    (None, {"health": 502}, "not-answering", ("502",), ["./fab -H ec2 restart"]),
    (None, {"stranger": 200}, "open", ("without a login",),
     ["./fab -H ec2 deploy", "./fab -H ec2 restart"]),
    (deployed(workers=64), {}, "memory-small", ("about 20480 are needed for 64 workers", "3906"),
     ["./fab -H ec2 deploy"]),
    (None, {"out_of_memory": 3}, "out-of-memory", ("3 times",), ["ssh ec2 'free -m"]),
    (deployed(server_env=frozenset({"MLFLOW_BACKEND_STORE_URI"})), {},
     "secret-key-missing",
     ("server.env",), ["./fab -H ec2 configure", "./fab -H ec2 restart"]),
    (None, {"webhooks": {"count": 3, "first": [{"id": "1a", "name": "nightly"}]}},
     "unreadable-webhooks", ("nightly (1a) and 2 more", "under another key", "server.env"),
     ["./fab -H ec2 webhooks.reset"]),
    (None, {"modes": {"/a b": "604"}}, "readable-secrets", ("/a b", "604"),
     ["ssh ec2 'chmod go= '\"'\"'/a b'\"'\"''"]),
    (units(nginx=unit("inactive")), DOWN, "nginx-down", ("port 5000",), ["./fab -H ec2 start"]),
    (None, {"nginx": "emerg unknown x in /etc/nginx/sites-enabled/mlflow-server:4"}, "nginx-broken",
     ("runs on with the former one", "mlflow-server:4"), ["./fab -H ec2 deploy"]),
    (units(nginx=unit("failed")), DOWN | {"nginx": "emerg x in /etc/nginx/conf.d/a:1"},
     "nginx-broken", ("nginx is down", "not this project's"), ["./fab -H ec2 start"]),
    (replace(units(nginx=unit("failed")), listeners=(Listener("127.0.0.1:5000", "python3", 7),)),
     DOWN, "port-taken", ("python3 (process 7)",), ["ssh ec2 'sudo kill 7'", "./fab -H ec2 start"]),
    (deployed(listeners=(Listener("0.0.0.0:5000", "nginx", 7),)), {}, "listening-everywhere",
     ("0.0.0.0:5000", "in the clear"), ["./fab -H ec2 deploy"]),
    (None, {"listeners": (Listener("*:5001", "mlflow", 9),)}, "listening-everywhere",
     ("mlflow (process 9)", "*:5001"), ["ssh ec2 'sudo pkill -P 9; sudo kill 9'"]),
    (None, {"certificates": (Certificate("/etc/letsencrypt/live/x/fullchain.pem", NOW + 86400),)},
     "certificate", ("expires in 1 day",), ["ssh ec2 'sudo certbot renew;"]),
    (None, {"certificates": (Certificate("/own.pem", NOW - 172800),)},
     "certificate", ("expired 2 days ago", "Put a new one"), ["ssh ec2 'sudo systemctl reload"]),
    (deployed(tls=LETS), {"nginx": f"emerg cannot load certificate {LIVE}"}, "nginx-broken",
     ("certificate of m.example.org is gone",),
     ["./fab -H ec2 tls.disable --yes", "./fab -H ec2 tls.enable m.example.org"]),
    (deployed(tls=LETS), {"name": 403}, "host-refused", ("requests for m.example.org",),
     ["./fab -H ec2 deploy"]),
    (deployed(tls=Tls("m.example.org", "own")),
     {"certificates": (Certificate("/etc/ssl/certs/mlflow-server.pem", NOW + 86400),)},
     "certificate", ("expires in 1 day", "your own"),
     ["./fab -H ec2 tls.enable m.example.org --certificate FILE --key FILE"]),
    (deployed(tls=LETS), {"unserved": True}, "certificate-unserved", ("m.example.org",),
     ["ssh ec2 'sudo systemctl reload nginx'"]),
    (deployed(tls=LETS), {"renewal": "active", "renewal_failed": "Connection refused",
                          "failed": ("certbot.service",)},
     "renewal-failed", ("Connection refused", "stays in use"), ["./fab -H ec2 tls.renew"]),
    (deployed(tls=LETS), {"renewal": "inactive"}, "renewal-off", ("certbot.timer inactive",),
     ["ssh ec2 'sudo systemctl enable --now certbot.timer'"]),
    (deployed(sudo=False, sudo_error="sudo: a password is required"), {}, "sudo",
     ("asks ubuntu for a password",),
     ["ssh -t ec2 'echo '\"'\"'ubuntu ALL=(ALL) NOPASSWD:ALL'\"'\"' | sudo tee"]),
    (deployed(sudo=False, sudo_error="sudo: sorry, you must have a tty to run sudo"), {}, "sudo",
     ("wants a terminal", "requiretty"),
     ["ssh -t ec2 'echo '\"'\"'Defaults:ubuntu !requiretty'\"'\"' | sudo tee"]),
    (deployed(sudo=False, sudo_error="ubuntu is not in the sudoers file."), {}, "sudo",
     ("not in the sudoers file", "fix that on the host"), []),
    (None, {"health": None, "silent": 22.5, "looked": WELL.looked - {"requests"}}, "not-answering",
     ("within 22 s",), ["./fab -H ec2 restart"]),
    (None, {"mounts": (Mount("/", 20_000_000, 50_000, 9, 9, False),), "large": ("9000000 /f",)},
     "disk-full", ("/f (8.6 MB)", "0.0 of 19.1 GB"), ["ssh ec2 'sudo journalctl --vacuum"]),
    (None, {"mounts": (Mount("/", 20_000_000, 1_500_000, 9, 9, False),)}, "disk-nearly-full",
     ("1.4 of 19.1 GB",), ["ssh ec2 'sudo journalctl --vacuum"]),
    (None, {"mounts": (Mount("/", 20_000_000, 9_000_000, 1000, 50, False),)}, "disk-nearly-full",
     ("50 of 1000 inodes",), ["ssh ec2 'sudo journalctl --vacuum"]),
    (None, {"mounts": (Mount("/", 20_000_000, 9_000_000, 9, 9, True),)}, "disk-read-only",
     ("can only be read",), ["ssh ec2 'sudo dmesg"]),
    (None, {"routed": False}, "route-none", ("no default route",), ["ssh ec2 'ip -br address"]),
    (None, {"unresolved": {"name": "mlflow.org", "why": "Temporary failure"}}, "names-unresolved",
     ("apt, uv, certbot", "Temporary failure", "mlflow.org"), ["ssh ec2 'cat /etc/resolv.conf"]),
    (None, {"dpkg": ""}, "dpkg-broken", ("was cut off. apt",), ["ssh ec2 'sudo DEBIAN_FRONTEND"]),
    (None, {"dpkg": "libc6 curl"}, "dpkg-broken", ("cut off: libc6 curl.",),
     ["ssh ec2 'sudo DEBIAN_FRONTEND"]),
    (None, {"apt_holder": (7, "apt-get")}, "apt-held", ("apt-get (process 7)",),
     ["ssh ec2 'sudo kill 7'"]),
    (None, {"memory": Memory(4000_000, 100_000, 0, 0)}, "memory-scarce", ("98 of 3906 MB can",),
     ["ssh ec2 'free -m"]),
    (None, {"memory": Memory(4000_000, 900_000, 1000_000, 50_000)}, "memory-scarce",
     ("49 of 977 MB of swap",), ["ssh ec2 'free -m"]),
    (None, {"disk_error": "EXT4-fs error (device sda1)"}, "disk-errors", ("EXT4-fs error",),
     ["./fab -H ec2 backup"]),
    (units(service=Unit("masked"), socket=unit("active")), {"masked": (SERVICE,)}, "unit-masked",
     (SERVICE, "masked"), ["ssh ec2 'sudo systemctl unmask", "./fab -H ec2 deploy"]),
    (units(nginx=Unit("masked")), {"masked": (NGINX,)}, "unit-masked", (NGINX,),
     ["ssh ec2 'sudo systemctl unmask", "./fab -H ec2 deploy"]),
    (None, {"skew": 900.0}, "clock", ("15 minutes ahead", "S3's clock"), ["ssh ec2 'sudo apt-get"]),
    (deployed(now=NOW - 1200), {"skew": None}, "clock",
     ("20 minutes behind", "this machine's clock"), ["ssh ec2 'sudo apt-get"]),
    (deployed(release=None), {}, "not-installed", ("gone",),
     ["./fab -H ec2 install", "./fab -H ec2 deploy"]),
    (None, {"environment": "it lacks 3 files, such as a.py"}, "environment-broken", ("a.py",),
     [f"ssh ec2 'rm -f {ROOT}/releases/", "./fab -H ec2 install", "./fab -H ec2 restart"]),
    (deployed(complete=frozenset()), {}, "environment-broken", ("its Python is gone",),
     [f"ssh ec2 'rm -f {ROOT}/releases/", "./fab -H ec2 install", "./fab -H ec2 restart"]),
    (None, {"weak": ("admin",)}, "password-well-known", ("admin",),
     ["./fab -H ec2 users.reset-admin"]),
    (None, {"admins": 0}, "no-admin", ("No user is an admin",), ["./fab -H ec2 users.reset-admin"]),
    (None, {"profile": False}, "profile-absent", ("[default]",), ["./fab -H ec2 configure deploy"]),
    (None, {"bucket": {"kind": "credentials-wrong", "what": "Refused.", "remedy": "Set new ones."}},
     "credentials-wrong", ("Refused.", "Set new ones."), ["./fab -H ec2 configure"]),
    (None, {"bucket": {"kind": "permission", "what": "s3:PutObject denied.", "remedy": "Allow."}},
     "permission", ("s3:PutObject",), []),
    (None, {"bucket": {"kind": "clock", "what": "x", "remedy": "y"}, "skew": 1.0}, "clock",
     ("S3 refuses",), ["ssh ec2 'sudo apt-get"]),
    (None, {"backup_error": "AccessDenied"}, "backup-hidden", ("AccessDenied",), []),
    (None, {"schedule": "inactive"}, "backup-schedule-off",
     ("switched off",), ["ssh ec2 'sudo systemctl enable --now mlflow-server-backup.timer'"]),
    (deployed(units=deployed().units | {"mlflow-server-backup.service": unit("failed")}),
     {"timer_failed": {"backup": "The bucket x refuses it."}, "failed": BY_TIMER}, "backup-failed",
     ("failed: The bucket x refuses it.",),
     ["ssh ec2 'sudo systemctl start mlflow-server-backup.service'"]),
    (deployed(units=deployed().units | {"mlflow-server-backup-verify.service": unit("failed")}),
     {"timer_failed": {"backup-verify": ""}, "failed": BY_TIMER}, "backup-verify-failed",
     ("does not say why",), ["ssh ec2 'sudo systemctl start mlflow-server-backup-verify.service'"]),
    (None, {"backup": None}, "backup-none", ("no backup yet",), ["./fab -H ec2 backup"]),
    (None, {"backup": {"id": "i", "made": NOW - 7200, "damage": None}}, "backup-old",
     ("2 hours old", "journalctl -u mlflow-server-backup"), ["./fab -H ec2 backup"]),
    (None, {"backup": {"id": "i", "made": NOW, "damage": "x is missing"}}, "backup-damaged",
     ("x is missing",), ["./fab -H ec2 backup"]),
    (None, {"backup": {"id": "i", "made": NOW, "damage": None, "doubt": "Nobody vouches."}},
     "backup-unvouched", ("Nobody vouches.",), ["./fab -H ec2 backup"]),
    (None, {"backup": {"id": "i", "made": NOW, "damage": None,
                       "newer": {"id": "j", "why": "nobody signed it"}}},
     "backup-forged", ("The backup j is not as", "nobody signed it", "newer than i"), []),
    (None, {"logins": {"copy": 401}}, "login-refused", ("kept here",),
     ["./fab -H ec2 users.reset-admin"]),
    (None, {"logins": {"variables": 401}}, "client-variables-wrong", ("this shell",),
     ['eval "$(./fab -H ec2 client --export)"']),
]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "symptoms", "key", "saying", "typed"),
    ROWS,
    ids=[f"{r[2]}-{n}" for n, r in enumerate(ROWS)],
)
def test_a_fault_is_a_problem_that_says_what_how_seen_and_what_to_type(
    facts, symptoms, key, saying, typed
):
    finding = only(case(SETTINGS, facts, **symptoms))
    assert (finding.key, finding.severity) == (key, "problem")
    text = f"{finding.what} {finding.seen} {finding.remedy}"
    assert [word for word in saying if word not in text] == []
    assert len(finding.type) == len(typed)
    assert all(said.startswith(start) for said, start in zip(finding.type, typed, strict=True))
    assert finding.seen
    assert finding.type or finding.remedy, "something is to be done"


def database(name: str = "mlflow.db", **changed: Any) -> dict[str, Any]:
    return WELL.databases | {name: {"name": name, **DATABASE, **changed}}  # type: ignore[operator]


OLDER = {"found": "abc", "known": True, "newest": False}
STOPPED = {"name": "python3", "state": "T", "unit": "session-3.scope"}


@pytest.mark.parametrize(
    ("databases", "key", "saying", "typed"),
    [
        (database(strangers={f"{ROOT}/mlflow.db": "root"}, damage="unable to open"),
         "database-owner", "belongs to root, not to ubuntu", f"chown ubuntu: {ROOT}/mlflow.db"),
        (database(damage="database disk image is malformed"), "database-corrupt", "malformed",
         "./fab -H ec2 stop"),
        (database(writers={"42": STOPPED}), "database-locked", "python3 (process 42), which hangs",
         "sudo kill -9 42"),
        (database(revision={"found": "fff", "known": False, "newest": False}), "schema-newer",
         "none of those that 3.17.2 knows", "./fab -H ec2 restore"),
        ({"mlflow.db": WELL.databases["mlflow.db"]}, "auth-missing", "basic_auth.db",
         "./fab -H ec2 restore"),
        ({"basic_auth.db": WELL.databases["basic_auth.db"]}, "tracking-missing", "mlflow.db",
         "./fab -H ec2 restore"),
    ],
    ids=lambda value: value if isinstance(value, str) and "-" in value and " " not in value else "",
)  # fmt: skip
def test_a_fault_of_a_database_is_named(databases, key, saying, typed):
    finding = only(case(databases=databases))
    assert finding.key == key
    assert saying in f"{finding.what} {finding.seen} {finding.remedy}"
    assert typed in finding.type[0]


@pytest.mark.parametrize(
    "writers",
    [
        {"42": {"name": "mlflow", "state": "S", "unit": SERVICE}},
        {"42": None},
    ],
    ids=["the server itself", "one that has ended"],
)
def test_the_server_s_own_writing_is_no_fault(writers):
    assert findings(case(databases=database(writers=writers))) == []


@pytest.mark.parametrize("zone", ["", "+0000 UTC", "-0500 EST"])
def test_a_host_by_utc_or_by_its_operator_s_clock_is_no_finding(zone):
    here = replace(HERE, zone="-0500")
    assert findings(case(SETTINGS, None, here, zone=zone, next_backup=1_800_000_000.0)) == []


@pytest.mark.parametrize("damage", [None, "unknown"])
def test_a_check_that_had_no_time_is_no_damage(damage):
    assert findings(case(databases=database(damage=damage))) == []


@pytest.mark.parametrize(
    ("facts", "here", "symptoms", "key", "saying"),
    [
        (None, HERE, {"failed": ("a.service",)}, "other-units", "a.service"),
        (None, HERE, {"reboot": True}, "reboot", "reboot"),
        (None, HERE, {"killed": {"java": 2}}, "out-of-memory-beside", "java (2 times)"),
        (None, HERE, {"synchronised": False}, "clock-alone", "NTPSynchronized=no"),
        (units(service=unit("active", since=NOW - 5)), HERE, {"health": 502}, "starting", "5 s"),
        (None, HERE, {"schedule": None}, "backup-unscheduled", "backups are off"),
        (None, replace(HERE, zone="-0500"), {"zone": "+0100 CET", "next_backup": 1_800_000_000.0},
         "time-zone", "at Fri 09:00 there, Fri 03:00 here"),
        (deployed(schedule="1h weekly 0123456789abcdef"), HERE, {}, "backup-schedule-due",
         "differ"),
        (deployed(server_env=deployed().server_env - {WEBHOOK_KEY}), HERE, {},
         "webhook-key-missing", "server.env names no MLFLOW_WEBHOOK"),
        (deployed(drained=True), HERE, {}, "drained", "/run/mlflow-server.drain"),
        (deployed(runs=0), HERE, {"direct": {
            "count": 2, "names": ["a", "b"], "places": ["old-bucket"]}}, "direct-artifacts",
         "may read old-bucket"),
        (None, HERE, {"databases": database(revision=OLDER)}, "schema-older", "migrates"),
        (None, replace(HERE, uri=None), {}, "client-variables-unset", "MLFLOW_TRACKING_URI"),
        (None, replace(HERE, sources=frozenset({"copy"})), {}, "client-variables-unset", "a login"),
        (None, replace(HERE, uri="http://localhost:9"), {}, "client-uri", "port 5001"),
        (None, replace(HERE, tunnel_port=None, tunnel_answers=False), {}, "tunnel-closed", "none"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)  # fmt: skip
def test_what_is_only_worth_knowing_is_a_note(facts, here, symptoms, key, saying):
    finding = only(case(SETTINGS, facts, here, **symptoms))
    assert (finding.key, finding.severity) == (key, "note")
    assert saying in f"{finding.what} {finding.seen} {finding.remedy}"


def test_files_that_differ_from_the_settings_are_a_note():
    facts = deployed()
    path = f"{ROOT}/start_mlflow_server.sh"
    changed = replace(facts, files=facts.files | {path: Managed("other", "700")})
    finding = only(case(SETTINGS, changed))
    assert (finding.key, finding.severity, finding.tasks) == ("deploy-due", "note", ("deploy",))
    assert path in finding.what


def test_a_file_of_logins_is_wrong_only_where_no_variables_stand_before_it():
    logins = {"file": 401, "copy": 200}
    without = replace(HERE, sources=frozenset({"file", "copy"}))
    assert only(case(SETTINGS, None, without, logins=logins)).key == "client-file-wrong"
    assert findings(case(SETTINGS, None, HERE, logins=logins)) == []


def test_a_file_with_another_server_s_login_is_a_note():
    """With several environments it is right for one of them at most."""
    here = replace(HERE, sources=frozenset({"file", "copy"}), file_is_anothers=True)
    finding = only(case(SETTINGS, None, here, logins={"file": 401, "copy": 200}))
    assert (finding.key, finding.severity) == ("client-file-wrong", "note")
    assert "kept here as another server's" in finding.seen


def test_a_rehearsal_host_says_nothing_of_the_operator_s_shell():
    assert findings(case(SETTINGS, None, replace(HERE, uri=None, half=True, shell=False))) == []


def test_half_of_a_login_is_named():
    half = replace(HERE, half=True, sources=frozenset({"file", "copy"}))
    assert only(case(SETTINGS, None, half)).key == "client-variables-half"


@pytest.mark.parametrize("condition", ["open", "reconnecting", "stale"])
def test_a_dead_tunnel_is_named_only_where_the_host_listens(condition):
    dead = replace(HERE, tunnel_answers=False, tunnel=condition)
    listening = deployed(listeners=(Listener("127.0.0.1:5000", "nginx", 7),))
    finding = only(case(SETTINGS, listening, dead))
    assert finding.key == "tunnel-dead"
    assert f"is {condition}, but dead" in finding.what
    assert finding.type == ("./fab -H ec2 tunnel.close", "./fab -H ec2 tunnel --background")
    assert findings(case(SETTINGS, None, dead)) == []


def test_a_host_that_is_not_reached_as_the_settings_say_is_a_note():
    settings = Settings(bucket="my-bucket", access="ssm")
    (finding,) = findings(case(settings, deployed(settings)))
    assert (finding.key, finding.severity) == ("access-differs", "note")
    assert finding.type == ("./fab -H ec2 aws.adopt",)
    assert findings(case(settings, deployed(settings), replace(HERE, by_session=True))) == []


def test_another_name_in_the_settings_than_the_host_serves_is_a_note():
    settings = Settings(bucket="my-bucket", public_name="other.example.org")
    (finding,) = findings(case(settings, deployed(settings, tls=LETS)))
    assert (finding.key, finding.severity) == ("name-differs", "note")
    assert "Set `public_name: m.example.org`" in finding.remedy
    assert finding.type[0].startswith("./fab -H ec2 tls.enable other.example.org --email")


def test_a_public_name_that_is_refused_is_named():
    settings = Settings(bucket="my-bucket", public_name="mlflow.example.org")
    finding = only(case(settings, deployed(settings), name=403))
    assert finding.key == "host-refused"
    assert findings(case(settings, deployed(settings), name=401)) == []


def test_a_bind_that_was_chosen_is_no_fault():
    settings = Settings(bucket="my-bucket", bind="0.0.0.0")
    facts = deployed(settings, listeners=(Listener("0.0.0.0:5000", "nginx", 7),))
    assert findings(case(settings, facts)) == []


@pytest.mark.parametrize(
    ("made", "schedule", "period", "old"),
    [
        (6 * 86400, None, None, False),
        (8 * 86400, None, None, True),
        (5400, "active", 3600, False),
        (6400, "active", 3600, True),
        (3 * 3600, "active", None, False),
    ],
)
def test_a_backup_is_old_by_its_schedule(made, schedule, period, old):
    backup = {"id": "i", "made": NOW - made, "damage": None}
    found = findings(case(backup=backup, schedule=schedule, period=period))
    assert ("backup-old" in [finding.key for finding in found]) is old


def test_a_large_disk_that_has_gigabytes_left_is_not_nearly_full():
    mount = Mount("/", 1_000_000_000, 60_000_000, 9, 9, False)
    assert findings(case(mounts=(mount,))) == []


def test_problems_stand_before_notes():
    found = findings(case(reboot=True, weak=("admin",), failed=("a",)))
    assert [finding.severity for finding in found] == ["problem", "note", "note"]


def test_what_could_not_be_looked_at_is_neither_well_nor_ill():
    blind = case(looked=frozenset({"system", "machine", "names", "service", "nginx"}),
                 databases={}, bucket=None)  # fmt: skip
    assert unseen(blind) == [
        "environment", "database", "server", "webhooks", "users", "bucket", "backup", "client",
    ]  # fmt: skip
    assert findings(blind) == []
    assert well(blind) == ["host", "nginx", "settings"]


LATE = "it did not answer within 4 s"


@pytest.mark.parametrize(
    ("blind", "patience", "typed"),
    [
        ({"bucket": LATE}, 4, ["./fab -H ec2 doctor --timeout 30"]),
        ({"bucket": LATE}, 30, ["./fab -H ec2 doctor --timeout 120"]),
        ({"bucket": LATE}, 600, []),
        # More time would not help.
        ({"bucket": "sudo: a password is required"}, 4, []),
        ({}, 4, []),
    ],
)
def test_what_was_not_looked_at_is_a_row_that_says_how_to_look_longer(blind, patience, typed):
    given = case(looked=WELL.looked - {"bucket"}, bucket=None, backup=None, blind=blind)
    rows = diagnose(given, AREAS, Look("doctor", patience)).rows
    assert [(row["key"], row["severity"], row["area"]) for row in rows] == [
        ("not-looked-at", "blind", "bucket"), ("not-looked-at", "blind", "backup"),
    ]  # fmt: skip
    why = blind.get("bucket", "no answer")
    assert [(why in row["what"], list(row["type"])) for row in rows] == [(True, typed)] * 2


def test_what_was_not_looked_at_is_not_called_missing():
    nothing = replace(WELL, looked=frozenset(), schedule=None, backup=None, databases={})
    given = Case("ec2", SETTINGS, deployed(), nothing, HERE)
    assert findings(given) == []


def test_of_databases_that_were_not_seen_wholly_what_was_seen_is_said():
    damaged = database(damage="malformed")
    del damaged["basic_auth.db"]
    given = case(looked=WELL.looked - {"databases"}, databases=damaged)
    assert [finding.key for finding in findings(given)] == ["database-corrupt"]
    assert "database" in unseen(given)


def test_of_postgresql_only_whether_it_answers_is_looked_at():
    settings = Settings(bucket="my-bucket", backend_store_uri="postgresql+psycopg2://u@h/d")
    facts = deployed(settings, store="postgresql+psycopg2://u@h/d")
    given = case(settings, facts, databases={}, admins=None)
    assert findings(given) == []
    assert "database" not in unseen(given)
    silent = replace(facts, schema=None, schema_error="connection refused")
    finding = only(case(settings, silent, databases={}, admins=None))
    assert (finding.key, finding.severity) == ("store-unreachable", "problem")
    assert finding.type == ("./fab -H ec2 configure",)


def test_a_database_of_another_kind_is_not_looked_at():
    settings = Settings(bucket="my-bucket", backend_store_uri="mysql://u@h/d")
    facts = deployed(settings, store="mysql://u@h/d", schema=None)
    given = case(settings, facts, databases={}, admins=None)
    assert "database" in unseen(given)
    assert findings(given) == []


def test_an_environment_stands_in_what_is_to_be_typed():
    settings = Settings(bucket="my-bucket", environment="staging")
    names = (f"{settings.unit}.service", f"{settings.unit}.socket")
    facts = deployed(settings)
    facts = replace(facts, units=facts.units | dict.fromkeys(names, unit("inactive")))
    finding = only(case(settings, facts, **DOWN))
    assert finding.type == ("./fab -H ec2 use staging start",)


def test_an_environment_stands_in_what_is_to_be_done_too():
    staging = case(Settings(bucket="my-bucket", environment="staging"))
    finding = staging.finding(
        "key", "It is due: ./fab deploy", "seen", Remedy("Else: ./fab rollback")
    )
    assert finding.what == "It is due: ./fab -H ec2 use staging deploy"
    assert finding.remedy == "Else: ./fab -H ec2 use staging rollback"


@pytest.mark.parametrize(
    ("symptoms", "safe"),
    [({"modes": {"/x": "644"}}, True), ({"weak": ("admin",)}, False),
     ({"databases": database(writers={"42": STOPPED})}, False), ({"stranger": 200}, True)],
)  # fmt: skip
def test_only_what_can_do_no_harm_is_safe(symptoms, safe):
    assert only(case(**symptoms)).safe is safe


@pytest.mark.parametrize(
    ("mark", "key", "said"),
    [
        ({"server": "0badcafe", "host": "web2", "since": "2026-01-02T03:04:05Z"}, "taken-over",
         "taken over by the server 0badcafe on web2, at 2026-01-02T03:04:05Z"),
        ({}, "mark-gone", "no longer bears this server's mark"),
    ],
)  # fmt: skip
def test_a_prefix_that_is_another_s_now_is_a_problem(mark, key, said):
    finding = only(case(owner=mark))
    assert (finding.key, finding.severity, said in finding.what) == (key, "problem", True)
    assert finding.type == ("./fab -H ec2 verify deploy",)


@pytest.mark.parametrize(
    ("facts", "key", "type_"),
    [
        ({"owned": "1a2b3c4d@ip-10-0-0-1 s3://my-bucket/former at AWS"}, "place-changes",
         "./fab -H ec2 plan"),
        ({"elsewhere": "s3://my-bucket/former at AWS"}, "files-elsewhere",
         "./fab -H ec2 deploy --move-artifacts"),
    ],
)  # fmt: skip
def test_files_that_mlflow_does_not_find_are_a_problem(facts, key, type_):
    finding = only(case(SETTINGS, deployed(**facts)))
    assert finding.key == key
    assert "s3://my-bucket/former" in finding.what
    assert finding.type[0] == type_
