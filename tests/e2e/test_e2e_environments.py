"""Three environments on one host: whatever becomes of one, the others answer every request."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from lab import CHAIN, SEARCH, Done, Host, Lab
from waiting import until

FILE = """
mlflow:
  environments:
    staging: {port: 5003, memory_max: 1G}
    production: {port: 5004, confirm: name}
"""
PORTS = {"default": 5000, "staging": 5003, "production": 5004}
UNIT = "mlflow-server-staging"
ROOT = f"/home/ubuntu/{UNIT}"
# Runs on the host: asks all given URLs again and again until a file appears, then says how often,
# how long the slowest took, and what was not answered with 200.
ASK = """
import base64, json, os, sys, time, urllib.request
stop, *urls = sys.argv[1:]
logins = json.loads(sys.stdin.readline())
asked, slowest, wrong = 0, 0.0, []
print("asking", flush=True)
while not os.path.exists(stop):
    for url, login in zip(urls, logins):
        pair = base64.b64encode(":".join(login).encode()).decode()
        request = urllib.request.Request(url, headers={"Authorization": "Basic " + pair})
        began = time.monotonic()
        try:
            urllib.request.urlopen(request, timeout=30).read()
        except Exception as error:
            wrong.append("%s: %s" % (url, error))
        asked += 1
        slowest = max(slowest, time.monotonic() - began)
    time.sleep(0.05)
print(json.dumps([asked, slowest, wrong]))
"""


@dataclass
class Three:
    """A host with three servers, and what their making printed."""

    host: Host
    made: Done = field(init=False)
    logins: int = 0
    passwords: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def aim(self) -> tuple[str, ...]:
        file = str(self.host.home / "three.yaml")
        return ("-S", str(self.host.lab.ssh_config), "-f", file, "-H", self.host.alias)

    def fab(self, *words: str) -> Done:
        return self.host.fab(*words, aim=self.aim, timeout=600)

    def login(self, name: str) -> tuple[str, str]:
        exported = self.fab("use", name, "client", "--export").out.splitlines()
        username, password = (line.partition("=")[2] for line in exported[1:])
        return username, password

    @property
    def restarts(self) -> int:
        """Count how often systemd has started staging again by itself."""
        return int(self.host.unit(f"{UNIT}.service", "NRestarts"))

    def serves(self, name: str) -> bool:
        return self.host.status("/health", port=PORTS[name]) == 200

    @contextmanager
    def others_answer(self) -> Iterator[None]:
        """Assert that the servers beside staging answer whatever happens meanwhile."""
        names = ("default", "production")
        stop = "/root/e2e-environments-stop"
        self.host.run(f"rm -f {stop}")
        urls = [f"http://127.0.0.1:{PORTS[name]}{SEARCH}" for name in names]
        words = ["nsenter", f"--target={self.host.pid}", "--all", "--", "python3", "-c", ASK, stop]
        with subprocess.Popen(
            [*words, *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as asking:
            assert asking.stdin
            assert asking.stdout
            asking.stdin.write(json.dumps([self.passwords[name] for name in names]) + "\n")
            asking.stdin.flush()
            assert asking.stdout.readline() == "asking\n"
            try:
                yield
            finally:
                self.host.run(f"touch {stop}")
                asked, slowest, wrong = json.loads(asking.stdout.readline())
        assert wrong == []
        assert asked > 10
        assert slowest < 10


def logins(host: Host) -> int:
    return int(host.run("journalctl -u ssh --no-pager | grep -c 'Accepted publickey' || true"))


def until_it_serves(three: Three) -> None:
    until(lambda: three.serves("staging"), "staging serves again", 120)


@pytest.fixture(scope="module")
def three(lab: Lab) -> Iterator[Three]:
    host = lab.main()
    (host.home / "three.yaml").write_text(FILE)
    three = Three(host)
    try:
        before = logins(host)
        three.made = three.fab("use", "staging", *CHAIN, "use", "production", *CHAIN)
        three.logins = logins(host) - before
        three.passwords = {name: three.login(name) for name in PORTS}
        yield three
    finally:
        for name in ("staging", "production"):
            unit = f"mlflow-server-{name}"
            host.run(
                f"systemctl disable -q --now {unit}.socket {unit}.service || true; "
                f"rm -rf /home/ubuntu/{unit} /etc/systemd/system/{unit}.* "
                f"/etc/tmpfiles.d/{unit}.conf /etc/nginx/sites-*/{unit}; "
                "systemctl daemon-reload; systemctl reload nginx"
            )
            mark = f"mlflow-artifacts-{name}/.remote-mlflow-owner.json"
            lab.s3().delete_object(Bucket=lab.bucket, Key=mark)


class TestThreeOnOneHost:
    @pytest.fixture(autouse=True)
    def _mended(self, three: Three) -> Iterator[None]:
        yield
        until_it_serves(three)

    def test_one_command_made_both_with_one_login(self, three: Three) -> None:
        assert three.logins == 1
        assert three.made.err.splitlines() == [
            f"staging on {three.host.alias}:", f"production on {three.host.alias}:",
        ]  # fmt: skip
        assert f"Next: ./fab -H {three.host.alias} use production verify" in three.made.out
        assert [three.serves(name) for name in PORTS] == [True] * 3
        assert three.host.unit(f"{UNIT}.service", "MemoryMax") == str(2**30)

    def test_each_answer_says_whose_it_is(self, three: Three) -> None:
        tasks = ("status", "doctor", "--timeout", "20", "backup", "logs", "--lines", "1")
        done = three.host.fab(
            "use", "staging", *tasks, "use", "production", "status", aim=three.aim, code=0
        )
        host = three.host.alias
        assert [line for line in done.err.splitlines() if line.endswith(":")] == [
            f"staging on {host}:", f"production on {host}:",
        ]  # fmt: skip
        assert f"./fab -H {host} use staging backup.schedule" in done.out
        assert "/mlflow-backups/staging/" in done.out
        rows = json.loads(three.fab("status", "--json").out)
        assert {row["environment"]: row["port"] for row in rows} == PORTS

    def test_each_knows_its_own_users_alone(self, three: Three) -> None:
        statuses = {
            (name, other): three.host.status(SEARCH, login, PORTS[other])
            for name, login in three.passwords.items()
            for other in PORTS
        }
        assert {pair for pair, status in statuses.items() if status == 200} == {
            (name, name) for name in PORTS
        }

    def test_a_lock_that_is_held_keeps_the_others_free(self, three: Three) -> None:
        lock = f"{ROOT}/.lock"
        line = "ann@desk\t2026-11-22T10:00:00Z\tinstall\t1\t1"
        three.host.run(
            f"printf '{line}' > {lock}; "
            f"systemd-run -q --unit=e2e-holder --uid=ubuntu flock {lock} sleep 60; sleep 0.5"
        )
        try:
            name = f"{three.host.alias} (staging)"
            because = (
                "ann@desk holds the lock of " + name,
                "(install)",
                "run the same command again",
            )
            three.host.refused("use", "staging", "restart", because=because, aim=three.aim)
            three.fab("use", "production", "backup")
        finally:
            three.host.run("systemctl stop e2e-holder")

    def test_production_wants_its_name(self, three: Three) -> None:
        because = ("(production)", "production wants its name typed: use production TASK --yes")
        chosen = {"FABRIC_MLFLOW_ENVIRONMENT": "production"}
        three.host.refused("gc", "--yes", because=because, aim=three.aim, **chosen)
        three.host.refused("use", "production", "users.remove", "admin", because=because,
                           aim=three.aim)  # fmt: skip
        assert "nothing to remove" in three.fab("use", "production", "gc", "--yes").out

    @pytest.mark.costly
    def test_it_is_restarted_and_stopped(self, three: Three) -> None:
        with three.others_answer():
            three.fab("use", "staging", "restart", "stop")
            assert not three.serves("staging")
            three.fab("use", "staging", "start")

    def test_it_is_killed_as_at_its_memory_limit_and_cannot_start_again(self, three: Three) -> None:
        """What the kernel does to it then; rehearsal hosts may have no memory to limit."""
        with three.others_answer(), three.host.kept(f"{ROOT}/server.env"):
            three.host.run(f'echo "KEY=\'" > {ROOT}/server.env')
            three.host.run(f"systemctl kill -s KILL {UNIT}.service")
            until(lambda: three.restarts >= 2, "systemd tries again and again", 60)

    @pytest.mark.costly
    def test_its_log_is_flooded(self, three: Three) -> None:
        script = f"{ROOT}/start_mlflow_server.sh"
        with three.others_answer(), three.host.kept(script):
            three.host.run(
                f"printf '#!/bin/bash\nyes full | head -c 10000000\nexit 1\n' > {script}; "
                f"systemctl restart --no-block {UNIT}.service; sleep 4"
            )
            marked = "the log of others goes on"
            three.host.run(f"logger -t e2e '{marked}'")
            read = "journalctl -t e2e --no-pager -n 1"
            until(lambda: marked in three.host.run(read, code=None), "the journal takes it", 120)
            three.fab("use", "production", "logs", "--lines", "1")
            three.host.run(f"systemctl stop {UNIT}.service")

    @pytest.mark.costly
    def test_it_is_restored(self, three: Three) -> None:
        three.fab("use", "staging", "backup")
        with three.others_answer():
            three.fab("use", "staging", "restore", "--yes")
            three.fab("use", "staging", "rollback", "--yes")
