"""A healthy host has no problem; and what makes one unsafe is brought about, and named."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from lab import ROOT, UNIT, Host
from waiting import until

SITE = f"/etc/nginx/sites-available/{UNIT}"
pytestmark = pytest.mark.usefixtures("no_backups")
Row = dict[str, Any]
# What a fresh Debian has, and a cloud's image may not.
EXPECTED = {"ssh-password", "firewall-none", "upgrades-off", "backup-unscheduled"}

# Everything at once, each by itself as somebody might do it; MEND takes all of it back.
BREAK = f"""
printf 'PermitRootLogin yes\\nPasswordAuthentication yes\\n' > /etc/ssh/sshd_config.d/00-e2e.conf
echo 'root:a-password-of-root' | chpasswd
cp "$(readlink -f /usr/bin/python3)" /root/redis-server
systemd-run -q --unit=e2e-open /root/redis-server -m http.server 6379 --bind 0.0.0.0

openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=e2e -days 5 \
  -keyout /root/e2e.key -out /root/e2e.pem 2> /dev/null
chmod 644 /root/e2e.key
cat > /root/e2e.tls <<'END'
  listen 8443 ssl;
  listen 8088;
  ssl_certificate /root/e2e.pem;
  ssl_certificate_key /root/e2e.key;
  ssl_protocols TLSv1.1 TLSv1.2;
END
sed -i '/^server {{/r /root/e2e.tls' {SITE}

mkdir -p /etc/systemd/system/{UNIT}.service.d
printf '%s\\n' [Service] {{NoNewPrivileges,ProtectSystem,PrivateDevices,PrivateUsers}}=no \
  > /etc/systemd/system/{UNIT}.service.d/e2e.conf
systemctl daemon-reload
chmod 666 /etc/systemd/system/{UNIT}.socket
touch {ROOT}/e2e-open; chmod 666 {ROOT}/e2e-open
chmod 644 {ROOT}/server.env

key=$(sed -n 's/^aws_secret_access_key *= *//p' /home/ubuntu/.aws/credentials)
echo "export AWS_SECRET_ACCESS_KEY=$key" > /home/ubuntu/.bash_history
echo 'export MLFLOW_TRACKING_PASSWORD=a-password-of-mine' > /home/ubuntu/e2e.sh
systemd-run -q --unit=e2e-keyed --uid=ubuntu bash -c "sleep 600; : $key"

cd {ROOT}/venv/lib/python3*/site-packages
mv mlflow-[0-9]*.dist-info /root/e2e-mlflow
mkdir mlflow-3.9.0.dist-info
{ROOT}/venv/bin/python - {ROOT}/basic_auth.db <<'END'
import sqlite3, sys
from werkzeug.security import generate_password_hash
base = sqlite3.connect(sys.argv[1])
for name, password in (("e2e-weak", "mlflow123456"), ("e2e-idle", "nobody-guesses-this")):
    kept = generate_password_hash(password)
    base.execute("insert into users (username, password_hash, is_admin) values (?, ?, 0)",
                 (name, kept))
base.commit()
END
when=$(date -d '-20 days' '+%d/%b/%Y:%H:%M:%S +0000')
echo "127.0.0.1 - admin [$when] \\"GET / HTTP/1.1\\" 200 1 \\"-\\" \\"-\\"" \
  > /var/log/nginx/{UNIT}.access.log.9
"""
MEND = f"""
systemctl stop e2e-open e2e-keyed || true
rm -f /etc/ssh/sshd_config.d/00-e2e.conf /root/redis-server /root/e2e.{{key,pem,tls}}
passwd -q -d root; passwd -q -l root
rm -rf /etc/systemd/system/{UNIT}.service.d {ROOT}/e2e-open /home/ubuntu/e2e.sh
rm -f /home/ubuntu/.bash_history /var/log/nginx/{UNIT}.access.log.9
chmod 644 /etc/systemd/system/{UNIT}.socket; chmod 600 {ROOT}/server.env
systemctl daemon-reload
cd {ROOT}/venv/lib/python3*/site-packages
if [ -e /root/e2e-mlflow ]; then rmdir mlflow-3.9.0.dist-info; mv /root/e2e-mlflow mlflow-"$(
  sed -n 's/^Version: //p' /root/e2e-mlflow/METADATA)".dist-info; fi
python3 - {ROOT}/basic_auth.db <<'END'
import sqlite3, sys
base = sqlite3.connect(sys.argv[1])
base.execute("delete from users where username like 'e2e-%'")
base.commit()
END
"""
FOUND = {
    "ssh-root": "root may log in by SSH",
    "ssh-password": "there are some: root",
    "listener-open": "redis-server",
    "passwords-in-clear": "listen 8088",
    "certificate": "expires in",
    "key-readable": "/root/e2e.key",
    "tls-old": "TLSv1.1",
    "hsts-missing": "no Strict-Transport-Security",
    "unit-exposed": f"{UNIT}.service",
    "writable-by-others": f"{ROOT}/e2e-open",
    "readable-secrets": f"{ROOT}/server.env",
    "secret-astray": "/home/ubuntu/.bash_history",
    "vulnerable": "CVE-2026-2652",
    "password-weak": "e2e-weak",
    "users-unused": "e2e-idle",
}


def audit(host: Host) -> list[Row]:
    done = host.fab("audit", "--json", "--timeout", "30", code=None)
    rows: list[Row] = json.loads(done.out)
    problems = [row for row in rows if row["severity"] == "problem"]
    assert done.code == (1 if problems else 0), done
    return rows


@contextmanager
def unsafe(host: Host) -> Iterator[None]:
    with host.kept(SITE):
        try:
            host.run(BREAK)
            yield
        finally:
            host.run(MEND)


@pytest.mark.sampled
def test_a_healthy_host_has_no_problem_with_its_backups_scheduled(host: Host) -> None:
    host.fab("backup", "backup.schedule")
    try:
        rows = audit(host)
        assert [row for row in rows if row["severity"] == "problem"] == []
        assert {row["key"] for row in rows} <= EXPECTED
        assert {row["environment"] for row in rows} == {"default"}
        said = host.fab("audit", "--timeout", "30").out.splitlines()[-1]
        assert said.startswith(
            "✓ well: tls, units, secrets, versions, users, places, artifacts, backup (advisories: "
        )
        # What a timer runs is confined, and works.
        host.run(f"systemctl start {UNIT}-backup.service")
        assert host.unit(f"{UNIT}-backup.service", "Result") == "success"
    finally:
        host.fab("backup.schedule", "--off")


def test_each_thing_that_makes_a_host_unsafe_is_named(host: Host) -> None:
    secret = host.lab.keys["AWS_SECRET_ACCESS_KEY"]
    with unsafe(host):
        until(lambda: "6379" in host.run("ss -Hltn"), "the open program listens")
        rows = audit(host)
        texts = {key: [] for key in FOUND}  # type: dict[str, list[str]]
        for row in rows:
            texts.setdefault(row["key"], []).append(f"{row['what']} {row['seen']}")
        missing = {key: said for key, said in FOUND.items() if said not in " ".join(texts[key])}
        assert not missing, rows
        astray = " ".join(texts["secret-astray"])
        assert "a password of MLflow stands in /home/ubuntu/e2e.sh" in astray.replace("A p", "a p")
        assert re.search(r"The AWS secret key stands in the command line of process \d+", astray)
        assert f"/etc/systemd/system/{UNIT}.socket" in " ".join(texts["writable-by-others"])
        assert "e2e-weak" not in " ".join(texts.get("password-well-known", []))
        assert all(row["type"] or row["remedy"] for row in rows)
        assert secret not in json.dumps(rows)
    assert {row["key"] for row in audit(host)} <= EXPECTED | {"backup-none"}


def test_the_log_says_who_did_what_and_no_secret(host: Host) -> None:
    host.fab("restart")
    host.refused("users.passwd", "--name", "nobody-here", because=("no user",))
    rows = json.loads(host.fab("audit.log", "--json", "--lines", "4").out)
    assert [(row["task"], row["result"].split()[0]) for row in rows] == [
        ("restart", "begun"), ("restart", "done"),
        ("users.passwd nobody-here", "begun"), ("users.passwd nobody-here", "failed"),
    ]  # fmt: skip
    assert all("@" in row["who"] and row["time"].endswith("Z") for row in rows)
    assert "restart  done" in host.fab("audit.log").out
    assert not [secret for secret in host.lab.keys.values() if secret in host.audit()]
