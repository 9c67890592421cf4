"""Rehearsal hosts for tests, and an operator who works on them with nothing but ./fab.

The operator has a clone, a home, keys and a bucket of their own: nothing of the person who runs
the tests is ever read. Every process carries a mark, so that whatever a failed or interrupted test
leaves is found and ended exactly.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from waiting import until

from tasks.engine import paths
from tasks.laptop.tunnels import free_port
from tasks.rehearsal import Rehearsal, processes
from tasks.rehearsal.trees import alone, clear

ROOT = "/home/ubuntu/mlflow-server"
DATA = f"{ROOT}/data"  # with the databases
UNIT = "mlflow-server"
CHAIN = ("install", "configure", "deploy")
# The database of a PostgreSQL beside MLflow.
SOCKET = "postgresql+psycopg2://mlflow@/mlflow?host=/var/run/postgresql"
# One folder a checkout: what a killed run left is found by the next.
HOME = Path(
    tempfile.gettempdir(),
    f"remote-mlflow-e2e-{hashlib.sha256(str(paths.PROJECT).encode()).hexdigest()[:6]}",
)


@dataclass(frozen=True)
class Done:
    """What one command did, as its caller sees it. `seconds` is its duration."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    @property
    def last_line(self) -> str:
        return (self.err.strip().splitlines() or [""])[-1]

    def __str__(self) -> str:
        return (
            f"{shlex.join(self.words)} exited {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"
        )


class Working:
    """A command of the operator's that still runs; ended with the block that it is used in."""

    def __init__(self, words: tuple[str, ...], environment: dict[str, str], cwd: Path) -> None:
        self.words = words
        self.started = time.monotonic()
        # Files, not pipes: what was said so far can be read while it goes on.
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the block)
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            words, env=environment, cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=self._out, stderr=self._err, start_new_session=True,
            # Whoever starts the tests in a shell's background has them ignore Ctrl-C, for good.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def __enter__(self) -> Working:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._out.close()
        self._err.close()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it and all its children as `kill -9` does."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def so_far(self) -> str:
        return _all_of(self._out) + _all_of(self._err)

    def done(self, timeout: float = 300) -> Done:
        """Wait for its end."""
        self._process.wait(timeout)
        seconds = time.monotonic() - self.started
        out, err = _all_of(self._out), _all_of(self._err)
        return Done(self.words, self._process.returncode, out, err, seconds)


def _all_of(stream: Any) -> str:
    # Not by seek: the child writes at the position that both share.
    size = os.fstat(stream.fileno()).st_size
    return os.pread(stream.fileno(), size, 0).decode(errors="replace")


@dataclass
class Host:
    """One rehearsal host, and an operator with a home of their own who works on it."""

    lab: Lab
    alias: str
    machine: str
    address: str
    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    # -- as the operator ---------------------------------------------------------------------

    def start(
        self,
        *words: str,
        program: Path | None = None,
        aim: tuple[str, ...] | None = None,
        cwd: Path | None = None,
        **variables: str,
    ) -> Working:
        """Start ./fab on this host, or on what `aim` says; an empty variable is unset."""
        if aim is None:
            aim = ("-S", str(self.lab.ssh_config), "-H", self.alias)
        environment = {k: v for k, v in (self.environment() | variables).items() if v}
        command = (str(program or self.lab.clone / "fab"), *aim, *words)
        return Working(command, environment, cwd or self.home)

    def fab(self, *words: str, code: int | None = 0, timeout: float = 300, **rest: Any) -> Done:
        """Run ./fab on this host to its end; `code` is the exit code that is right, None any."""
        with self.start(*words, **rest) as working:
            done = working.done(timeout)
        assert code is None or done.code == code, done
        assert "Traceback" not in done.out + done.err, done
        return replace(done, out=self._plain(done.out), err=self._plain(done.err))

    def _plain(self, text: str) -> str:
        """Leave out of advised commands what each of them has here: the lab's ssh configuration."""
        for option in ("-S", "-F"):
            text = text.replace(f" {option} {self.lab.ssh_config}", "")
        return text

    def refused(self, *words: str, because: tuple[str, ...], **rest: Any) -> Done:
        """Run ./fab, which must end with exit 1 and one last line that says all of `because`."""
        done = self.fab(*words, code=1, **rest)
        missing = [text for text in because if text not in done.last_line]
        assert not missing, f"{missing} not in {done.last_line!r}\n{done}"
        return done

    def environment(self) -> dict[str, str]:
        """Spell the operator's environment: nothing of the person who runs the tests."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "XDG_RUNTIME_DIR": str(self.lab.runtime),
            "LANG": "C.UTF-8",
            "FABRIC_MLFLOW_BUCKET": self.lab.bucket,
            "FABRIC_MLFLOW_ENDPOINT_URL": self.lab.endpoint,
            "FABRIC_MLFLOW_LOCAL_PORT": str(self.lab.local_port),
            processes.MARK: self.lab.mark,
            **self.lab.keys,
            **self.variables,
        }

    def login(self) -> tuple[str, str]:
        """Return user and password as a client gets them."""
        exported = self.fab("client", "--export").out
        values = dict(
            word.partition("=")[::2] for word in shlex.split(exported.replace("export ", ""))
        )
        return values["MLFLOW_TRACKING_USERNAME"], values["MLFLOW_TRACKING_PASSWORD"]

    @contextmanager
    def tunnel(self) -> Iterator[str]:
        """Hold the product's own tunnel open; gives the server's URL here."""
        self.fab("tunnel", "--background")
        try:
            yield f"http://localhost:{self.lab.local_port}"
        finally:
            self.fab("tunnel.close")

    @property
    def pid(self) -> int | None:
        """Return the host's first process, as this machine numbers it."""
        machines = {machine.alias: machine for machine in self.lab.rehearsal.machines()}
        return machines[self.alias].pid

    def boot(self) -> None:
        """Switch the host on where its power was cut."""
        self.lab.rehearsal.up(int(self.machine.rpartition("-")[2]))

    # -- on the host -------------------------------------------------------------------------

    def run(self, script: str, stdin: str = "", code: int | None = 0) -> str:
        """Run bash on the host as root, without SSH; returns what it prints."""
        done = self.lab.rehearsal.run(self.alias, "bash", "-euo", "pipefail", "-c", script,
                                      stdin=stdin)  # fmt: skip
        assert code is None or done.returncode == code, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def python(self, script: str, *arguments: str, stdin: str = "") -> str:
        """Run Python on the host as root; returns what it prints."""
        done = self.lab.rehearsal.run(self.alias, "python3", "-c", script, *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def status(self, path: str, login: tuple[str, str] | None = None, port: int = 5000) -> int:
        """Return the HTTP status that a request on the host gets."""
        asked = f'url = "http://127.0.0.1:{port}{path}"\n'
        if login:
            asked += f'user = "{login[0]}:{login[1]}"\n'
        return int(
            self.run("curl -s -o /dev/null -w '%{http_code}' --max-time 60 -K -", asked, code=None)
        )

    def unit(self, name: str, key: str) -> str:
        return self.run(f"systemctl show {name} -p {key} --value")

    def remove_backups(self) -> None:
        """Take all backups away, which other hosts of the lab make at the same place."""
        s3, bucket = self.lab.s3(), self.lab.bucket
        listed = s3.list_objects_v2(Bucket=bucket, Prefix="mlflow-backups/")
        for entry in listed.get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=entry["Key"])

    def signed(self, manifest: dict[str, Any], id: str) -> bytes:
        """Spell a manifest as this host would sign it for a set of another id."""
        from host_side import signed

        return signed(manifest, id, self.run("cat /etc/mlflow-server/backup.key"))

    def audit(self) -> str:
        return self.run(f"cat {ROOT}/audit.log")

    def healthy(self) -> None:
        """Assert that the server serves, refuses strangers, and would come back after a reboot."""
        assert self.status("/health") == 200
        assert self.status(SEARCH) == 401
        assert self.run(f"systemctl is-active {UNIT}.socket {UNIT}.service nginx").split() == (
            ["active"] * 3
        )
        assert self.run(f"systemctl is-enabled {UNIT}.socket {UNIT}.service nginx").split() == (
            ["enabled"] * 3
        )

    def ssh(self, command: str, code: int | None = 0) -> str:
        """Run a command on the host as the login user, by OpenSSH."""
        words = ["ssh", "-F", str(self.lab.ssh_config), self.alias, command]
        done = subprocess.run(
            words, env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert code is None or done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    @contextmanager
    def kept(self, path: str) -> Iterator[None]:
        """Put a file or folder of the host back as it was once the block is over."""
        away = "/root/kept-" + secrets.token_hex(4)
        self.run(f"cp -a {path} {away}")
        try:
            yield
        finally:
            # A folder stays the one it was: a unit that has it mounted would see the removed one.
            self.run(
                f"if [ -d {path} ]; then find {path} -mindepth 1 -delete; cp -a {away}/. {path}/;"
                f" rm -rf {away}; else rm -rf {path}; mv {away} {path}; fi"
            )

    @contextmanager
    def served_by_hand(self, *options: str) -> Iterator[str]:
        """Have the start script serve as the guide has it; gives the unit that it runs in here."""
        name = "e2e-by-hand"
        self.run(
            f"systemctl stop {UNIT}.socket {UNIT}; systemd-run -q --collect --uid=ubuntu "
            f"--unit={name} {' '.join(options)} {ROOT}/start_mlflow_server.sh"
        )
        try:
            until(lambda: self.status("/health") == 200, "MLflow answers through nginx", 120)
            yield name
        finally:
            self.run(f"systemctl stop {name}")

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Cut the host off from all but its own network, which SSH and the bucket come from."""
        gateway = self.lab.endpoint.split("//")[1].split(":")[0]
        self.run("ip route del default")
        try:
            yield
        finally:
            self.run(f"ip route replace default via {gateway}")

    @contextmanager
    def busy_apt(self) -> Iterator[str]:
        """Have another program hold apt's lock, as on a new instance; gives its process id."""
        name = f"e2e-holder-{secrets.token_hex(4)}"
        script = shlex.quote(HOLD_APT)
        self.run(f"systemd-run -q --unit={name} -p NotifyAccess=all python3 -c {script}")
        until(lambda: self.unit(name, "StatusText") == "held", "apt's lock is held")
        try:
            holder = self.unit(name, "MainPID")
            assert int(holder) > 1  # tests end it, and kill 0 would end the tests themselves
            yield holder
        finally:
            self.run(f"systemctl stop {name}", code=None)  # it may have ended

    def lacks_a_package(self) -> None:
        """Have something to install again."""
        self.run("dpkg --purge htop")

    def sessions(self) -> list[str]:
        """List what runs on the host for somebody who came by SSH."""
        lines = self.run("ps -ww -eo cgroup:120=,args=").splitlines()
        theirs = [line for line in lines if re.search(r"/ssh\.service|/session-", line)]
        return [line for line in theirs if "sshd -D" not in line]


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
HOLD_APT = """
import fcntl, os, socket, time
held = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(held, fcntl.LOCK_EX)
# sd_notify(3), without the library.
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
    notify.send(b"STATUS=held")
time.sleep(600)
"""


class Lab:
    """The rehearsal hosts of one test process."""

    def __init__(self, worker: str) -> None:
        self.home = HOME / worker
        self.mark = f"e2e {self.home}"
        self.lines: list[str] = []
        self.rehearsal = Rehearsal(self.home / "rehearsal", self.lines.append)
        self.clone = self.home / "clone"
        self.runtime = self.home / "run"
        self.keys = {
            "AWS_ACCESS_KEY_ID": "E2E" + secrets.token_hex(8).upper(),
            "AWS_SECRET_ACCESS_KEY": "e2e-secret-" + secrets.token_hex(12),
        }
        self._homes = 0
        self._main: Host | None = None

    # -- its life ----------------------------------------------------------------------------

    def open(self) -> None:
        """Take away what a killed run left, then make clone, folders and the first host."""
        self.close()
        self.runtime.mkdir(mode=0o700, parents=True)
        copy_of_the_project(self.clone)
        self.local_port = free_port()
        self.rehearsal.up(1)
        self.bucket, self.endpoint = self.rehearsal.bucket, self.rehearsal.endpoint

    def close(self) -> None:
        """Leave nothing: no process, host, mount, bridge, rule or file."""
        processes.end(self.mark)
        self.rehearsal.down()
        # Not the folder itself: it is what other runs in this checkout wait for.
        for entry in self.home.iterdir() if self.home.is_dir() else ():
            clear(entry) if entry.is_dir() else entry.unlink()

    @property
    def ssh_config(self) -> Path:
        return self.rehearsal.ssh_config

    # -- its hosts ---------------------------------------------------------------------------

    @contextmanager
    def blank(self, suite: str = "bookworm") -> Iterator[Host]:
        """Boot a host as a cloud would ship it, for one test."""
        number = self._free_number()
        try:
            self.rehearsal.up(number, suite)
            yield self._host(number)
        finally:
            self._remove(number)

    @contextmanager
    def installed(self) -> Iterator[Host]:
        """Boot a host that `install` was run on, for one test."""
        with self.blank() as host:
            host.fab("install", timeout=600)
            yield host

    def main(self) -> Host:
        """Return this process's converged host; the chain mends what tests did to it."""
        self.rehearsal.up(1)
        self._main = self._main or self._host(1)
        self._main.fab(*CHAIN, timeout=600)
        return self._main

    def _host(self, number: int) -> Host:
        machine = next(m for m in self.rehearsal.machines() if m.number == number)
        self._homes += 1
        home = self.home / f"home-{self._homes}"
        home.mkdir(mode=0o700)
        # Beside the main host's, for no two servers share one; and a number is used again.
        variables = {"FABRIC_MLFLOW_PREFIX": f"host-{self._homes}"} if number > 1 else {}
        return Host(self, machine.alias, machine.name, machine.address, home, variables)

    def _free_number(self) -> int:
        taken = {machine.number for machine in self.rehearsal.machines()}
        return min(set(range(1, 50)) - taken)

    def _remove(self, number: int) -> None:
        name = "sandbox" if number == 1 else f"sandbox-{number}"
        if name in [machine.alias for machine in self.rehearsal.machines()]:
            self.rehearsal.down([name])

    # -- its AWS -----------------------------------------------------------------------------

    def s3(self) -> Any:
        """Return a client of the stand-in for S3 with the operator's keys."""
        return self.aws("s3")

    def aws(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.keys["AWS_SECRET_ACCESS_KEY"],
        )

    @contextmanager
    def another_bucket(self, region: str | None = None) -> Iterator[str]:
        """Make a bucket for one test."""
        name = f"another-{secrets.token_hex(4)}"
        place = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region else {}
        s3 = self.s3()
        s3.create_bucket(Bucket=name, **place)
        try:
            yield name
        finally:
            empty(s3, name)
            s3.delete_bucket(Bucket=name)

    @contextmanager
    def bucket_denying(self, *actions: str) -> Iterator[str]:
        """Make a bucket whose policy denies these actions on its objects to everybody."""
        with self.another_bucket() as name:
            statement = {
                "Effect": "Deny",
                "Principal": "*",
                "Action": list(actions),
                "Resource": f"arn:aws:s3:::{name}/*",
            }
            policy = {"Version": "2012-10-17", "Statement": [statement]}
            self.s3().put_bucket_policy(Bucket=name, Policy=json.dumps(policy))
            try:
                yield name
            finally:
                self.s3().delete_bucket_policy(Bucket=name)

    @contextmanager
    def user_with(self, *actions: str) -> Iterator[dict[str, str]]:
        """Have the stand-in check keys, and make a user who may only do these actions."""
        iam = self.aws("iam")
        name = f"user-{secrets.token_hex(4)}"
        iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        self._unchecked_requests("0")
        try:
            yield {
                "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
            }
        finally:
            self._unchecked_requests("inf")

    def _unchecked_requests(self, count: str) -> None:
        # moto's documentation, "IAM-like Access Control".
        request = urllib.request.Request(
            f"{self.endpoint}/moto-api/reset-auth",
            data=count.encode(),
            headers={"Content-Type": "text/plain"},
        )
        direct.open(request, timeout=30).close()


@contextmanager
def opened(worker: str) -> Iterator[Lab]:
    """Hold a lab alone for the block, and leave nothing of it, whatever happens."""
    lab = Lab(worker)
    with alone(lab.home):
        try:
            lab.open()
            yield lab
        finally:
            lab.close()
            remove(lab.home)


def remove(folder: Path) -> None:
    """Remove a folder, and the one around it if it was the last there."""
    folder.rmdir()
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def empty(s3: Any, bucket: str) -> None:
    """Delete all objects of a bucket, old versions too."""
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for entry in page.get("Versions", []) + page.get("DeleteMarkers", []):
            s3.delete_object(Bucket=bucket, Key=entry["Key"], VersionId=entry["VersionId"])


def copy_of_the_project(clone: Path) -> None:
    """Copy the checkout as a clone would be: no state, nobody's fabric.yaml; the same packages.

    The environment is this very Python's, so that nothing is downloaded; how ./fab makes its own
    is tested by itself.
    """
    left_out = shutil.ignore_patterns(
        ".git", ".venv*", ".state", "fabric.yaml", "__pycache__", ".*_cache", "*.pyc"
    )
    shutil.copytree(paths.PROJECT, clone, ignore=left_out)
    theirs, ours = clone / ".venv", Path(sys.prefix)
    theirs.mkdir()
    for name in ("bin", "lib"):
        (theirs / name).symlink_to(ours / name)
    shutil.copy(ours / "pyvenv.cfg", theirs)
    shutil.copy(clone / "requirements.txt", theirs)
    (theirs / "made-in").write_text(f"{clone}\n")


def answer(url: str, login: tuple[str, str] | None = None, timeout: float = 60) -> int:
    """Return the status of one GET on this machine."""
    import base64

    request = urllib.request.Request(url)
    if login:
        pair = base64.b64encode(":".join(login).encode()).decode()
        request.add_header("Authorization", f"Basic {pair}")
    try:
        with direct.open(request, timeout=timeout) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
