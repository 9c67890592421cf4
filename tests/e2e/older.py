"""A host with the former MLflow release and a backup, put back as it was for each test.

Two states can be told apart in each of its parts: what was there when the backup was made, and what
is there now (a mark in both databases). So a mixture of old and new shows.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import CHAIN, ROOT, SEARCH, UNIT, Host
from load import ROWS
from waiting import until

from tasks.changes import backup
from tasks.engine import templates
from tasks.engine.settings import Settings

OLDER, NEWER = "3.16.0", "3.17.2"
KEPT = "/root/older"  # the server's state as each test begins with it
PROGRAMS = "/opt/remote-mlflow"  # the host's side of the project, to run parts of it by hand
SETS = "mlflow-backups/default/"
# A run that was acknowledged has its parameter and its metric.
WHOLE = (
    "select run_uuid from runs join params using (run_uuid) join latest_metrics using (run_uuid)"
)
# Programs that an operator's task runs on the host, by where they were unpacked.
KILL = """
import os, signal, sys
for entry in os.listdir("/proc"):
    try:
        words = open("/proc/%s/cmdline" % entry).read().split("\\0")
        if any(word.startswith("/run/lock/remote-mlflow.") for word in words):
            print(entry, *words)
            os.kill(int(entry), signal.SIGKILL)
    except OSError:
        continue
"""
# Run as the login user: root would leave files beside the databases that the server cannot write.
LOOK = """
import glob, json, os, sqlite3, sys
root, whole, given = sys.argv[1], sys.argv[2], set(sys.stdin.read().split())
def runs(path):
    with sqlite3.connect("file:%s?mode=rw" % path, uri=True, timeout=60) as base:
        return {run for (run,) in base.execute(whole)} & given
def one(name, question):
    path = os.path.join(root, name)
    with sqlite3.connect("file:%s?mode=rw" % path, uri=True, timeout=60) as base:
        assert base.execute("pragma integrity_check").fetchall() == [("ok",)], name
        assert base.execute("pragma foreign_key_check").fetchall() == [], name
        return base.execute(question).fetchone()[0]
served = runs(os.path.join(root, "mlflow.db"))
aside = set()
for path in glob.glob(os.path.join(root, "former", "*", "mlflow.db")):
    aside |= runs(path)
venv = os.path.join(root, "venv")
print(json.dumps({
    "release": os.path.basename(os.readlink(venv)) if os.path.islink(venv) else "",
    "script": open(os.path.join(root, "start_mlflow_server.sh")).read().split("\\n")[1],
    "revisions": [one("mlflow.db", "select version_num from alembic_version"),
                  one("basic_auth.db", "select version_num from alembic_version_auth")],
    "marks": [one("mlflow.db", "select count(*) from experiments where name = 'mark'"),
              one("basic_auth.db", "select count(*) from users where username = 'mark'")],
    "count": one("mlflow.db", "select count(*) from runs"),
    "served": sorted(served), "aside": sorted(aside - served),
    "left": [name for name in ("next", "next.part") if os.path.exists(os.path.join(root, name))],
}))
"""
MARK = """
import json, sys, urllib.request
login, port = sys.stdin.read().split()[0], 5000
def post(path, body):
    request = urllib.request.Request("http://127.0.0.1:5000/api/2.0/mlflow/" + path,
        json.dumps(body).encode(), {"Content-Type": "application/json",
        "Authorization": "Basic " + login})
    urllib.request.urlopen(request, timeout=60).read()
post("experiments/create", {"name": "mark"})
post("users/create", {"username": "mark", "password": "mark-mark-mark"})
"""


@dataclass(frozen=True)
class State:
    """What of the server's state is of which time; `served` and `aside` are of the runs asked for.

    `aside` are those that only a former state, kept on the host, holds.
    """

    release: str
    script: str
    revisions: list[str]
    marks: list[int]
    count: int
    served: set[str]
    aside: set[str]
    left: list[str]

    @property
    def version(self) -> str:
        return self.release.rpartition("-")[0]


class Older:
    """The host, with its operator; `backup` is the id of the set without the marks."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.variables |= {"FABRIC_MLFLOW_BIND": "0.0.0.0", "FABRIC_MLFLOW_VERSION": OLDER}
        host.fab(*CHAIN, timeout=600)
        self.login = host.login()
        self.as_user("python3", "-c", ROWS, f"{ROOT}/mlflow.db", "300", "3")
        self.backup = set_id(host.fab("backup").out)
        pair = base64.b64encode(":".join(self.login).encode()).decode()
        host.python(MARK, stdin=pair)
        host.run(
            f"systemctl stop {UNIT}.socket {UNIT}.service; cd {ROOT}; "
            f"install -d -m 0700 -o ubuntu -g ubuntu {KEPT}; "
            "cp -a data mlflow.db basic_auth.db venv server.env .server-id .mlflow_auth_config "
            f"start_mlflow_server.sh {KEPT}/"
        )
        self.disk(PROGRAMS).mkdir()
        for path in templates.programs().values():
            shutil.copy(path, self.disk(PROGRAMS))
        host.run(f"chown ubuntu {PROGRAMS}")

    def reset(self) -> None:
        """Serve the older release with the marks again, whatever the last test left."""
        self.host.boot()
        self.host.run(
            f"systemctl stop {UNIT}.socket {UNIT}.service; cd {ROOT}; "
            "rm -rf former next next.part data/*.db* mlflow.db* basic_auth.db* backups/*; "
            f"cp -a --remove-destination {KEPT}/. .; systemctl start {UNIT}.socket {UNIT}.service"
        )
        self.serves()

    def serves(self) -> None:
        """Wait until the server answers with data of its databases."""
        until(lambda: self.host.status(SEARCH, self.login) == 200, "the server serves", 120)

    def idle(self) -> None:
        """Wait until nobody is at work on the host."""
        free = f"flock -n {ROOT}/.lock echo free || true"
        until(lambda: self.host.run(free) == "free", "the host's lock is free", 240)

    def state(self, runs: Collection[str] = ()) -> State:
        """Look at the server's files; every database must be whole."""
        said: dict[str, Any] = json.loads(
            self.as_user("python3", "-c", LOOK, ROOT, WHOLE, stdin="\n".join(runs))
        )
        return State(**said | {"served": set(said["served"]), "aside": set(said["aside"])})

    def fill(self, runs: int, metrics: int = 3) -> None:
        """Put runs into the database of the server, which is stopped meanwhile."""
        self.host.run(f"systemctl stop {UNIT}.socket {UNIT}.service")
        self.as_user("python3", "-c", ROWS, f"{ROOT}/mlflow.db", str(runs), str(metrics))
        self.host.run(f"systemctl start {UNIT}.socket {UNIT}.service")
        self.serves()

    def sets(self) -> dict[str, Any]:
        """Return the manifests of the complete backups in the bucket, by id."""
        s3, bucket = self.host.lab.s3(), self.host.lab.bucket
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=SETS)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return {
            key.split("/")[-2]: json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])
            for key in keys
            if key.endswith("/manifest.json")
        }

    def fetched(self, id: str) -> set[str]:
        """Have the host fetch a backup as `restore` does; returns the runs that it holds whole."""
        lab, folder = self.host.lab, f"/home/ubuntu/fetched-{id}"
        settings = Settings(bucket=lab.bucket, endpoint_url=lab.endpoint)
        words = (backup.ROOT, f"folder={folder}")
        fetch = backup.running(
            settings, "fetch a backup", "fetch_set.py", *words, id=id, unsigned=True
        )
        self.disk(f"{PROGRAMS}/fetch_set.json").write_text(str(fetch.files["fetch_set.json"]))
        begin = f"here={PROGRAMS} root={ROOT}\n{templates.source('words.sh')}"
        self.as_user("bash", "-c", f"{begin}\n{fetch.script}")
        try:
            for name in ("mlflow.db", "basic_auth.db"):
                with closing(sqlite3.connect(self.disk(f"{folder}/{name}"))) as base:
                    assert base.execute("pragma integrity_check").fetchall() == [("ok",)]
                    assert base.execute("pragma foreign_key_check").fetchall() == []
            with closing(sqlite3.connect(self.disk(f"{folder}/mlflow.db"))) as base:
                return {run for (run,) in base.execute(WHOLE)}
        finally:
            shutil.rmtree(self.disk(folder))

    def disk(self, path: str) -> Path:
        """Return where a path of the host lies on this machine."""
        machines = {machine.alias: machine for machine in self.host.lab.rehearsal.machines()}
        return machines[self.host.alias].root / path.lstrip("/")

    def as_user(self, *words: str, stdin: str = "") -> str:
        """Run a program on the host as the login user; returns what it prints."""
        command = ("runuser", "-u", "ubuntu", "--", *words)
        done = self.host.lab.rehearsal.run(self.host.alias, *command, stdin=stdin)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def set_id(said: str) -> str:
    """Return the id of the set that `backup` says it made."""
    found = re.search(r"Backup complete: s3://\S+/([^/\s]+)/", said)
    assert found, said
    return found[1]
