"""The only module that talks to a host: it runs what the others build.

It owns the login, sudo, timeouts, redaction and, around every change, the lock and the audit
line. Secrets travel on standard input, in a tar that is unpacked in memory; a command line never
holds one.
"""

from __future__ import annotations

import getpass
import io
import os
import socket
import tarfile
import threading
import time
from typing import TYPE_CHECKING

from invoke import Exit
from invoke.exceptions import CommandTimedOut, ThreadException

from tasks.engine import probe
from tasks.engine.change import Change, bundle
from tasks.engine.console import confirm, console, seconds
from tasks.engine.shell import sh
from tasks.engine.streams import Alive, Lines
from tasks.engine.templates import source
from tasks.engine.typed import completed, ssh, typed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO, Any

    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings
    from tasks.engine.ssh import Client

OUTDATED = 76  # exit code of files/host/engine/change.sh

TIMEOUT = 60  # seconds for anything that only reads

# How a command is run, whatever `run:` in fabric.yaml has for tasks of somebody's own.
PLAIN = {
    "warn": True,
    "pty": False,
    "echo": False,
    "asynchronous": False,
    "disown": False,
    "watchers": [],
    "env": {},
    "encoding": "utf-8",
}

DRAWN = 1 << 20  # bytes that are read from the network at once

CHANGE_TIMEOUT = 1800  # seconds; a first apt upgrade of a fresh instance can hold its lock long

TURN = 900  # seconds that a later step waits for another operator's task

GOES_ON = "The step in progress finishes on {host}. Run the same command again to continue."


class Outdated(Exit):
    """The host changed after it was looked at: nothing was done, another look is due."""


class StepFailed(Exit):
    """A step of a change failed; `reports` is what the steps had reported until then."""

    def __init__(self, message: str, reports: Sequence[str]) -> None:
        super().__init__(message)
        self.args, self.reports = (message,), reports


class Failed(Exit):
    """A command on the host failed in a way that nobody foresaw."""


class Server:
    """One host and what it should be; facts are read once and forgotten after every change."""

    def __init__(
        self,
        connection: Any,
        settings: Settings,
        client: Client,
        variables: Mapping[str, str] | None = None,
        rehearsal: bool = False,
        named: bool = False,
    ) -> None:
        self.connection = connection
        self.settings = settings
        self.client = client
        self.name: str = connection.target.alias
        self.identity: str = connection.target.identity
        # A rehearsal host never sees the operator's own keys and logins.
        self.variables = os.environ if variables is None else variables
        self.rehearsal = rehearsal
        self._named = named  # whether this command line names the environment, by `use`
        self._facts: Facts | None = None
        self._lock = threading.Lock()
        self.execs = 0
        self.changed = False
        self._under_way = False  # whether a step of this command was done here before
        # Ctrl-C, for a task that waits for something else than the host.
        self.interrupted = threading.Event()

    def beside(self, settings: Settings) -> Server:
        """Return another environment's server of the same host, or this one."""
        if settings == self.settings:
            return self
        return Server(self.connection, settings, self.client, self.variables, self.rehearsal)

    @property
    def place(self) -> str:
        """Name host and environment to people."""
        return f"{self.name} ({self.settings.label})"

    def fab(self, *words: str) -> str:
        """Spell what an operator types to have tasks run on this server."""
        return typed(self.name, self.settings.environment, *words)

    def go_on(self) -> None:
        """Have what follows wait its turn, where the first step of a command fails at once."""
        self._under_way = True

    # -- talking to the operator -------------------------------------------------------------

    def say(self, text: str, style: str | None = None) -> None:
        """Print lines to the operator, as the host's."""
        console.say(self.completed(text), self.name, style)

    def warn(self, text: str) -> None:
        """Print what the operator should look at, as the host's."""
        console.warn(self.completed(text), self.name)

    def completed(self, text: str) -> str:
        """Have the commands in a text be such as can be typed, for this server."""
        return completed(text, self.name, self.settings.environment)

    def confirm(self, question: str, yes: bool, consequence: str = "") -> bool:
        """Return the answer to a question before a loss; raises Exit where nobody can give it.

        Where the settings say `confirm: name`, --yes answers only a command that names the
        environment itself, by `use`; a variable or the default does not.
        """
        wanted = self.settings.confirm == "name" and not (yes and self._named)
        return confirm(question, yes, consequence, self.settings.label if wanted else "")

    # -- reading -----------------------------------------------------------------------------

    def run(
        self,
        command: str,
        *,
        input: bytes | None = None,
        timeout: float | None = TIMEOUT,
        check: bool = True,
        on_line: Callable[[str], None] | None = None,
        follow: bool = False,
    ) -> Any:
        """Run one command on the host, in one exec, and return Fabric's Result.

        `input` goes to its standard input, which stays open with signs of life where the command
        is to `follow` something until it ends; `on_line` sees every line of output as it comes.
        Raises Exit with the last line of its error output where it fails and `check` holds.
        """
        self.connection.open()
        self.execs += 1
        stream = Lines(on_line) if on_line else None
        stdin = (Alive if follow else io.BytesIO)(input or b"")
        try:
            result = self.connection.run(
                command,
                # Output that is not shown as it comes is captured silently.
                hide="stderr" if stream else True,
                out_stream=stream,
                in_stream=stdin,
                timeout=None if follow else timeout,
                **PLAIN,
            )
        except CommandTimedOut:
            raise Exit(
                f"{self.name} did not finish within {seconds(timeout or 0)}. "
                "Look at the host, then run the same command again."
            ) from None
        except lost(OSError, ThreadException) as error:
            raise Exit(self._lost(error, follow)) from error
        if stream:
            stream.close()
        if result.exited == -1:
            raise Exit(self._lost(None, follow))
        if check and result.exited:
            said = (result.stderr or result.stdout).strip().splitlines() or ["it said nothing"]
            raise Failed(f"A command on {self.name} failed ({result.exited}): {said[-1]}")
        return result

    def _lost(self, error: Exception | None, follow: bool) -> str:
        if isinstance(error, ThreadException):  # its text is a traceback
            error = error.exceptions[0].value
        reason = f" ({error})" if error and str(error) else ""
        then = "Run the same command again." if follow else GOES_ON.format(host=self.name)
        return f"The connection to {self.name} was lost{reason}. {then}"

    def read(self, command: str, **options: Any) -> str:
        """Return what a command prints; takes and raises what `run` does."""
        return str(self.run(command, **options).stdout)

    @property
    def facts(self) -> Facts:
        """Look at the host, in one exec, unless nothing changed since the last look.

        Raises Exit as `look_at` does.
        """
        with self._lock:
            if self._facts is None:
                self._learn([self])
            assert self._facts is not None
            return self._facts

    def look_at(self, servers: Sequence[Server]) -> None:
        """Look at servers of this host in one exec; what is known of one is not asked again.

        Raises Exit as `run` does, and where the login runs no commands.
        """
        if unknown := [server for server in servers if server._facts is None]:
            self._learn(unknown)

    def _learn(self, servers: Sequence[Server]) -> None:
        text = self.read(probe.command(*(server.settings for server in servers)))
        try:
            found = [probe.parse(part) for part in probe.parts(text, len(servers))]
        except ValueError:
            # EC2 images answer root with a sentence instead of a shell, and exit 0.
            said = (text.strip().splitlines() or ["nothing"])[0]
            raise Exit(
                f"{self.name} does not let {self.connection.target.user} run commands; it "
                f"says: {said}. Log in as another user: -H USER@HOST."
            ) from None
        for server, facts in zip(servers, found, strict=True):
            server._facts = self._asked_of_guide(server.settings, facts)

    def _asked_of_guide(self, settings: Settings, facts: Facts) -> Facts:
        """Look again where somebody else's environment lies: few hosts need this second exec."""
        if not facts.foreign:
            return facts
        return probe.with_guide(facts, self.read(probe.guide_command(settings, facts), check=False))

    def forget(self) -> None:
        """Look again at the next question."""
        self._facts = None

    def interrupt(self) -> None:
        """End what runs here: another thread heard Ctrl-C."""
        self.interrupted.set()
        self.connection.close()

    # -- changing ----------------------------------------------------------------------------

    def apply(self, task: str, changes: Sequence[Change], decided: bool = True) -> list[str]:
        """Make all the changes in one exec, under the lock, with an audit line.

        `decided` says that they follow from the facts, and are void where the host changed since.
        Returns what the steps reported (`@report ...` lines). Raises Outdated in that case, and
        StepFailed when another operator holds the lock or a step failed.
        """
        facts = self.facts
        generation = str(facts.generation) if decided else "-"
        patience = str(TURN if self._under_way else 0)
        arguments = (facts.root, operator(), task, generation, patience)
        with console.waiting(f"{task} on {self.name}", self.name):
            try:
                said = self._deliver("change.sh", changes, *arguments, timeout=CHANGE_TIMEOUT)
            except KeyboardInterrupt:
                self.warn(f"Interrupted. {GOES_ON.format(host=self.name)}")
                raise
        self.forget()
        if said.exit == 0:
            self.changed = self._under_way = True
            return said.reports
        if said.exit == OUTDATED:
            raise Outdated(
                f"Somebody else changed {self.name} at the same moment. Nothing was done here; "
                f"run the same command again."
            )
        raise StepFailed(said.reason(task), said.reports)

    def look(self, task: str, steps: Sequence[Change], timeout: float = TIMEOUT) -> list[str]:
        """Run steps that only read, in one exec, without the lock and without an audit line.

        They may bring files, secrets among them, as changes do. Returns what they reported
        (`@report ...` lines); raises Exit where one failed.
        """
        said = self._deliver("look.sh", steps, self.settings.root_path, timeout=timeout)
        if said.exit != 0:
            raise Exit(said.reason(task))
        return said.reports

    def draw(self, task: str, steps: Sequence[Change], take: Callable[[IO[bytes]], None]) -> None:
        """Run steps that only read, in one exec, and `take` what they write to descriptor 3.

        It comes as bytes while they run, however much it is. Raises Exit where one failed or the
        connection was lost; what was taken until then is worth nothing.
        """
        self.connection.open()
        self.execs += 1
        said = Talk(self)
        # What the steps say goes beside it.
        script = f"exec 3>&1 1>&2\n{source('receive.sh')}"
        arguments = ("remote-mlflow", "look.sh", self.settings.root_path)
        failure: Exception | None = None
        try:
            with self.connection.transport.open_session(timeout=TIMEOUT) as channel:
                channel.settimeout(TIMEOUT)
                channel.exec_command(sh("bash", "-c", script, *arguments))
                try:
                    channel.sendall(bundle(steps, "look.sh"))
                except OSError as error:  # paramiko's, for a connection that broke
                    raise EOFError(str(error)) from error
                channel.shutdown_write()
                try:
                    take(channel.makefile("rb", DRAWN))
                except tarfile.TarError as error:
                    failure = error  # cut short; the host says why
                for line in channel.makefile_stderr("r"):
                    said(line.rstrip("\r\n"))
        except lost(TimeoutError) as error:
            raise Exit(self._lost(error, follow=True)) from error
        if said.exit != 0 or failure:
            raise Exit(said.reason(task))

    def _deliver(
        self, runner: str, steps: Sequence[Change], *arguments: str, timeout: float
    ) -> Talk:
        """Send steps with their files in one exec; `runner` is the script that runs them."""
        said = Talk(self)
        self.run(
            sh("bash", "-c", source("receive.sh"), "remote-mlflow", runner, *arguments),
            input=bundle(steps, runner),
            timeout=timeout,
            on_line=said,
            check=False,
        )
        return said


class Talk:
    """Sort the lines that the host's side of a change prints."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._started = time.monotonic()
        self._rest: list[str] = []
        self._failure: str | None = None
        self.reports: list[str] = []
        self.exit: int | None = None

    def __call__(self, line: str) -> None:
        word, _, text = line.partition(" ")
        if word == "@say":
            console.now(text)
            self._server.say(f"  {seconds(time.monotonic() - self._started):>6}  {text}")
        elif word == "@now":
            console.now(text)
        elif word == "@warn":
            self._server.warn(f"  {text}")
        elif word == "@fail":
            self._failure = text
        elif word == "@report":
            self.reports.append(text)
        elif word == "@held":
            holder, since, task, pid = [*text.split("\t"), "", "", ""][:4]
            self._failure = (
                f"{holder} holds the lock of {self._server.place} since {since} ({task}). Wait for "
                f"it and run the same command again; if that process hangs, end it: "
                f"{ssh(self._server.name, 'kill', pid)}"
            )
        elif word == "@exit":
            self.exit = int(text)
        elif line:
            self._rest = [*self._rest, line][-15:]

    def reason(self, task: str) -> str:
        """Say why the change failed; the host's own last lines where nobody foresaw it."""
        if self._failure:
            return self._failure
        for line in self._rest:
            console.fail(f"  | {line}", self._server.name)
        how = "was cut short" if self.exit is None else f"failed ({self.exit})"
        return (
            f"{task} on {self._server.name} {how}; the lines above are the host's. "
            "Fix what they name, then run the same command again."
        )


def lost(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return what Paramiko raises where a connection broke, and others; by then it is loaded."""
    from paramiko.ssh_exception import SSHException

    return SSHException, EOFError, *others


def operator() -> str:
    """Name who is at work, for the lock and the audit line."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
