"""Make on a blank host what the guide's own steps leave, with an MLflow of those days.

The environment comes from a lock by uv, which spares a minute of pip; all else is the guide's: a
real `venv/`, its start script, `mlflow.db`, the home-made `.mlflow_auth_config`, keys in ~/.aws,
and a process by nohup or the plain unit. What current guides leave out and no server of its
version starts without, a secret key, stands in the start script.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from lab import ROOT, SEARCH, UNIT, Host
from waiting import until

from tasks.changes import releases

LOCKS = {
    "2.22.1": Path(__file__).parent / "releases/2.22.1.txt",
    "3.16.0": releases.RELEASES / "3.16.0.txt",
}
PROFILE = "basketworld"
# What MLflow before 3.17 gives its first user by itself; with 3.16 a careful reader's own password.
PASSWORDS = {"2.22.1": "password1234", "3.16.0": "a password of the guide's days"}
INI = """[mlflow]
default_permission = READ
database_uri = sqlite:///basic_auth.db
admin_username = admin
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""
START = """#!/bin/bash
# MLflow Server Startup Script
cd ~/mlflow-server
source venv/bin/activate
export AWS_PROFILE={profile}
export MLFLOW_S3_ENDPOINT_URL={endpoint}
export MLFLOW_FLASK_SERVER_SECRET_KEY=static
{auth}
mlflow server \\
    --backend-store-uri "sqlite:///mlflow.db" \\
    --artifacts-destination "s3://{bucket}/{prefix}" \\
    --host "0.0.0.0" \\
    --port 5000 \\
    --workers 1 \\
    --app-name basic-auth
"""
SERVICE = """[Unit]
Description=MLflow Tracking Server
After=network.target

[Service]
Type=simple
User=ubuntu
WorkingDirectory=/home/ubuntu/mlflow-server
ExecStart=/home/ubuntu/mlflow-server/start_mlflow_server.sh
Restart=on-failure
RestartSec=10

[Install]
WantedBy=multi-user.target
"""
CONFIG = """export MLFLOW_TRACKING_USERNAME=admin
export MLFLOW_TRACKING_PASSWORD={password}
"""
AWS = """[{profile}]
aws_access_key_id = {AWS_ACCESS_KEY_ID}
aws_secret_access_key = {AWS_SECRET_ACCESS_KEY}
"""
# Runs in the guide's own environment, as one of its clients.
FILL = """
import os, sys
os.environ.update(MLFLOW_TRACKING_URI="http://127.0.0.1:5000", MLFLOW_TRACKING_USERNAME="admin",
                  MLFLOW_TRACKING_PASSWORD=sys.argv[1])
from mlflow import MlflowClient
from mlflow.server import get_app_client
client = MlflowClient()
for number in range(3):
    run = client.create_run("0").info.run_id
    client.log_param(run, "number", number)
    client.log_metric(run, "loss", number / 10)
client.log_text(run, "logged in the guide's days", "note.txt")
client.create_registered_model("guides")
client.create_model_version("guides", "mlflow-artifacts:/0/%s/artifacts" % run, run)
get_app_client("basic-auth", os.environ["MLFLOW_TRACKING_URI"]).create_user(
    "colleague", "a colleague's password")
print(run)
"""


@dataclass
class Guide:
    """A server that the guide made. `run` is its newest run's id; `unit` says how it runs."""

    host: Host
    version: str
    unit: bool
    run: str = ""

    @property
    def login(self) -> tuple[str, str]:
        return "admin", PASSWORDS[self.version]

    # -- its making --------------------------------------------------------------------------

    def make(self) -> Guide:
        """Follow the guide to its end, and log what its reader would have logged."""
        host, values = self.host, {"profile": PROFILE, "password": self.login[1]}
        self._environment()
        auth = ""
        if self.version != "2.22.1":
            auth = f"export MLFLOW_AUTH_CONFIG_PATH={ROOT}/basic_auth.ini"
            self._write(f"{ROOT}/basic_auth.ini", INI.format(**values), "600")
        lab = host.lab
        # The lab gives each of its servers a prefix, and the test's operator says that one.
        place = {"bucket": lab.bucket, "prefix": host.variables["FABRIC_MLFLOW_PREFIX"]}
        script = START.format(endpoint=lab.endpoint, auth=auth, **place, **values)
        host.run(f"install -d -o ubuntu -g ubuntu -m 0700 {ROOT}/../.aws")
        self._write(f"{ROOT}/start_mlflow_server.sh", script, "755")
        self._write(f"{ROOT}/.mlflow_auth_config", CONFIG.format(**values), "600")
        self._write(f"{ROOT}/../.aws/credentials", AWS.format(**values, **host.lab.keys), "600")
        self._write(f"{ROOT}/../.aws/config", f"[profile {PROFILE}]\nregion = us-east-1\n", "600")
        if self.unit:
            self._write(f"/etc/systemd/system/{UNIT}.service", SERVICE, "644")
            host.run(f"systemctl daemon-reload; systemctl enable -q --now {UNIT}")
        else:
            host.ssh(
                "cd ~/mlflow-server && "
                "{ nohup ./start_mlflow_server.sh > mlflow.log 2>&1 & echo $! > mlflow.pid; }"
            )
        until(lambda: host.status("/health") == 200, "the guide's server answers", 120)
        fill = f"{ROOT}/venv/bin/python -c {shlex.quote(FILL)} {shlex.quote(self.login[1])}"
        self.run = host.run(f"cd /tmp; {fill}").splitlines()[-1]
        return self

    def _environment(self) -> None:
        """Make the real venv/ from the version's lock."""
        host = self.host
        host.run("apt-get -qq update; apt-get -qq install -y python3-venv > /dev/null")
        host.run("python3 -m venv /opt/uv; /opt/uv/bin/pip install -q uv")
        self._write("/tmp/lock.txt", LOCKS[self.version].read_text(), "644")
        host.ssh(
            f"mkdir -p {ROOT} && /opt/uv/bin/uv venv -q --python /usr/bin/python3 {ROOT}/venv && "
            f"/opt/uv/bin/uv pip install -q --python {ROOT}/venv/bin/python --no-deps "
            "--require-hashes -r /tmp/lock.txt"
        )

    def _write(self, path: str, text: str, mode: str) -> None:
        owner = "ubuntu" if path.startswith("/home") else "root"
        self.host.run(f"cat > {path}; chmod {mode} {path}; chown {owner}: {path}", stdin=text)

    # -- what must never change --------------------------------------------------------------

    def serves_as_before(self) -> None:
        """Assert that the old server itself serves, run as it ran, with all that was logged."""
        host = self.host
        until(lambda: host.status("/health") == 200, "the guide's server answers", 120)
        listening = self.listening()
        assert "0.0.0.0:5000" in listening
        assert "nginx" not in listening
        assert self.its_version() == self.version
        if self.unit:
            assert host.run(f"systemctl is-active {UNIT}.service") == "active"
            assert host.run(f"systemctl is-enabled {UNIT}.service") == "enabled"
            assert host.run(f"cat /etc/systemd/system/{UNIT}.service") == SERVICE.strip()
        else:
            words = host.run(f"tr '\\0' ' ' < /proc/$(cat {ROOT}/mlflow.pid)/cmdline")
            assert "start_mlflow_server.sh" in words
        self.holds_its_runs()

    def listening(self) -> str:
        """Return who listens on the server's port: address, program and process id."""
        return " ".join(self.host.run("ss -Hltnp 'sport = :5000'").split()[3:])

    def its_version(self) -> str:
        script = "import mlflow; print(mlflow.__version__)"
        return self.host.run(f"{ROOT}/venv/bin/python -c {shlex.quote(script)}")

    def holds_its_runs(self) -> None:
        """Assert that users, runs, registry and files are there, whoever serves."""
        host = self.host
        for login in (self.login, ("colleague", "a colleague's password")):
            assert host.status(SEARCH, login) == 200
        assert host.status(SEARCH, ("admin", "wrong password")) == 401
        for path in (
            f"/api/2.0/mlflow/runs/get?run_id={self.run}",
            "/api/2.0/mlflow/model-versions/get?name=guides&version=1",
            f"/api/2.0/mlflow-artifacts/artifacts/0/{self.run}/artifacts/note.txt",
        ):
            assert host.status(path, self.login) == 200, path

    def runs(self) -> int:
        """Count the runs in the database that is in place."""
        script = f"import sqlite3; base = sqlite3.connect('{ROOT}/mlflow.db')\n"
        script += "print(base.execute('select count(*) from runs').fetchone()[0])"
        return int(self.host.python(script))
