"""Keep throw-away hosts on this very machine: real systemd, real SSH, and S3 by moto.

A rehearsal host is a copy of a base image, booted by systemd-nspawn on a bridge of its own. Every
name (machine, bridge, table, mark of a process) comes from the state folder's path, so several
clones and tests live side by side, and whatever a crash leaves is found again by `up` and `down`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.exceptions import Exit

from tasks.engine import paths
from tasks.engine.console import console
from tasks.rehearsal import host, image, nspawn, packages, processes, store
from tasks.rehearsal.machine import Machine, alias, ssh_config
from tasks.rehearsal.network import Network, address, firewalls, gateway, others
from tasks.rehearsal.trees import alone, clear, room

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Network

BUCKET = "mlflow-rehearsal"

PATIENCE = 60.0

MOST = 50


class Rehearsal:
    """The rehearsal hosts of one state folder, and the AWS stand-in that they share."""

    def __init__(self, state: Path, say: Callable[[str], None]) -> None:
        self.state = state.resolve()
        self.say = say
        self.group = hashlib.sha256(str(self.state).encode()).hexdigest()[:6]
        self.network = Network(self.group)
        self.images = paths.cache() / "images"
        self.roots = paths.cache() / "machines"

    @property
    def ssh_config(self) -> Path:
        """Name the OpenSSH configuration that knows the hosts by their aliases."""
        return self.state / "ssh_config"

    @property
    def endpoint(self) -> str:
        """Tell the URL of the AWS stand-in, the same on this machine and on the hosts."""
        return self._store().endpoint

    @property
    def bucket(self) -> str:
        """Name the bucket that `up` made."""
        return self._store().bucket

    def why_not(self) -> str | None:
        """Say in one sentence why no host can run here, and the way out; None when it can."""
        elsewhere = "Use a Linux machine or virtual machine where you are root."
        if sys.platform != "linux":
            return f"Rehearsal hosts need Linux. {elsewhere}"
        if os.geteuid() != 0:
            return "Rehearsal hosts need root. Run it again as root."
        missing = packages.missing()
        if missing and not shutil.which("apt-get"):
            names = ", ".join(missing)
            return f"Rehearsal hosts need {names}, and there is no apt-get. Install them yourself."
        if subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True).returncode:
            return f"This container may not make namespaces. {elsewhere}"
        if not self._numbers() and room(paths.cache()) < image.NEEDED:
            return (
                f"A rehearsal needs 3 GB of disk, and {paths.shown(paths.cache())} has less. "
                "Make room, or name another place with XDG_CACHE_HOME."
            )
        return None

    def footprint(self) -> list[str]:
        """List what `up` is going to change on this machine."""
        missing = packages.missing()
        changes = [f"install the Debian packages {', '.join(missing)}"] if missing else []
        changes.append(f"keep base images and hosts in {paths.shown(paths.cache())}")
        changes.append(f"add the network bridge {self.network.bridge}, with one NAT rule")
        changes += [f"let the bridge pass the firewall ({chain})" for chain in firewalls()]
        if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "0":
            changes.append("switch IP forwarding on until the last host is taken down")
        return changes

    def machines(self) -> list[Machine]:
        """List the hosts there are, running or not."""
        subnet = self.network.subnet()
        return [self._machine(number, subnet) for number in self._numbers()]

    def up(self, count: int = 1, suite: str = "bookworm", bucket: str = BUCKET) -> list[Machine]:
        """Have `count` hosts running: keep those there are, boot those that are off, add the rest.

        Returns all hosts that run. Mends what an interrupted `up` or a reboot of this machine
        left. Raises Exit for all that can be foreseen to fail.
        """
        if reason := self.why_not():
            raise Exit(reason)
        if suite not in image.SUITES:
            raise Exit(f"No suite {suite!r}. Choose one of {', '.join(image.SUITES)}.")
        if not 1 <= count <= MOST:
            raise Exit(f"--count is {count}. Give 1 to {MOST}.")
        with alone(self.state, self.say):
            self.state.chmod(0o700)
            self._install_missing()
            wanted = set(range(1, count + 1))
            fresh = sorted(wanted - set(self._numbers()))
            base = image.base(self.images, suite, self.say) if fresh else None
            subnet = self.network.open()
            nspawn.prepare()
            self._start_store(str(gateway(subnet)), bucket)
            if base:
                self._copy(base, fresh, subnet)
            there = [machine for machine in self.machines() if machine.number in wanted]
            started = time.monotonic()
            for machine in there:
                if not machine.booted:
                    self._boot(machine, subnet)
            for machine in there:
                self._wait_for_ssh(machine)
                if not machine.booted:
                    took = time.monotonic() - started
                    self.say(f"booted {machine.alias} ({machine.suite}) in {took:.1f} s")
            self._store().wait(self._mark("store"), self._log("store"))
            return self._write_ssh_config()

    def down(self, aliases: list[str] | None = None) -> list[str]:
        """Take hosts down and delete them; with the last one, all that they needed.

        Works on whatever is left of them, any number of times. Returns the aliases that went.
        Raises Exit when an alias is unknown.
        """
        if sys.platform != "linux":
            return []
        if os.geteuid() != 0:
            raise Exit("Rehearsal hosts need root. Run it again as root.")
        with alone(self.state, self.say):
            known = {alias(number): number for number in self._numbers()}
            for unknown in set(aliases or ()) - set(known):
                raise Exit(
                    f"No rehearsal host {unknown!r}. There are: {', '.join(known) or 'none'}."
                )
            going = [name for name in known if aliases is None or name in aliases]
            for name in going:
                self._remove(known[name])
            if self._numbers():
                self._write_ssh_config()
            else:
                self._leave_nothing()
            return going

    def reboot(self, alias: str) -> Machine:
        """Reboot a host from the inside, and wait until it answers again."""
        before = self._running(alias)
        self.run(alias, "systemctl", "reboot")
        deadline = time.monotonic() + PATIENCE
        while nspawn.leader(self._mark(before.number)) in (before.pid, None):
            if time.monotonic() > deadline:
                raise Exit(f"{alias} did not reboot. Look at {self._log(before.name)}.")
            time.sleep(0.05)
        self._wait_for_ssh(before)
        return self._running(alias)

    def kill(self, alias: str) -> None:
        """Cut a host's power. `up` boots it again, with its disk as it was at that moment."""
        nspawn.cut_power(self._mark(self._running(alias).number))

    def run(self, alias: str, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program on a host as root, without SSH."""
        machine = self._running(alias)
        return subprocess.run(
            ["nsenter", f"--target={machine.pid}", "--all", "--", *argv],
            input=stdin,
            text=True,
            capture_output=True,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def lend_role(self, present: bool = True) -> None:
        """Give the hosts an instance role, as EC2 does at 169.254.169.254, or take it away."""
        running = self._store()
        self.network.lend_role(f"{running.address}:{running.port}" if present else None)

    def _start_store(self, at: str, bucket: str) -> None:
        running = store.running(self._mark("store"))
        if running is None or (running.address, running.bucket) != (at, bucket):
            processes.end(self._mark("store"))
            store.start(at, bucket, self._mark("store"), self._log("store"))

    def _copy(self, base: Path, numbers: list[int], subnet: IPv4Network) -> None:
        """Copy the base image for each new host, all at a time; a whole one gets its name."""
        started = time.monotonic()
        self.roots.mkdir(parents=True, exist_ok=True)
        processes.end(self._mark("copy"))
        ours = processes.environment(self._mark("copy"))
        copies = []
        for number in numbers:
            partial = self._partial(number)
            clear(partial)
            words = ["cp", "--archive", "--reflink=auto", str(base), str(partial)]
            copies.append((number, subprocess.Popen(words, env=ours)))
        for number, copy in copies:
            if copy.wait():
                raise Exit(f"The base image could not be copied to {self.roots}. Make room there.")
            host.furnish(self._partial(number), self._name(number), str(subnet))
            self._partial(number).rename(self._root(number))
        self.say(f"copied the base image in {time.monotonic() - started:.1f} s")

    def _boot(self, machine: Machine, subnet: IPv4Network) -> None:
        mark, log = self._mark(machine.number), self._log(machine.name)
        host.connect(machine.root, f"{machine.address}/{subnet.prefixlen}", str(gateway(subnet)))
        processes.end(mark)
        nspawn.tidy(machine.name)
        nspawn.boot(machine.root, machine.name, self.network.bridge, mark, log)

    def _wait_for_ssh(self, machine: Machine) -> None:
        deadline = time.monotonic() + PATIENCE
        while not host.answers(machine.address):
            if not processes.marked(self._mark(machine.number)):
                last = processes.last_line(self._log(machine.name).read_text(errors="replace"))
                raise Exit(f"{machine.alias} did not boot: {last}. Take it down and up again.")
            if time.monotonic() > deadline:
                raise Exit(
                    f"{machine.alias} did not answer at {machine.address} within "
                    f"{PATIENCE:.0f} s. Look at {self._log(machine.name)}."
                )
            time.sleep(0.05)

    def _write_ssh_config(self) -> list[Machine]:
        machines = self.machines()
        for machine in machines:
            host.admit(machine.root, self._public_key())
        known_hosts = self.state / "known_hosts"
        keys = [f"{machine.name} {host.public_key(machine.root)}" for machine in machines]
        _write(known_hosts, "".join(f"{key}\n" for key in keys))
        _write(self.ssh_config, ssh_config(machines, self._key(), known_hosts))
        return [machine for machine in machines if machine.booted]

    def _remove(self, number: int) -> None:
        nspawn.cut_power(self._mark(number))
        nspawn.tidy(self._name(number))
        root = self._root(number)
        partial = self._partial(number)
        clear(partial)
        if root.exists():
            root.rename(partial)  # the name goes first: a host that is half deleted is none
        clear(partial)
        root.with_name(f".#{root.name}.lck").unlink(missing_ok=True)
        self._log(self._name(number)).unlink(missing_ok=True)

    def _leave_nothing(self) -> None:
        processes.end(self._mark("store"))
        processes.end(self._mark("copy"))
        for partial in self.roots.glob(f"sandbox-{self.group}-*.partial"):
            clear(partial)
        self.network.close()
        with alone(Path("/run")):
            if not others(self.network):
                nspawn.restore()
        for name in (
            "id_ed25519",
            "id_ed25519.pub",
            "known_hosts",
            "ssh_config",
            "store.log",
        ):
            (self.state / name).unlink(missing_ok=True)
        for composed in self.state.glob(
            "ssh_config.*"
        ):  # with the operator's own, by engine/ssh.py
            composed.unlink()
        for folder in (self.state, self.roots):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _install_missing(self) -> None:
        if missing := packages.missing():
            started = time.monotonic()
            self.say(f"installing {', '.join(missing)} on this machine")
            packages.install(missing)
            self.say(f"installed them in {time.monotonic() - started:.0f} s")

    def _running(self, wanted: str) -> Machine:
        for number in self._numbers():
            if alias(number) == wanted:
                machine = self._machine(number, self.network.subnet())
                if machine.booted:
                    return machine
        raise Exit(f"No rehearsal host {wanted!r} is running. Bring it up first.")

    def _machine(self, number: int, subnet: IPv4Network | None) -> Machine:
        return Machine(
            name=self._name(number),
            alias=alias(number),
            address=str(address(subnet, number)) if subnet else "",
            suite=host.suite(self._root(number)),
            pid=nspawn.leader(self._mark(number)),
            root=self._root(number),
        )

    def _store(self) -> store.Store:
        running = store.running(self._mark("store"))
        if running is None:
            raise Exit("The AWS stand-in is not running. Bring a rehearsal host up first.")
        return running

    def _numbers(self) -> list[int]:
        pattern = re.compile(rf"sandbox-{self.group}-(\d+)")
        names = os.listdir(self.roots) if self.roots.is_dir() else []
        return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))

    def _name(self, number: int) -> str:
        return f"sandbox-{self.group}-{number}"

    def _root(self, number: int) -> Path:
        return self.roots / self._name(number)

    def _partial(self, number: int) -> Path:
        return self.roots / f"{self._name(number)}.partial"

    def _mark(self, who: int | str) -> str:
        return f"{self.group}/{who}"

    def _log(self, name: str) -> Path:
        return self.state / f"{name}.log"

    def _key(self) -> Path:
        return self.state / "id_ed25519"

    def _public_key(self) -> str:
        if not self._key().exists():
            host.make_key(self._key(), "rehearsal")
        return self._key().with_suffix(".pub").read_text().strip()


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    part.touch(mode=0o600)
    part.write_text(text)
    part.replace(path)


def ours() -> Rehearsal:
    """Return the rehearsal hosts of this clone."""
    return Rehearsal(paths.rehearsal(), console.say)
