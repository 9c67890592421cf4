"""What stands in for real hosts: a connection that only notes, and an SSH server on loopback."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import paramiko
from invoke import Context, Result

import fabfile
from tasks.changes import files as files_changes
from tasks.changes import owner, releases
from tasks.changes.bucket import proof
from tasks.changes.files import auth_config
from tasks.engine import backup_keys, change, stores
from tasks.engine.facts import KEYS, PACKAGES, Facts, Managed, Unit
from tasks.engine.server import Server
from tasks.engine.settings import Settings
from tasks.engine.ssh import Client, Target
from tasks.engine.task import Turn
from tasks.engine.templates import APP_MARK, FILES, app, app_folder

SETTINGS = Settings(bucket="my-bucket")
ROOT = "/home/ubuntu/mlflow-server"
BACKUP_KEY = "ab" * 32  # of every host, and of everybody who works on one
# What every bundle of changes holds beside the changes' own files.
RUNNER = {"change.sh", "settle.sh", "words.sh", "variables.sh", "steps.sh"}


def target(alias: str = "ec2", **values: Any) -> Target:
    """What OpenSSH makes of an alias that says nothing special."""
    defaults: dict[str, Any] = {
        "hostname": "192.0.2.1",
        "user": "ubuntu",
        "port": 22,
        "identities": (),
        "identities_only": True,
        "identity_agent": "none",
        "known_hosts": (),
        "global_known_hosts": (),
        "key_alias": None,
        "checking": "ask",
        "hash_known_hosts": False,
        "proxy_command": None,
        "connect_timeout": None,
        "ciphers": (),
    }
    return Target(alias=alias, **(defaults | values))


# -- a connection that runs nothing ------------------------------------------------------------


@dataclass
class Run:
    """One command as it was asked for."""

    command: str
    stdin: bytes
    options: dict[str, Any]

    @property
    def files(self) -> dict[str, str]:
        """The bundle on standard input, by name."""
        with tarfile.open(fileobj=io.BytesIO(self.stdin)) as archive:
            return {entry.name: _text(archive, entry) for entry in archive}

    @property
    def steps(self) -> str:
        return self.files["steps.sh"]


def request(files: Mapping[str, str | bytes], program: str) -> Any:
    """Return what a program of the host's is asked, as it is staged beside it."""
    return json.loads(files[program.removesuffix(".py") + ".json"])


def _text(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> str:
    stream = archive.extractfile(entry)
    assert stream is not None
    return stream.read().decode()


@dataclass
class Reply:
    """What the host says to one command."""

    stdout: str = ""
    stderr: str = ""
    exited: int = 0


class Recorder:
    """Notes every command; answers with the replies it was given, then with success."""

    def __init__(self, alias: str = "ec2", **values: Any) -> None:
        self.target = target(alias, **values)
        self.runs: list[Run] = []
        self.replies: list[Reply | BaseException] = []
        self.opened = 0
        self.closed = 0
        self.is_connected = True

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1

    def run(self, command: str, *, in_stream: io.BytesIO | bool, **options: Any) -> Result:
        stdin = in_stream.getvalue() if isinstance(in_stream, io.BytesIO) else b""
        self.runs.append(Run(command, stdin, options))
        stream = options.get("out_stream")
        reply = self.replies.pop(0) if self.replies else Reply("@exit 0\n" if stream else "")
        if isinstance(reply, BaseException):
            raise reply
        if stream:
            stream.write(reply.stdout)
        return Result(
            stdout=reply.stdout, stderr=reply.stderr, exited=reply.exited, command=command
        )

    @property
    def commands(self) -> list[str]:
        return [run.command for run in self.runs]

    @property
    def changes(self) -> list[Run]:
        """The runs that brought a bundle."""
        return [run for run in self.runs if run.stdin]


class Task(Context):
    """A remote task's context: what a task function gets as `c`."""

    server: Server
    turn: Turn

    def __init__(self, server: Server, turn: Turn | None = None) -> None:
        super().__init__()
        self._set(server=server, turn=turn or Turn(everywhere=[server]), tasks=fabfile.namespace)

    def handed(self, **values: Any) -> Task:
        """The same, with another turn."""
        self._set(turn=replace(self.turn, **values))
        return self

    @property
    def recorder(self) -> Recorder:
        return self.server.connection


def context(
    facts: Facts | None = None,
    settings: Settings = SETTINGS,
    alias: str = "ec2",
    rehearsal: bool = False,
    named: bool = False,
    **variables: str,
) -> Task:
    """A task's context on a recorder, with the facts already looked at."""
    given = {backup_keys.VARIABLE: BACKUP_KEY} | variables
    server = Server(Recorder(alias), settings, Client(), given, rehearsal, named)
    server._facts = facts
    # Facts stay what they are: the recorder has no host to look at again.
    if facts is not None:
        server.forget = lambda: None  # type: ignore[method-assign]
    return Task(server)


# -- hosts at a moment -------------------------------------------------------------------------


def blank(**values: Any) -> Facts:
    """A fresh Debian 12 instance."""
    given: dict[str, Any] = {
        "home": "/home/ubuntu",
        "user": "ubuntu",
        "root": ROOT,
        "now": 1_800_000_000,
        "hostname": "ip-10-0-0-5",
        "sudo": True,
        "os": "debian 12",
        "machine": "x86_64",
        "systemd": True,
        "python": (3, 11, 2),
        "cores": 2,
        "memory_kb": 4_000_000,
        "disk_kb": 80_000_000,
        "free_kb": 20_000_000,
    }
    return Facts(**(given | values))


def installed(settings: Settings = SETTINGS, **values: Any) -> Facts:
    """That host after `install`."""
    lock = (FILES / "tools.txt").read_text()
    release = releases.release_of(settings)
    given: dict[str, Any] = {
        "packages": frozenset(PACKAGES),
        "tools": change.digest(lock),
        "release": release,
        "complete": frozenset({release}),
    }
    return blank(**(given | values))


def configured(settings: Settings = SETTINGS, **values: Any) -> Facts:
    """That host after `configure`, by its instance role."""
    given: dict[str, Any] = {
        "proved": proof(settings, None),
        "server_env": KEYS | {"MLFLOW_BACKEND_STORE_URI"},
        "bootstrap": True,
    }
    return installed(settings, **(given | values))


def deployed(settings: Settings = SETTINGS, **values: Any) -> Facts:
    """That host after `deploy`: nothing is left to do."""
    before = configured(settings)
    before = replace(before, **{key: value for key, value in values.items() if key != "well"})
    shipped = files_changes.files(settings, before)
    text = auth_config(settings, stores.sqlite(before, "basic_auth.db"), settings.username)
    shipped.append(files_changes.File(f"{before.root}/.mlflow_auth_config", "600", text))
    unit = Unit("loaded", "active", "running", "enabled", since=1_799_999_000, memory=431 << 20)
    names = (f"{settings.unit}.service", f"{settings.unit}.socket", "nginx.service")
    given: dict[str, Any] = {
        "bootstrap": False,
        "server_id": "1a2b3c4d",
        "backup_key": backup_keys.id_of(BACKUP_KEY),
        "owned": owner.mark_text(settings, replace(before, server_id="1a2b3c4d")),
        "users": 1,
        "schema": "abc",
        "runs": 3,
        "experiments": 1,
        "database": "sqlite",
        "database_bytes": 5_000_000,
        "workers": 1,
        "files": {
            file.path: Managed(sha256(file.text), file.mode) for file in (*shipped, mark(settings))
        },
        "units": dict.fromkeys(names, unit),
        "well": files_changes.deploy_digest(shipped, before),
    }
    return replace(before, **(given | values))


def mark(settings: Settings) -> files_changes.File:
    """Return the file that says that the whole wall is there."""
    path = f"{app_folder(settings.unit)}/{APP_MARK}"
    return files_changes.File(path, "644", app()[APP_MARK])


def sha256(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


# -- an SSH server on loopback -----------------------------------------------------------------


@dataclass
class Session:
    """One command that the host was asked to run."""

    command: str
    channel: paramiko.Channel
    pty: bool = False
    closed: threading.Event = field(default_factory=threading.Event)

    def say(self, data: str | bytes) -> None:
        self.channel.sendall(data.encode() if isinstance(data, str) else data)

    def stdin(self) -> bytes:
        """Read standard input to its end."""
        parts = []
        while part := self.channel.recv(65536):
            parts.append(part)
        return b"".join(parts)


ACCEPTED = 99  # SSH_MSG_CHANNEL_SUCCESS, RFC 4254

Answer = Callable[[Session], int | None]


class Host:
    """An SSH server that plays a host: counts logins, notes commands and answers as it is told.

    `answer` returns the exit code, or None to leave the channel as it is.
    """

    def __init__(self, allowed: paramiko.PKey, answer: Answer = lambda session: 0) -> None:
        self.key: paramiko.PKey = paramiko.ECDSAKey.generate()
        self.allowed = allowed
        self.answer = answer
        self._logins: set[_Interface] = set()
        self.sessions: list[Session] = []
        self._transports: list[paramiko.Transport] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def commands(self) -> list[str]:
        return [session.command for session in self.sessions]

    @property
    def name(self) -> str:
        """How known_hosts spells it."""
        return f"[127.0.0.1]:{self.port}"

    def line(self, name: str | None = None, key: paramiko.PKey | None = None) -> str:
        """Its line in known_hosts."""
        key = key or self.key
        return f"{name or self.name} {key.get_name()} {key.get_base64()}\n"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
                # As sshd does; without it every answer may wait 40 ms for an acknowledgement.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        transport = paramiko.Transport(connection)
        self._transports.append(transport)
        transport.add_server_key(self.key)
        try:
            transport.start_server(server=_Interface(self))
        except (paramiko.SSHException, EOFError, OSError):
            transport.close()

    def accepted(self, login: _Interface) -> None:
        """Count a login once: a client asks whether a key would do, then proves it."""
        self._logins.add(login)

    @property
    def logins(self) -> int:
        return len(self._logins)

    def hang_up(self) -> None:
        """Drop every connection, as a lost network does in the end."""
        for transport in self._transports:
            transport.close()

    def close(self) -> None:
        # Closing alone would leave the socket to the thread that waits for the next login.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.hang_up()


class _Interface(paramiko.ServerInterface):
    def __init__(self, host: Host) -> None:
        self._host = host
        self._pty = False

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if key != self._host.allowed:
            return paramiko.AUTH_FAILED
        self._host.accepted(self)
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_pty_request(self, channel: paramiko.Channel, *size: Any) -> bool:
        self._pty = True
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        session = Session(command.decode(), channel, self._pty)
        self._host.sessions.append(session)
        transport: Any = channel.get_transport()
        send = transport._send_user_message

        def begin_once_accepted(message: paramiko.Message) -> None:
            send(message)
            if message.asbytes()[0] == ACCEPTED:
                transport._send_user_message = send
                threading.Thread(target=self._run, args=(session,), daemon=True).start()

        transport._send_user_message = begin_once_accepted
        return True

    def _run(self, session: Session) -> None:
        try:
            code = self._host.answer(session)
            if code is None:
                return
            session.channel.send_exit_status(code)
            session.channel.close()
        except (OSError, EOFError):
            session.closed.set()


class Network:
    """Hosts on loopback, and the ssh configuration that knows them by their aliases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.login: paramiko.PKey = paramiko.ECDSAKey.generate()
        self.key = folder / "id_ecdsa"
        self.login.write_private_key_file(str(self.key))
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.touch()
        self.config = folder / "ssh_config"
        self.config.touch()
        self.hosts: dict[str, Host] = {}

    def add(self, alias: str, answer: Answer = lambda session: 0, known: bool = True) -> Host:
        """Start a host; its key is in known_hosts unless it shall not be known."""
        host = self.hosts[alias] = Host(self.login, answer)
        if known:
            with self.known_hosts.open("a") as stream:
                stream.write(host.line())
        self.block(alias, host.port)
        return host

    def block(self, alias: str, port: int, *lines: str) -> None:
        """Add a Host block to the configuration."""
        options = (
            "HostName 127.0.0.1",
            f"Port {port}",
            "User ubuntu",
            f'IdentityFile "{self.key}"',
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f'UserKnownHostsFile "{self.known_hosts}"',
            "GlobalKnownHostsFile none",
            *lines,
        )
        with self.config.open("a") as stream:
            stream.write("\n".join((f"Host {alias}", *(f"  {line}" for line in options), "")))

    def client(self) -> Client:
        return Client(str(self.config))

    def target(self, alias: str, **values: Any) -> Target:
        """The target of an alias, without asking OpenSSH."""
        host = self.hosts[alias]
        given: dict[str, Any] = {
            "hostname": "127.0.0.1",
            "port": host.port,
            "identities": (str(self.key),),
            "known_hosts": (self.known_hosts,),
        }
        return target(alias, **(given | values))

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()
