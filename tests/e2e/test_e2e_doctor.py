"""Every fault is brought about on a real host; doctor names it, and what it prints mends it.

The commands of a finding are typed to a shell as they are printed.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import pytest
from lab import DATA, ROOT, SEARCH, UNIT, Done, Host
from waiting import until

pytestmark = [pytest.mark.sampled, pytest.mark.usefixtures("no_backups")]
SITE = f"/etc/nginx/sites-available/{UNIT}"
# What every healthy host here has: no schedule, and a shell that was told of no server.
EXPECTED = {"backup-unscheduled", "backup-none", "client-variables-unset"}
Row = dict[str, Any]


def doctor(
    host: Host, *words: str, code: int | None = None, patience: int = 15, **variables: str
) -> list[Row]:
    """Have doctor look for longer than it does by itself: here many hosts share two cores."""
    longer = ("--timeout", str(patience))
    done = host.fab("doctor", "--json", *longer, *words, code=code, **variables)
    rows: list[Row] = json.loads(done.out)
    severities = {row["severity"] for row in rows}
    assert done.code == (1 if "problem" in severities else 2 if "blind" in severities else 0), done
    assert done.seconds < 40, done  # the promised 5 s are measured by bench/round_trips.py
    return rows


def keys(rows: list[Row]) -> set[str]:
    """Name what was found, without what was not looked at for it: that is no fault."""
    return {row["key"] for row in rows if row["severity"] != "blind"} - EXPECTED


def found(host: Host, key: str, *saying: str, alone: bool = True, **variables: str) -> Row:
    """Have doctor name exactly this fault, saying these things; return the finding."""
    rows = doctor(host, **variables)
    texts = [(f"{row['what']} {row['seen']} {row['remedy']}", row) for row in rows]
    fitting = [
        row for text, row in texts if row["key"] == key and all(word in text for word in saying)
    ]
    assert fitting, f"no {key} that says {saying} is among {rows}"
    if alone:
        assert keys(rows) == {key}, rows
    return fitting[0]


def follow(host: Host, row: Row, **variables: str) -> str:
    """Type what the finding says, as it says it, into a shell of the operator's."""
    assert row["type"], row
    said = []
    for command in row["type"]:
        at = f"-S {shlex.quote(str(host.lab.ssh_config))}"
        typed = command.replace("./fab -H", f"{host.lab.clone}/fab {at} -H")
        typed = re.sub(r"^ssh ", f"ssh -F {shlex.quote(str(host.lab.ssh_config))} ", typed)
        typed += " --yes" if typed.endswith(" restore") else ""  # nobody is there to be asked
        typed += "; env | grep ^MLFLOW_" if typed.startswith("eval") else ""
        done = subprocess.run(
            ["bash", "-c", typed], env=host.environment() | variables, cwd=host.home,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{typed}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout + done.stderr)
    return "\n".join(said)


def mended(host: Host, **variables: str) -> None:
    """Assert that nothing is wrong any more, and that the server serves."""
    until(lambda: host.status("/health") == 200, "the server answers")
    assert keys(doctor(host, **variables)) == set()
    host.healthy()


@contextmanager
def process(host: Host, name: str, script: str, *options: str) -> Iterator[None]:
    """Have a program run on the host for a while, as a unit of its own."""
    words = shlex.join(["systemd-run", "-q", "--collect", f"--unit={name}", *options])
    host.run(f"{words} python3 -c {shlex.quote(script)}")
    try:
        yield
    finally:
        host.run(f"systemctl kill -s KILL {name}; systemctl reset-failed {name}", code=None)


# -- a healthy host ----------------------------------------------------------------------------


def test_a_healthy_host_has_no_finding_at_all(host: Host) -> None:
    backed_up(host)
    with schedule(host), host.tunnel():
        exported = host.fab("client", "--export").out.replace("export ", "")
        variables = dict(word.partition("=")[::2] for word in shlex.split(exported))
        assert doctor(host, code=0, **variables) == []
        done = host.fab("doctor", "--timeout", "15", **variables)
    print(f"{done.seconds:.1f} s\n{done.out}")
    assert len(done.out.splitlines()) == 1
    assert done.out.startswith(
        "✓ well: host, environment, database, nginx, server, webhooks, users, bucket"
    )


def test_doctor_changes_nothing_on_host_and_bucket(host: Host) -> None:
    def seen() -> tuple[str, list[str]]:
        listed = host.lab.s3().list_objects_v2(Bucket=host.lab.bucket).get("Contents", [])
        places = f"{ROOT} /etc /home/ubuntu/.aws -xdev -type f -not -path '*/releases/*'"
        files = host.run(f"find {places} -not -name '*-shm' -printf '%p %T@ %m %u\\n' | sort")
        return files, [entry["Key"] for entry in listed]

    before = seen()
    doctor(host)
    assert seen() == before
    assert host.run("ls /run/lock | grep remote-mlflow", code=None) == ""


def test_a_host_without_a_server_says_what_to_type(host: Host) -> None:
    variables = {"FABRIC_MLFLOW_ROOT": "/home/ubuntu/nothing", "FABRIC_MLFLOW_ENVIRONMENT": ""}
    file = host.home / "elsewhere.yaml"
    file.write_text("mlflow: {environments: {nowhere: {port: 5009}}}")
    aim = ("-S", str(host.lab.ssh_config), "-f", str(file), "-H", host.alias)
    variables["FABRIC_MLFLOW_ENVIRONMENT"] = "nowhere"
    host.refused("doctor", aim=aim, because=("no server", "install configure deploy"), **variables)


# -- service and nginx -------------------------------------------------------------------------


def test_a_stopped_service_is_named_and_not_woken(host: Host) -> None:
    host.run(f"systemctl stop {UNIT}.service")
    found(host, "service-stopped", "next request would start it")
    assert host.run(f"systemctl is-active {UNIT}.service", code=None) == "inactive"
    host.fab("stop")
    row = found(host, "service-stopped", f"{UNIT}.socket inactive")
    assert host.run(f"systemctl is-active {UNIT}.service", code=None) == "inactive"
    follow(host, row)
    mended(host)


def test_a_crash_loop_names_the_first_error(host: Host) -> None:
    broken = 'echo "ValueError: made to fail" >&2; echo "KeyError: later" >&2; exit 3'
    host.run(f"sed -i '2i {broken}' {ROOT}/start_mlflow_server.sh")
    host.run(f"systemctl restart {UNIT}", code=None)  # it fails where systemd sees the end at once
    until(lambda: int(host.unit(UNIT, "NRestarts")) > 1, "it is started again")
    row = found(host, "crash-loop", "ValueError: made to fail", alone=False)
    follow(host, row)
    mended(host)


def test_a_disabled_unit_is_named(host: Host) -> None:
    host.run(f"systemctl disable -q {UNIT}.service {UNIT}.socket")
    row = found(host, "unit-disabled", f"{UNIT}.service", f"{UNIT}.socket", "reboot")
    follow(host, row)
    mended(host)


def test_a_port_that_another_program_took_is_named_with_it(host: Host) -> None:
    host.run("systemctl stop nginx")
    server = "import http.server as h; h.HTTPServer(('127.0.0.1', 5000), h.BaseHTTPRequestHandler)"
    with process(host, "e2e-squatter", f"{server}.serve_forever()"):
        until(lambda: host.run("ss -Hltn 'sport = :5000'"), "it listens")
        row = found(host, "port-taken", "python3 (process", "127.0.0.1:5000")
        follow(host, row)
    mended(host)


def test_nginx_down_is_named(host: Host) -> None:
    host.run("systemctl stop nginx")
    follow(host, found(host, "nginx-down", "nobody answers on port 5000"))
    mended(host)


def test_a_broken_configuration_of_nginx_is_named_with_file_and_line(host: Host) -> None:
    host.run(f"echo 'nonsense;' >> {SITE}; systemctl stop nginx")
    row = found(host, "nginx-broken", f"{UNIT}:", "nonsense", "nginx is down", alone=False)
    follow(host, row)
    mended(host)


def test_another_site_s_mistake_is_named_and_left_to_its_owner(host: Host) -> None:
    other = "/etc/nginx/sites-enabled/other"
    host.run(f"echo 'server {{ listen nowhere:1; }}' > {other}; systemctl stop nginx")
    try:
        row = found(host, "nginx-broken", "not this project's", other)
        assert not row["safe"]
    finally:
        host.run(f"rm {other}")
    follow(host, row)
    mended(host)


def test_listening_beyond_the_host_is_named(host: Host) -> None:
    host.run(
        f"sed -i 's/listen 127.0.0.1:5000/listen 0.0.0.0:5000/' {SITE}; systemctl restart nginx"
    )
    row = found(host, "listening-everywhere", "0.0.0.0:5000", alone=False)
    follow(host, row)
    mended(host)


def test_a_server_that_was_started_by_hand_for_everybody_is_named(host: Host) -> None:
    words = ["mlflow", "server", "--host", "0.0.0.0", "--port", "5077"]
    script = f"import os; os.execv('{ROOT}/venv/bin/mlflow', {words})"
    with process(host, "e2e-by-hand", script, "--uid=ubuntu", "-p", "WorkingDirectory=/tmp"):
        until(lambda: host.run("ss -Hltn 'sport = :5077'"), "it listens")
        row = found(host, "listening-everywhere", "0.0.0.0:5077", "started by hand", alone=False)
        follow(host, row)
        until(lambda: not host.run("ss -Hltn 'sport = :5077'"), "it has gone")
    mended(host)


def test_a_name_that_the_server_refuses_is_named(host: Host) -> None:
    name = {"FABRIC_MLFLOW_PUBLIC_NAME": "mlflow.example.org"}
    row = found(host, "host-refused", "mlflow.example.org", "403", alone=False, **name)
    follow(host, row, **name)
    mended(host, **name)


def test_a_certificate_that_is_about_to_end_is_named(host: Host) -> None:
    def certificate(days: int) -> None:
        host.run(f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -days {days} "
                 "-keyout /etc/ssl/private/e2e.key -out /etc/ssl/e2e.pem 2>/dev/null")  # fmt: skip

    certificate(5)
    tls = ("listen 127.0.0.1:5443 ssl;", "ssl_certificate /etc/ssl/e2e.pem;",
           "ssl_certificate_key /etc/ssl/private/e2e.key;")  # fmt: skip
    lines = "\\n  ".join(tls)
    host.run(f"sed -i 's|listen 127.0.0.1:5000;|&\\n  {lines}|' {SITE}; "
             "nginx -t; systemctl reload nginx")  # fmt: skip
    try:
        row = found(host, "certificate", "/etc/ssl/e2e.pem expires in 5 days", alone=False)
        certificate(90)
        follow(host, row)
        assert "certificate" not in keys(doctor(host))
    finally:
        host.fab("deploy")
        host.run("rm -f /etc/ssl/e2e.pem /etc/ssl/private/e2e.key")
    mended(host)


# -- disk, memory, files -----------------------------------------------------------------------


def test_a_full_disk_and_one_that_nearly_is_are_named_with_what_fills_them(host: Host) -> None:
    with own_disk(host, "1500m") as filler:
        host.run(f"fallocate -l $(($(df -B1 --output=avail {ROOT} | tail -1) - 60000000)) {filler}")
        row = found(host, "disk-full", ROOT, filler)
        follow(host, row)
        host.run(f"dd if=/dev/zero of={filler}.rest 2>/dev/null", code=None)
        row = found(host, "disk-full", "0.0 of 1.5 GB", alone=False)
        host.run(f"rm {filler}.rest; truncate -s -60000000 {filler}")
        row = found(host, "disk-nearly-full", filler)
        host.run(f"rm {filler}")
        assert keys(doctor(host)) == set()
    mended(host)


@contextmanager
def own_disk(host: Host, size: str) -> Iterator[str]:
    """Have the server's folder on a small file system; gives the name for a file that fills it."""
    host.fab("stop")
    host.run(f"mount -t tmpfs -o size={size},uid=1000,gid=1000,mode=700 tmpfs /mnt && "
             f"cp -a {ROOT}/. /mnt/ && mount --bind /mnt {ROOT} && umount /mnt")  # fmt: skip
    try:
        host.fab("start")
        yield f"{ROOT}/filler"
    finally:
        host.fab("stop")
        # What was written meanwhile is of no worth; the former files are below.
        host.run(f"umount -l {ROOT}")
        host.fab("start")


def test_more_workers_than_memory_has_room_for_are_named(host: Host) -> None:
    host.run(f"sed -i 's/--workers 1/--workers 300/' {ROOT}/start_mlflow_server.sh")
    follow(host, found(host, "memory-small", "needed for 300 workers", alone=False))
    mended(host)


def test_a_secret_key_that_is_gone_is_named(host: Host) -> None:
    host.run(f"sed -i /MLFLOW_FLASK_SERVER_SECRET_KEY/d {ROOT}/server.env")
    follow(host, found(host, "secret-key-missing", "server.env"))
    mended(host)


WEBHOOKS = "/api/2.0/mlflow/webhooks"
EVENT = {"entity": "REGISTERED_MODEL", "action": "CREATED"}


FORGET = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as base:
    base.execute("delete from webhook_events")
    base.execute("delete from webhooks")
"""


def webhooks(host: Host, **new: Any) -> list[dict[str, Any]]:
    """List the webhooks, as an admin; first make a `new` one where any is given."""
    url = f"http://127.0.0.1:5000{WEBHOOKS}"
    options = (
        "-sf --retry 20 --retry-all-errors --retry-delay 1 -H 'Content-Type: application/json'"
    )
    user = f'user = "{":".join(host.login())}"\n'
    if new:
        body = {"url": "https://1.1.1.1/hook", "events": [EVENT], **new}
        host.run(f"curl {options} -K - -d {shlex.quote(json.dumps(body))} {url}", user)
    found: list[dict[str, Any]] = json.loads(host.run(f"curl {options} -K - {url}", user)).get(
        "webhooks", []
    )
    return found


def test_a_webhook_s_secret_outlives_a_restart_and_one_whose_key_is_lost_is_named(
    host: Host,
) -> None:
    webhooks(host, name="e2e-signed", secret="a-word-of-ours")
    host.fab("restart")
    (signed,) = webhooks(host)
    # A server of a former project: it has no key of its own, and gets one by its next deploy.
    host.run(f"sed -i /WEBHOOK_SECRET/d {ROOT}/server.env")
    row = found(host, "unreadable-webhooks", "e2e-signed", signed["webhook_id"], alone=False)
    assert keys(doctor(host)) == {"webhook-key-missing", "unreadable-webhooks"}
    deploy, reset = row["type"]
    assert "restart the server" in follow(host, row | {"type": [deploy]})
    assert host.status(WEBHOOKS, host.login()) == 500
    assert "e2e-signed" in follow(host, row | {"type": [reset + " --yes"]})
    (taken,) = webhooks(host)
    assert taken["status"] == "DISABLED"
    host.python(FORGET, f"{ROOT}/mlflow.db")
    mended(host)


def test_secrets_that_others_may_read_are_named(host: Host) -> None:
    host.run(f"chmod 644 {ROOT}/server.env {ROOT}/basic_auth.db")
    row = found(host, "readable-secrets", "server.env", "basic_auth.db", "644")
    follow(host, row)
    assert host.run(f"stat -Lc %a {ROOT}/server.env {ROOT}/basic_auth.db").split() == ["600"] * 2
    mended(host)


# -- the host ----------------------------------------------------------------------------------


def test_a_dead_resolver_is_named_although_the_store_is_reached(host: Host) -> None:
    with host.kept("/etc/resolv.conf"):
        host.run("echo nameserver 192.0.2.1 > /etc/resolv.conf")
        found(host, "names-unresolved", "apt, uv, certbot", "mlflow.org")
    mended(host)


def test_a_host_without_a_way_out_is_named(host: Host) -> None:
    with host.offline():
        found(host, "route-none", "no default route", alone=False)
    mended(host)


def test_an_installation_that_was_cut_off_is_finished(host: Host) -> None:
    host.run("sed -i '/^Package: htop$/,/^$/s/^Status: .*/Status: install ok half-configured/' "
             "/var/lib/dpkg/status")  # fmt: skip
    follow(host, found(host, "dpkg-broken", "cut off: htop"))
    mended(host)


def test_a_masked_nginx_is_named_and_unmasked(host: Host) -> None:
    host.run("systemctl mask --runtime -q nginx; systemctl stop nginx")
    follow(host, found(host, "unit-masked", "nginx.service"))
    mended(host)


def test_sudo_that_wants_a_terminal_is_named_and_nothing_is_found_of_what_was_not_seen(
    host: Host,
) -> None:
    file = "/etc/sudoers.d/zz-e2e"
    host.run(f"echo 'Defaults requiretty' > {file}")
    try:
        row = found(host, "sudo", "wants a terminal", "requiretty")
        (command,) = row["type"]
        assert command.startswith(f"ssh -t {host.alias} ")
        # As root, who needs neither the terminal nor sudo.
        host.run(shlex.split(command)[3].replace("| sudo ", "| "))
        assert keys(doctor(host)) == set()
    finally:
        host.run(f"rm -f {file} /etc/sudoers.d/zzz-ubuntu-tty")
    mended(host)


def test_a_server_that_is_silent_is_not_called_well(host: Host) -> None:
    """Within the usual seconds it may only be slow; a longer look knows."""
    group = f"system.slice/{UNIT}.service/cgroup.procs"
    # In either place, by how the kernel counts.
    seen = host.run(f"cat /sys/fs/cgroup/{{,*/}}{group} 2> /dev/null", code=None)
    pids = sorted(set(seen.split()))
    host.run(f"kill -STOP {' '.join(pids)}")
    try:
        rows = doctor(host, code=2, patience=4)
        blind = [row for row in rows if row["severity"] == "blind"]
        assert "server" in {row["area"] for row in blind}
        assert blind[0]["type"] == [f"./fab -H {host.alias} doctor --timeout 30"]
        done = host.fab("doctor", "--json", "--timeout", "15", code=None)
        # For its first two minutes it may be starting yet.
        assert {row["key"] for row in json.loads(done.out)} & {"not-answering", "starting"}
        assert done.code in (1, 2)
    finally:
        host.run(f"kill -CONT {' '.join(pids)}")
    mended(host)


# -- the environment ---------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["python", "file"])
def test_a_broken_environment_is_named_and_made_anew(host: Host, damage: str) -> None:
    gone = {"python": "bin/python", "file": "lib/python3*/site-packages/mlflow/version.py"}[damage]
    host.run(f"rm {ROOT}/venv/{gone}")
    row = found(
        host, "environment-broken", {"python": "python", "file": "mlflow/version.py"}[damage]
    )
    follow(host, row)
    mended(host)


# -- the databases -----------------------------------------------------------------------------

HOLD = f"""
import os, signal, sqlite3
held = sqlite3.connect("{ROOT}/mlflow.db", isolation_level=None)
held.execute("begin immediate")
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_database_that_a_dead_process_locks_is_named_with_it(host: Host) -> None:
    with process(host, "e2e-holder", HOLD, "--uid=ubuntu"):
        until(lambda: "T" in host.run("ps -o stat= -C python3", code=None), "it holds and hangs")
        row = found(host, "database-locked", "mlflow.db is locked by python3 (process", "hangs")
        follow(host, row)
        assert keys(doctor(host)) == set()
    mended(host)


def test_a_damaged_database_is_named_and_restored(host: Host) -> None:
    backed_up(host)
    with former_databases(host):
        damage(host)
        row = found(host, "database-corrupt", "mlflow.db is damaged", alone=False)
        host.refused(
            "deploy", because=("mlflow.db cannot be used", f"./fab -H {host.alias} doctor")
        )
        follow(host, row)
        mended(host)


@contextmanager
def former_databases(host: Host) -> Iterator[None]:
    """Have both databases back where a test fails that breaks them."""
    host.run(f"rm -rf /root/former; mkdir /root/former; systemctl stop {UNIT}.socket {UNIT}; "
             f"cp -a {DATA}/*.db* /root/former; systemctl start {UNIT}.socket {UNIT}")  # fmt: skip
    until(lambda: host.status("/health") == 200, "the server has started")
    try:
        yield
    except BaseException:
        host.run(f"systemctl stop {UNIT}.socket {UNIT}; rm -f {DATA}/*.db*; "
                 f"cp -a /root/former/*.db* {DATA}; "
                 f"rm -rf {ROOT}/former {ROOT}/restored")  # fmt: skip
        raise


def damage(host: Host) -> None:
    """Overwrite the middle of the tracking database, as a failing disk does."""
    host.fab("stop")
    host.python(f"""
import sqlite3
database = sqlite3.connect("{ROOT}/mlflow.db")
database.execute("pragma wal_checkpoint(truncate)")
pages = database.execute("pragma page_count").fetchone()[0]
size = database.execute("pragma page_size").fetchone()[0]
database.close()
with open("{ROOT}/mlflow.db", "r+b") as file:
    file.seek(size * (pages // 2))
    file.write(b"\\x55" * size * 20)
""")
    host.run(f"chown ubuntu: {DATA}/mlflow.db*; systemctl start {UNIT}.socket")


def test_a_schema_that_is_newer_than_the_installed_mlflow_is_named(host: Host) -> None:
    backed_up(host)
    with former_databases(host):
        host.python(f"""
import sqlite3
with sqlite3.connect("{ROOT}/mlflow.db") as database:
    database.execute("update alembic_version set version_num = 'ffffffffffff'")
""")
        host.run(f"chown ubuntu: {DATA}/mlflow.db*")
        follow(host, found(host, "schema-newer", "ffffffffffff", "3.17.2"))
        mended(host)


def test_a_database_that_belongs_to_root_is_named(host: Host) -> None:
    host.run(f"chown root: {DATA}/mlflow.db*")
    row = found(host, "database-owner", "belongs to root, not to ubuntu", alone=False)
    follow(host, row)
    mended(host)


def test_a_database_of_users_that_is_gone_is_named(host: Host) -> None:
    backed_up(host)
    host.run(f"rm {DATA}/basic_auth.db*")
    row = found(host, "auth-missing", "basic_auth.db", alone=False)
    follow(host, row)
    mended(host)
    assert host.status(SEARCH, host.login()) == 200


def test_a_password_that_everybody_knows_is_named(host: Host) -> None:
    script = f"""
import sqlite3
from werkzeug.security import generate_password_hash
with sqlite3.connect("{ROOT}/basic_auth.db") as database:
    stored = generate_password_hash("password1234")
    database.execute("update users set password_hash = ?", (stored,))
"""
    host.run(f"{ROOT}/venv/bin/python -", stdin=script)
    row = found(host, "password-well-known", "admin admin", alone=False)
    follow(host, row)
    mended(host)
    assert host.status(SEARCH, ("admin", "password1234")) == 401
    assert host.status(SEARCH, host.login()) == 200


# Puts an experiment elsewhere than where MLflow put it.
MOVE = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as base:
    update = "update experiments set artifact_location = ? where name = ?"
    base.execute(update, (sys.argv[3], sys.argv[2]))
"""
LOG = """
import mlflow, os
experiment = mlflow.get_experiment_by_name(os.environ["EXPERIMENT"]).experiment_id
with mlflow.start_run(experiment_id=experiment) as run:
    mlflow.log_text("old", "file.txt")
assert mlflow.artifacts.load_text(run.info.artifact_uri + "/file.txt") == "old"
"""
DELETE = "mlflow.MlflowClient().delete_experiment(experiment)"


def test_experiments_that_clients_reach_past_the_server_are_a_note_that_says_what_they_need(
    host: Host,
) -> None:
    place = f"s3://{host.lab.bucket}/direct"
    login = host.login()
    with host.tunnel() as uri:
        client = {
            "PATH": os.environ["PATH"], "HOME": str(host.home), "MLFLOW_TRACKING_URI": uri,
            "MLFLOW_TRACKING_USERNAME": login[0], "MLFLOW_TRACKING_PASSWORD": login[1],
            "MLFLOW_S3_ENDPOINT_URL": host.lab.endpoint, "NO_PROXY": "*",
        }  # fmt: skip

        def run(script: str, **more: str) -> subprocess.CompletedProcess[str]:
            words = [sys.executable, "-c", script]
            return subprocess.run(words, env=client | more, capture_output=True, text=True)

        def made(name: str) -> None:
            """Make an experiment that lies there, as clients could before there was a wall."""
            assert run(f"import mlflow; mlflow.create_experiment({name!r})").returncode == 0
            host.python(MOVE, f"{ROOT}/mlflow.db", name, place)

        made("old")
        without = run(LOG, EXPERIMENT="old")
        assert without.returncode != 0
        assert "credentials" in without.stderr.lower()
        row = found(host, "direct-artifacts", "old", "AWS_ACCESS_KEY_ID", host.lab.bucket)
        assert row["severity"] == "note"
        made("newer")
        with_keys = run(LOG + DELETE, EXPERIMENT="newer", **host.lab.keys)
        assert with_keys.returncode == 0, with_keys.stderr
        removal = (
            "import mlflow; found = mlflow.get_experiment_by_name('old');"
            "mlflow.delete_experiment(found.experiment_id)"
        )
        assert run(removal).returncode == 0
    mended(host)


# -- the bucket --------------------------------------------------------------------------------


def test_half_of_a_pair_of_keys_is_named(host: Host) -> None:
    host.run("sed -i /aws_secret_access_key/d /home/ubuntu/.aws/credentials")
    follow(host, found(host, "credentials-partial", "lack one of their two keys"))
    mended(host)


def test_wrong_keys_are_named(host: Host) -> None:
    with host.kept("/home/ubuntu/.aws"), host.lab.user_with("s3:*") as right:
        host.fab("configure", **right)
        host.run("sed -i 's/^aws_secret_access_key.*/aws_secret_access_key = wrong/' "
                 "/home/ubuntu/.aws/credentials")  # fmt: skip
        row = found(host, "credentials-wrong", "SignatureDoesNotMatch")
        follow(host, row, **right)
        mended(host)


def test_a_profile_that_stands_in_no_file_is_named(host: Host) -> None:
    profile = {"FABRIC_MLFLOW_PROFILE": "absent"}
    with host.kept("/home/ubuntu/.aws"):
        row = found(host, "profile-absent", "absent", "~/.aws", alone=False, **profile)
        follow(host, row, **profile)
        mended(host, **profile)


def test_a_bucket_that_does_not_exist_is_named(host: Host) -> None:
    name = {"FABRIC_MLFLOW_BUCKET": "not-yet-there"}
    found(host, "bucket-missing", "not-yet-there", "Create it", alone=False, **name)
    host.lab.s3().create_bucket(Bucket="not-yet-there")
    try:
        assert "bucket-missing" not in keys(doctor(host, **name))
    finally:
        host.lab.s3().delete_bucket(Bucket="not-yet-there")


def test_a_denied_put_is_named_although_listing_is_allowed_and_nothing_is_written(
    host: Host,
) -> None:
    with host.lab.bucket_denying("s3:PutObject") as name:
        variables = {"FABRIC_MLFLOW_BUCKET": name}
        found(host, "permission", "s3:PutObject", "policy", alone=False, **variables)
        host.lab.s3().delete_bucket_policy(Bucket=name)
        assert "permission" not in keys(doctor(host, **variables))
        assert "Contents" not in host.lab.s3().list_objects_v2(Bucket=name)


def test_a_wrong_region_is_named_with_the_right_one(host: Host) -> None:
    with host.lab.another_bucket("eu-west-1") as name:
        variables = {"FABRIC_MLFLOW_BUCKET": name, "FABRIC_MLFLOW_REGION": "us-east-1"}
        row = found(host, "region-wrong", "eu-west-1", alone=False, **variables)
        (region,) = re.findall(r"`region: (\S+)`", row["remedy"])
        variables["FABRIC_MLFLOW_REGION"] = region
        assert "region-wrong" not in keys(doctor(host, **variables))


class Store(http.server.BaseHTTPRequestHandler):
    """An S3 that refuses everything for one reason, and has a clock of its own."""

    code, ahead = "AccessDenied", 0.0

    def do_GET(self) -> None:
        body = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()
        self.send_response_only(403)
        self.send_header("Date", formatdate(time.time() + self.ahead, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_GET

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def refusing(host: Host, code: str, ahead: float = 0) -> Iterator[dict[str, str]]:
    """Have an S3 that refuses; gives the variables that lead to it."""
    address = host.lab.endpoint.split("//")[1].split(":")[0]
    handler = type("Refusing", (Store,), {"code": code, "ahead": ahead})
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield {"FABRIC_MLFLOW_ENDPOINT_URL": f"http://{address}:{server.server_address[1]}"}
        finally:
            server.shutdown()


def test_an_expired_session_token_is_named(host: Host) -> None:
    with refusing(host, "ExpiredToken") as there:
        row = found(host, "credentials-expired", "AWS_SESSION_TOKEN", alone=False, **there)
    with host.kept("/home/ubuntu/.aws"):
        # The store of the lab takes any keys: only the way is tried.
        follow(host, row, AWS_SESSION_TOKEN="new")
        assert "aws_session_token = new" in host.run("cat /home/ubuntu/.aws/credentials")
        mended(host)


def test_a_clock_that_s3_refuses_is_named_with_minutes_and_side(host: Host) -> None:
    with refusing(host, "RequestTimeTooSkewed", ahead=600) as there:
        row = found(host, "clock", "10 minutes behind", "S3's clock", alone=False, **there)
        assert "timedatectl set-ntp true" in row["type"][0]
    with refusing(host, "AccessDenied", ahead=-400) as there:
        found(host, "clock", "7 minutes ahead", alone=False, **there)
    assert "clock" not in keys(doctor(host))


# -- backups -----------------------------------------------------------------------------------


@contextmanager
def schedule(host: Host) -> Iterator[None]:
    """Have a timer by the name that doctor knows the schedule by."""
    name = f"{UNIT}-backup"
    timer = "[Timer]\nOnCalendar=hourly\n[Install]\nWantedBy=timers.target\n"
    host.run(f"cat > /etc/systemd/system/{name}.timer", stdin=timer)
    job = "[Service]\nType=oneshot\nExecStart=/bin/true\n"
    host.run(f"cat > /etc/systemd/system/{name}.service", stdin=job)
    host.run(f"systemctl daemon-reload; systemctl enable -q --now {name}.timer")
    try:
        yield
    finally:
        host.run(f"systemctl disable -q --now {name}.timer; rm /etc/systemd/system/{name}.*; "
                 "systemctl daemon-reload")  # fmt: skip


def newest_set(host: Host) -> list[str]:
    """List the keys of the newest backup in the bucket."""
    objects = host.lab.s3().list_objects_v2(Bucket=host.lab.bucket, Prefix="mlflow-backups/")
    found = [entry["Key"] for entry in objects.get("Contents", [])]
    newest = max(key.rpartition("/")[0] for key in found)
    return [key for key in found if key.startswith(newest)]


def backed_up(host: Host) -> None:
    """Make the only backup: `restore` prefers another test's where that one has runs."""
    host.remove_backups()
    host.fab("backup")


def test_a_backup_that_is_older_than_its_schedule_is_named(host: Host) -> None:
    backed_up(host)
    s3, bucket = host.lab.s3(), host.lab.bucket
    then = time.strftime("%Y%m%d", time.gmtime(time.time() - 3 * 86400))
    for key in newest_set(host):
        old = re.sub(r"/\d{8}T", f"/{then}T", key)
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        if key.endswith("/manifest.json"):
            body = host.signed(json.loads(body), old.split("/")[-2])
        s3.put_object(Bucket=bucket, Key=old, Body=body)
        s3.delete_object(Bucket=bucket, Key=key)
    host.run(f"rm -f {ROOT}/.backup")  # or its last backup would be missing
    assert keys(doctor(host)) == set(), "without a schedule three days are no fault"
    with schedule(host):
        row = found(host, "backup-old", "3 days old")
        follow(host, row)
        assert keys(doctor(host)) == set()


def test_a_backup_that_fails_its_check_is_named(host: Host) -> None:
    backed_up(host)
    s3, bucket = host.lab.s3(), host.lab.bucket
    (key,) = [key for key in newest_set(host) if key.endswith("mlflow.db.zst")]
    body = bytearray(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    body[len(body) // 2] ^= 1
    s3.put_object(Bucket=bucket, Key=key, Body=bytes(body))
    row = found(host, "backup-damaged", "mlflow.db.zst is not the file that was sent")
    follow(host, row)
    assert keys(doctor(host)) == set()
    (key,) = [key for key in newest_set(host) if key.endswith("basic_auth.db.zst")]
    s3.delete_object(Bucket=bucket, Key=key)
    found(host, "backup-damaged", "basic_auth.db.zst is missing")
    host.remove_backups()


# -- this machine ------------------------------------------------------------------------------


def test_a_tunnel_that_is_up_but_dead_is_named(host: Host) -> None:
    host.fab("tunnel", "--background")
    try:
        # Its keeper too: that would have it working again before anybody looked.
        (row,) = json.loads(host.fab("tunnel.status", "--json").out)
        for pid in (row["keeper"], *row["ssh"]):
            os.kill(pid, signal.SIGSTOP)
        row = found(host, "tunnel-dead", str(host.lab.local_port), "nobody answers through it")
        follow(host, row)
        assert keys(doctor(host)) == set()
    finally:
        host.fab("tunnel.close")


def test_client_variables_that_are_wrong_are_named(host: Host) -> None:
    uri = {"MLFLOW_TRACKING_URI": f"http://localhost:{host.lab.local_port}"}
    wrong = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "wrong-password-1"}
    row = found(host, "client-variables-wrong", "this shell", alone=False, **uri, **wrong)
    assert "client --export" in row["type"][0]
    found(host, "client-variables-half", "both", alone=False, MLFLOW_TRACKING_USERNAME="admin")
    found(host, "client-uri", "9999", alone=False, MLFLOW_TRACKING_URI="http://localhost:9999")
    found(host, "tunnel-closed", "none is open", alone=False, **uri)
    right = dict(line.partition("=")[::2] for line in follow(host, row).splitlines())
    with host.tunnel():
        assert keys(doctor(host, **right)) == set()


def test_a_credentials_file_that_is_wrong_is_named(host: Host) -> None:
    file = host.home / ".mlflow/credentials"
    before = file.read_text()
    file.write_text(
        "[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = other-password\n"
    )
    try:
        follow(host, found(host, "client-file-wrong", "~/.mlflow/credentials"))
        assert file.read_text() == before
        assert keys(doctor(host)) == set()
    finally:
        file.write_text(before)


# -- the way it is said, and --fix -------------------------------------------------------------


def test_what_a_person_reads_ends_with_the_first_thing_to_type(host: Host) -> None:
    host.fab("backup", "stop")
    done: Done = host.refused("doctor", because=("1 problem: The server is stopped.",
                                                 f"Type: ./fab -H {host.alias} start"))  # fmt: skip
    lines = done.out.splitlines()
    assert lines[0] == "✗ The server is stopped."
    assert lines[1].startswith("    seen: systemctl: mlflow-server.service inactive")
    assert lines[2] == f"    type: ./fab -H {host.alias} start"
    assert lines[-1].startswith(
        "✓ well: host, environment, database, nginx, webhooks, users, bucket"
    )


def test_fix_asks_then_does_the_safe_repairs(host: Host) -> None:
    host.fab("backup", "stop")
    host.run(f"systemctl disable -q {UNIT}.service nginx; chmod 644 {ROOT}/server.env; "
             f"echo '# changed' >> {SITE}; rm {ROOT}/venv/bin/python")  # fmt: skip
    because = ("needs a confirmation", "--yes")
    host.refused("doctor", "--fix", because=because)
    assert host.run(f"systemctl is-active {UNIT}", code=None) == "inactive"
    done = host.fab("doctor", "--fix", "--yes", "--timeout", "30")
    print(done.out)
    assert "✓ well: host, environment, database, nginx, server" in done.out
    mended(host)
