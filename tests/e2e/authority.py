"""A certificate authority on a rehearsal host, and clients here that know its hosts' names.

The authority is Debian's pebble, Let's Encrypt's own server for tests; certbot on the host is the
real one. Names stand in /etc/hosts: on the host, and for a client here in a copy that no other
program sees.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import Host
from waiting import until

ACME = "acme.example.org"
URL = f"https://{ACME}:14000/dir"
FOLDER = "/opt/pebble"
INSTALL = f"""
test -e /usr/bin/pebble || {{ apt-get -q update; DEBIAN_FRONTEND=noninteractive \
  apt-get -q -y install --no-install-recommends pebble; }} > /dev/null
mkdir -p {FOLDER}
cd {FOLDER}
new() {{ openssl req -newkey rsa:2048 -nodes -subj /CN=$1 -keyout $1.key "${{@:2}}" 2> /dev/null; }}
new ca -x509 -days 30 -out ca.pem
new server -out server.csr
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
  -extfile <(echo subjectAltName=DNS:{ACME}) -out server.pem 2> /dev/null
cat > config.json
# The package has no unit. Half of all nonces are refused by default, and each proof waits 15 s.
systemd-run -q --unit=pebble --setenv=PEBBLE_WFE_NONCEREJECT=0 --setenv=PEBBLE_VA_NOSLEEP=1 \
  pebble -config {FOLDER}/config.json
"""
CONFIG = f"""{{"pebble": {{
  "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
  "certificate": "{FOLDER}/server.pem", "privateKey": "{FOLDER}/server.key",
  "httpPort": 80, "tlsPort": 443
}}}}"""


class Authority:
    """pebble on a host, and the names that the host knows."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.folder = Path(tempfile.mkdtemp(dir=host.home))
        self.ca = self.folder / "ca.pem"
        self.root = self.folder / "root.pem"

    def open(self) -> None:
        self.host.run("cp /etc/hosts /root/hosts-before")
        self.host.run(INSTALL, stdin=CONFIG)
        self.name(ACME, "127.0.0.1")
        root = "curl -skf https://127.0.0.1:15000/roots/0"
        until(lambda: self.host.run(root, code=None), "pebble answers")
        self.ca.write_text(self.host.run(f"cat {FOLDER}/ca.pem") + "\n")
        self.root.write_text(self.host.run(root) + "\n")

    def close(self) -> None:
        """Leave the host as if nobody had ever been certified there."""
        self.host.run(
            "set +e; systemctl stop pebble; systemctl reset-failed certbot pebble 2> /dev/null; "
            "cat /root/hosts-before > /etc/hosts; "
            "rm -rf /etc/letsencrypt/{accounts,archive,live,renewal} /opt/pebble; "
            "rm -f /usr/local/share/ca-certificates/*-authority.crt; update-ca-certificates",
            code=None,
        )

    @property
    def options(self) -> tuple[str, ...]:
        """What tls.enable needs to ask this authority."""
        return ("--email", "ops@example.org", "--acme-url", URL, "--acme-ca", str(self.ca))

    def name(self, name: str, address: str | None = None) -> None:
        """Have a name mean an address, the host's own by default."""
        address = address or self.host.address
        # Written in place: the file is a mount in some containers.
        self.host.run(
            f"sed '/ {name}$/d' /etc/hosts > /tmp/hosts; echo '{address} {name}' >> /tmp/hosts; "
            "cat /tmp/hosts > /etc/hosts"
        )

    @contextmanager
    def down(self) -> Iterator[None]:
        """Have nobody answer where the authority was."""
        self.name(ACME, "127.0.0.9")
        try:
            yield
        finally:
            self.name(ACME, "127.0.0.1")

    # -- from here -----------------------------------------------------------------------------

    def here(self, name: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a program on this machine that takes the name for the host's."""
        hosts = self.folder / "hosts"
        hosts.write_text(f"127.0.0.1 localhost\n{self.host.address} {name}\n")
        script = 'mount --bind "$0" /etc/hosts && exec "$@"'
        environment = self.host.environment() | {"NO_PROXY": name, "no_proxy": name} | variables
        return subprocess.run(
            ["unshare", "--mount", "bash", "-c", script, str(hosts), *words],
            env=environment, cwd=self.folder, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    def curl(self, name: str, *words: str) -> str:
        """Return what curl gets from the name, trusting this authority alone."""
        done = self.here(name, "curl", "-s", "--noproxy", "*", "--cacert", str(self.root), *words)
        return done.stdout

    def status(self, name: str, *words: str, path: str = "/version") -> str:
        """Return the status of one request as https, and curl's own error."""
        form = ("-o", "/dev/null", "-w", "%{http_code}%{errormsg}")
        return self.curl(name, *form, *words, f"https://{name}{path}")

    def client(self, name: str, script: str, login: tuple[str, str]) -> str:
        """Run an MLflow client in Python; returns what it prints."""
        done = self.here(
            name, sys.executable, "-c", script,
            MLFLOW_TRACKING_URI=f"https://{name}",
            MLFLOW_TRACKING_USERNAME=login[0],
            MLFLOW_TRACKING_PASSWORD=login[1],
            MLFLOW_TRACKING_SERVER_CERT_PATH=str(self.root),
            MLFLOW_DISABLE_TELEMETRY="true",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def authority_on(host: Host) -> Iterator[Authority]:
    authority = Authority(host)
    try:
        authority.open()
        yield authority
    finally:
        host.fab("tls.disable", "--yes", code=None)
        authority.close()
