"""The process's wall: what the server's unit can write is data to all who are outside of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest
from canaries import CANARY, PLANT, confined, unharmed
from lab import CHAIN, DATA, ROOT, SEARCH, UNIT, Host
from waiting import until

from tasks.engine.templates import source

WRITABLE = """
import json, os, stat
found = []
def write(path, flags):
    try:
        os.close(os.open(path, os.O_WRONLY | flags))
    except OSError:
        return False
    return True
for folder, folders, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys")):
        folders[:] = []
        continue
    new = folder + "/.e2e"
    if write(new, os.O_CREAT):
        os.unlink(new)
        found.append(folder)
    for name in files:
        path = os.path.join(folder, name)
        if stat.S_ISREG(os.lstat(path).st_mode) and write(path, 0):
            found.append(path)
print(json.dumps(found))
"""
REACH = """
import ctypes, json, os, sys
root, other, seen = sys.argv[1], sys.argv[2], []
def refused(what, call):
    try:
        call()
    except OSError:
        return
    seen.append(what)
def read(path):
    os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
for name in ("root", "cwd", "environ", "mem", "maps", "fd"):
    refused(name, lambda: read(f"/proc/{other}/{name}"))
hidden = [root + "/" + name for name in (".lock", ".hold", "audit.log", "backups")]
for path in [*hidden, "/run/lock", "/run/credentials", "/run/mlflow-server-stream", "/var/log",
             "/home/ubuntu/.ssh"]:
    refused(path, lambda: read(path))
os.chdir(root + "/data")
refused("symlink", lambda: os.symlink("/etc", "link"))
refused("link", lambda: os.link("mlflow.db", "hard"))
refused("fifo", lambda: os.mkfifo("fifo"))
refused("device", lambda: os.mknod("device", 0o20600, os.makedev(1, 3)))
def by_number(number):
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(number, 1, 0, 0, 0) < 0 and ctypes.get_errno() == 1:
        raise PermissionError
refused("io_uring_setup", lambda: by_number(425))
seen += os.listdir("/dev/shm") + os.listdir("/dev/mqueue")
print(json.dumps(seen))
"""


def test_what_the_unit_can_write_is_its_databases_and_temporary_files(host: Host) -> None:
    found = json.loads(confined(host, WRITABLE))
    ours = {path for path in found if path != DATA and not path.startswith(DATA + "/")}
    # Each is the unit's own, and goes with it.
    hidden = {"/home", "/root", "/run/user"}
    assert ours - hidden == {"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"}
    confined(host, f"for each in {sorted(ours)}: open(each + '/e2e-left', 'w').close()")
    assert host.run("find / -name e2e-left -not -path '/proc/*' 2> /dev/null || true") == ""
    assert f"{DATA}/mlflow.db" in found


def test_the_unit_looks_into_no_other_process_and_makes_no_link(host: Host) -> None:
    host.run("systemd-run -q --unit=e2e-other --uid=ubuntu sleep 600; ipcmk -M 100 > /dev/null")
    host.run("touch /dev/shm/e2e")
    try:
        other = host.unit("e2e-other", "MainPID")
        assert json.loads(confined(host, REACH, ROOT, other)) == []
    finally:
        host.run("systemctl stop e2e-other; rm /dev/shm/e2e")


def test_the_unit_is_confined_as_it_was(host: Host) -> None:
    host.fab("backup.schedule", "backup.stream", "on")
    try:
        for name in (UNIT, f"{UNIT}-stream", f"{UNIT}-backup"):
            said = host.run(f"systemd-analyze security --no-pager {name} | tail -1")
            assert float(said.split(": ")[1].split()[0]) <= 1.5, said
    finally:
        host.fab("backup.stream", "off", "backup.schedule", "--off")


@pytest.fixture
def role(host: Host) -> Iterator[None]:
    host.lab.rehearsal.lend_role()
    try:
        yield
    finally:
        host.lab.rehearsal.lend_role(False)


ASK = """
import socket
try:
    socket.create_connection(("169.254.169.254", 80), timeout=5)
    print("answered")
except OSError as error:
    print("refused")
"""


def test_a_server_with_keys_of_its_own_reaches_no_role(host: Host, role: None) -> None:
    assert "IPAddressDeny=169.254.169.254" in host.run(f"systemctl cat {UNIT}")
    assert host.python(ASK) == "answered"
    alone = f"systemd-run --quiet --pipe --wait -p IPAddressDeny=any python3 -c {shlex.quote(ASK)}"
    if host.run(alone) == "answered":
        pytest.skip("systemd has no way to filter by address in this container")
    assert confined(host, ASK) == "refused"


# -- canaries --------------------------------------------------------------------------------------

TASKS = (
    ("status",), ("doctor",), ("audit",), ("install",), ("configure",), ("deploy",), ("verify",),
    ("backup",), ("backup.verify",), ("backup.list",), ("users.list",), ("gc",), ("restart",),
    ("upgrade", "--check"), ("restore", "--yes"), ("rollback", "--yes"),
)  # fmt: skip


@pytest.mark.sampled
def test_nothing_that_the_unit_leaves_is_run_outside_of_it(host: Host) -> None:
    host.fab("backup.schedule")
    with unharmed(host):
        confined(host, PLANT, ROOT)
        for words in TASKS:
            done = host.fab(*words, code=None, timeout=600)
            well = words[0] in ("doctor", "audit", "gc") or done.code == 0
            assert well, done
            assert host.run(f"ls {CANARY} 2> /dev/null || true") == "", words
        for name in ("backup", "backup-verify"):
            host.run(f"systemctl start {UNIT}-{name}.service")
        host.healthy()
    host.fab("backup.schedule", "--off")


# What a process that was taken over could lay in the database's place, and which word says so.
REPLACED = {
    "folder": "os.mkdir(path)",
    "garbage": "open(path, 'wb').write(os.urandom(100_000))",
    "empty": "open(path, 'wb')",
    "holes": "open(path, 'wb').truncate(200 << 30)",
    "socket": "socket.socket(socket.AF_UNIX).bind(path)",
    "schema": (
        "base = sqlite3.connect(path); base.executescript('create table alembic_version (n);"
        "create view runs as with recursive n(i) as (select 1 union all select i + 1 from n)"
        ' select i as run_uuid, i as start_time from n; create table "a"" b; drop" (n);'
        "create trigger t before insert on alembic_version begin select load_extension(1); end;')"
    ),
}


@pytest.mark.sampled
@pytest.mark.parametrize("what", REPLACED)
def test_each_task_says_in_one_line_what_is_wrong_with_a_replaced_database(
    host: Host, what: str
) -> None:
    script = (
        "import os, socket, sqlite3, sys\npath = sys.argv[1]\n"
        "os.rename(path, path + '.kept')\n"
        f"{REPLACED[what]}\n"
    )
    host.run(f"systemctl stop {UNIT}.socket {UNIT}.service")
    confined(host, script, f"{DATA}/mlflow.db")
    try:
        host.fab("status", code=None, timeout=120)
        host.refused("backup", because=("database", "doctor"), timeout=200)
        host.fab("doctor", code=1, timeout=120)
    finally:
        host.run(
            f"systemctl stop {UNIT}.socket {UNIT}.service; cd {DATA};"
            " rm -rf mlflow.db mlflow.db-*; mv mlflow.db.kept mlflow.db"
        )
        host.fab("start")
    host.healthy()


# -- a server of before ----------------------------------------------------------------------------


def as_before(host: Host) -> None:
    """Have the server as it was before its databases lay apart, and its unit wrote all of root."""
    script = source("settle.sh")
    unit, start = f"/etc/systemd/system/{UNIT}.service", f"{ROOT}/start_mlflow_server.sh"
    host.run("cat > /opt/settle.sh", stdin=script)
    host.run(
        f"systemctl stop {UNIT}.socket {UNIT}.service {UNIT}-stream; "
        f"runuser -u ubuntu -- bash -c 'root={ROOT}; . /opt/settle.sh; keep_together'; "
        f"rm {ROOT}/ready_mlflow_server.sh; "
        "sed -i '/^ExecStartPre/d; /^InaccessiblePaths/d; /^ReadOnlyPaths/d;"
        f" s#^ReadWritePaths=.*#ReadWritePaths={ROOT}#' {unit}; "
        f"sed -i '/^if . -w . /,/^fi/d' {start}; "
        f"sed -i 's#/data/#/#' {ROOT}/stream.yml; systemctl daemon-reload; "
        f"systemctl start {UNIT}.socket {UNIT}.service; "
        f"test ! -L {ROOT}/mlflow.db; rm /opt/settle.sh"
    )
    until(lambda: host.status("/health") == 200, "the server of before serves", 120)


def test_a_server_of_before_is_brought_over_within_one_restart(host: Host) -> None:
    host.fab("backup.schedule", "backup.stream", "on", "backup")
    as_before(host)
    login = host.login()
    runs = host.fab("status", "--json").out
    stream = host.run(f"cat {ROOT}/.stream")
    before = host.unit(f"{UNIT}.service", "InvocationID")
    try:
        host.fab("deploy")
        assert host.unit(f"{UNIT}.service", "InvocationID") != before
        assert host.unit(f"{UNIT}.service", "NRestarts") == "0"
        host.healthy()
        assert host.run(f"readlink {ROOT}/mlflow.db {ROOT}/basic_auth.db").split() == [
            "data/mlflow.db", "data/basic_auth.db",
        ]  # fmt: skip
        assert host.status(SEARCH, login) == 200
        kept = [json.loads(said)[0]["runs"] for said in (runs, host.fab("status", "--json").out)]
        assert kept[0] == kept[1]
        assert host.run(f"cat {ROOT}/.stream") != stream, "a new stream has begun"
        host.fab("backup.stream", "verify")
        assert host.fab(*CHAIN).out.count("nothing to change") == 3
        host.fab("restore", "--yes", timeout=600)
        host.fab("rollback", "--yes", timeout=600)
        host.healthy()
        assert "nothing to change" in host.fab("deploy").out
    finally:
        host.fab("backup.stream", "off", "backup.schedule", "--off")
