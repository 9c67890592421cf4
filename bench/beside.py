"""./fab beside Ansible and pyinfra: each has a converged host of its own, behind 50 ms.

Each host answers under as many names as a fleet has. All three tools work as they do best for that:
at all hosts at a time; Ansible with pipelining and with connections that it keeps open from one
command to the next. What they do is in `peers/`: the same packages, files and units.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measuring import Cost, seconds_of, spent
from round_trips import CHAIN, delayed, rehearsal_host

from tasks.changes import releases
from tasks.engine.paths import PROJECT
from tasks.engine.settings import Settings
from tasks.rehearsal import Rehearsal
from tasks.rehearsal.machine import Machine

OURS, ANSIBLE, PYINFRA = TOOLS = ("./fab", "Ansible", "pyinfra")
VERSIONS = {ANSIBLE: "ansible-core==2.19.14", PYINFRA: "pyinfra==3.10.0"}
PEERS = PROJECT / "bench/peers"
MOST = 64  # names of each host
KEPT = "1800s"  # so long Ansible's connections stay
UV = PROJECT / ".venv/bin/uv"
# sshd of Debian turns away who is one of more than ten that have not logged in yet.
ADMIT = (
    f"printf 'MaxStartups {8 * MOST}\\nMaxSessions {8 * MOST}\\n'"
    " > /etc/ssh/sshd_config.d/fleet.conf"
)


@dataclass(frozen=True)
class Measured:
    """One command: what it cost here, and the CPU seconds that the host spent on it."""

    here: Cost
    host: float


@dataclass
class Beside:
    """The three tools in one home."""

    hosts: Rehearsal
    home: Path
    environment: dict[str, str]
    machines: dict[str, Machine]

    @property
    def ssh_config(self) -> Path:
        return self.home / "fleet"

    def names(self, tool: str, count: int) -> list[str]:
        """Return so many names of a tool's host."""
        return [f"{tool.strip('./').lower()}{number}" for number in range(1, count + 1)]

    def on_host(self, tool: str, script: str) -> str:
        """Run bash on a tool's host as root; returns what it prints, raises where it fails."""
        done = self.hosts.run(self.machines[tool].alias, "bash", "-euc", script)
        done.check_returncode()
        return done.stdout

    def warm_up(self, tool: str) -> None:
        """Have a tool meet all its hosts: Ansible keeps the connections, ./fab what it learned."""
        if tool == ANSIBLE:
            words, variables = self._command(tool, self.names(tool, MOST), 5000)
            program = str(Path(words[0]).with_name("ansible"))
            words = [program, "all", *words[1:3], "-m", "ansible.builtin.raw", "-a", "true"]
            spent(words, self.environment | variables)
        elif tool == OURS:
            self.run(tool, MOST)

    def run(self, tool: str, count: int = 1, port: int = 5000) -> Measured:
        """Have a tool see to it that all is as it should be, on so many hosts."""
        words, variables = self._command(tool, self.names(tool, count), port)
        pids = [self.machines[tool].pid]
        before = seconds_of(pids)
        cost = spent(words, self.environment | variables)
        return Measured(cost, seconds_of(pids) - before)

    def _command(self, tool: str, names: list[str], port: int) -> tuple[list[str], dict[str, str]]:
        hosts, config, folder = ",".join(names), str(self.ssh_config), self.home / "peers/bin"
        values = {
            "bucket": self.environment["FABRIC_MLFLOW_BUCKET"],
            "endpoint": self.environment["FABRIC_MLFLOW_ENDPOINT_URL"],
            "lock": str(releases.RELEASES / f"{Settings().version}.txt"),
            "prefix": tool.lower(),
            "listen": str(port),
        }
        if tool == OURS:
            words = [str(PROJECT / "fab"), "-S", config, "-H", hosts, *CHAIN]
            return words, {"FABRIC_MLFLOW_PORT": str(port)}
        given = [f"{name}={value}" for name, value in values.items()]
        if tool == ANSIBLE:
            words = [
                str(folder / "ansible-playbook"),
                "-i",
                f"{hosts},",
                str(PEERS / "playbook.yml"),
            ]
            for value in (*given, "ansible_python_interpreter=/usr/bin/python3"):
                words += ["-e", value]
            kept = f"-F {config} -o ControlMaster=auto -o ControlPersist={KEPT}"
            return words, {
                "ANSIBLE_FORKS": str(len(names)),
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_SSH_ARGS": kept,
                "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.home / "kept"),
                "ANSIBLE_HOME": str(self.home / "ansible"),
                "LC_ALL": "C.UTF-8",
            }
        hosts = ",".join(f"@ssh/{name}" for name in names)  # a lone name would be a file's
        words = [str(folder / "pyinfra"), hosts, str(PEERS / "deploy.py"), "-y"]
        words += ["--parallel", str(len(names))]
        for value in (*given, f"ssh_config_file={config}", "ssh_strict_host_key_checking=off"):
            words += ["--data", value]
        return words, {}

    def log_out(self) -> None:
        """Close the connections that Ansible keeps."""
        for socket in (self.home / "kept").glob("*"):
            subprocess.run(
                ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "any"], capture_output=True
            )


@contextmanager
def converged(tools: tuple[str, ...] = TOOLS) -> Iterator[Beside]:
    """Boot a host for each tool, and have it made a server by that tool."""
    with rehearsal_host(len(tools)) as (hosts, home, environment):
        beside = prepared(hosts, home, environment)
        try:
            for tool in beside.machines:
                beside.run(tool)
            yield beside
        finally:
            beside.log_out()


def prepared(hosts: Rehearsal, home: Path, environment: dict[str, str]) -> Beside:
    """Give each tool a host, under all its names, and have the peers' own programs here."""
    machines = dict(zip(TOOLS, hosts.machines(), strict=False))
    beside = Beside(hosts, home, environment, machines)
    entries = hosts.ssh_config.read_text().strip().split("\n\n")
    for (tool, machine), entry in zip(machines.items(), entries, strict=False):
        beside.on_host(tool, f"{ADMIT}; systemctl reload ssh")
        rest = [line for line in entry.splitlines()[1:] if "HostName" not in line]
        lines = [
            f"Host {' '.join(beside.names(tool, MOST))}",
            "    HostName 127.0.0.1",
            f"    Port {delayed(machine.address)}",
            *rest,
        ]
        with beside.ssh_config.open("a") as config:
            config.write("\n".join(lines) + "\n\n")
    install = ["pip", "install", "--python", "peers", *VERSIONS.values()]
    for words in (["venv", "--clear", "peers"], install):
        subprocess.run([str(UV), *words, "--quiet"], cwd=home, check=True)
    return beside
