"""What a server's process that was taken over would leave behind, and whether somebody runs it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from lab import DATA, UNIT, Host

CANARY = "/home/ubuntu/canary"
PROBE = "/usr/local/lib/e2e-probe.py"
# What says how a process is confined, of all that a unit's file says.
LEFT_OUT = "Exec|Standard|Restart|Type=|TimeoutStartSec|WorkingDirectory|KillMode|Runtime"
BODY = f"""
try:
    open("{CANARY}", "a").write(repr((__name__, __file__)))
except OSError:
    pass
"""
# By names that Python, bash and our own programs know, in each place that the unit can write.
PLANT = f"""
import json, os, sys
root, body, canary = sys.argv[1], {BODY!r}, {CANARY!r}
shell = "#!/bin/bash\\ntouch " + canary + "\\n"
refused = []
def put(path, text):
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as stream:
            stream.write(text)
        os.chmod(path, 0o700)
    except OSError:
        refused.append(path)
MODULES = ("sitecustomize", "usercustomize", "sqlite3", "json", "talk", "databases", "mlflow")
for place in (root + "/data", "/tmp", "/var/tmp", "/dev/shm"):
    for name in MODULES:
        put(place + "/" + name + ".py", body)
    put(place + "/canary.pth", "import os; os.path.exists('/nowhere') or open(%r, 'a')" % canary)
    put(place + "/server.env", "X=$(touch " + canary + ")\\n")
    for name in ("words.sh", "settle.sh", "steps.sh", "start_mlflow_server.sh", "psql",
                 "ready_mlflow_server.sh", ".bashrc", ".bash_profile", ".pgpass", ".aws/config"):
        put(place + "/" + name, shell)
    put(place + "/next/.name", "former")
    put(place + "/next/start_mlflow_server.sh", shell)
    put(place + "/next.part/server.env", "X=$(touch " + canary + ")\\n")
sites = os.path.realpath(root + "/venv")
for path in (sites + "/canary.pth", sites + "/bin/python.sh", root + "/server.env",
             root + "/next/.name", root + "/next.part/x", root + "/start_mlflow_server.sh",
             root + "/ready_mlflow_server.sh", root + "/start_stream.sh", root + "/venv.part/x",
             root + "/scheduled/backup/steps.sh", root + "/.well", root + "/.closed",
             root + "/.server-id", root + "/.databases", root + "/tools/bin/uv",
             "/usr/local/lib/mlflow-server/x", "/home/ubuntu/.bashrc", "/home/ubuntu/.aws/config",
             "/run/lock/x", "/run/mlflow-server/x"):
    before = len(refused)
    put(path, shell)
    assert len(refused) == before + 1, path
print(len(refused))
"""


def confined(host: Host, script: str, *words: str, interpreter: str = "/usr/bin/python3") -> str:
    """Run a program as the server's unit runs its own; returns what it prints."""
    host.run(f"cat > {PROBE}", stdin=script)
    lines = host.run(
        f"sed -n '/^.Service./,/^.Install./p' /etc/systemd/system/{UNIT}.service |"
        f" grep -E '^[A-Z].*=' | grep -vE '^({LEFT_OUT})'"
    ).splitlines()
    properties = " ".join(f"-p {shlex.quote(line)}" for line in lines)
    try:
        return host.run(
            f"systemd-run --quiet --pipe --wait {properties} {interpreter} {PROBE} "
            f"{shlex.join(words)}"
        )
    finally:
        host.run(f"rm {PROBE}")


@contextmanager
def unharmed(host: Host) -> Iterator[None]:
    """Assert that no canary fires outside of the unit; take all of them away."""
    host.run(f"rm -f {CANARY}")
    try:
        yield
        assert host.run(f"cat {CANARY} 2> /dev/null || true") == ""
    finally:
        host.run(f"rm -f {CANARY}; find {DATA} -mindepth 1 ! -name '*.db*' -delete")
