"""A Fabric connection that trusts host keys as OpenSSH does, and moves data at wire speed."""

from __future__ import annotations

import codecs
import getpass
import io
import logging
import os
import re
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import fabric
import paramiko
from fabric.runners import Remote
from invoke import Exit
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey
from paramiko.pkey import UnknownKeyType

from tasks.engine import session_manager
from tasks.engine.console import confirm, console, interactive
from tasks.engine.ssh import key_files
from tasks.engine.streams import Alive
from tasks.engine.typed import ssh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO, Any

    from tasks.engine.ssh import Target

# Paramiko logs a traceback of its own beside every error that we turn into one line.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

logging.getLogger("paramiko").propagate = False

CONNECT_TIMEOUT = 10  # seconds; OpenSSH would wait for the kernel's two minutes

KEEPALIVE = 30  # seconds; below the idle limits of common NAT gateways (AWS: 350 s)

# What names a file that a login reads.
FIX_KEY = "Fix -i, ProxyCommand, or `key_filename:` in fabric.yaml"

BEAT = 10  # seconds between signs of life to a command that would not end by itself

JOIN = 5  # seconds for the word to the host that its command was given up

_asking = threading.Lock()


class Runner(Remote):
    """Fabric's runner without its polling, its byte-wise stdin and its quadratic capture.

    Measured on loopback: 3 to 4 ms a command where the stock one takes 48.
    """

    read_chunk_size = 32768
    _killed = False

    def wait(self) -> None:
        """Return once the command has ended, or what reads its output has."""
        while not self.channel.status_event.wait(1):
            if self.has_dead_threads:
                return

    def kill(self) -> None:
        """Close the channel: the time is over."""
        self._killed = True
        super().kill()

    @property
    def timed_out(self) -> bool:
        """Tell whether the time was over, once all that this does is done.

        Invoke asks whether its timer still runs, and that closes the channel, which ends `wait`
        before it has told the host: a command that took too long passed for a lost connection.
        """
        if self._killed and self._timer:
            self._timer.join(JOIN)
        return self._killed

    def respond(self, buffer_: list[str]) -> None:
        """Answer what the output asks, where somebody watches it at all."""
        if self.watchers:
            super().respond(buffer_)

    def read_proc_output(self, reader: Callable[[int], bytes]) -> Iterator[str]:
        """Yield what a command prints as it comes; what is no text becomes a mark in its place."""
        # A character may lie across two packets.
        decoder = codecs.getincrementaldecoder(self.encoding)("replace")
        while data := reader(self.read_chunk_size):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)

    def handle_stdin(self, input_: IO[Any], output: IO[Any], echo: bool = False) -> None:
        """Send bytes that are all there at once, then signs of life where the stream is `Alive`."""
        if not isinstance(input_, io.BytesIO):
            super().handle_stdin(input_, output, echo)
            return
        try:
            self.channel.sendall(input_.getbuffer())
            while isinstance(input_, Alive) and not self.program_finished.wait(BEAT):
                self.channel.sendall(b"\n")
            self.channel.shutdown_write()
        except (OSError, EOFError):
            pass  # the command ended without reading it all; its exit code says why

    def send_interrupt(self, interrupt: KeyboardInterrupt) -> None:
        """End the command; raises the interrupt again where it has no terminal."""
        if self.using_pty:
            super().send_interrupt(interrupt)
            return
        # Without a terminal nothing else reaches the remote side (fabric#2268).
        self.channel.close()
        raise interrupt


class Connection(fabric.Connection):
    """One login to one host, shared by all tasks of a chain."""

    def __init__(self, target: Target, config: fabric.Config) -> None:
        config.runners.remote = Runner
        super().__init__(
            host=target.hostname,
            user=target.user,
            port=target.port,
            gateway=target.proxy_command or False,
            connect_timeout=config.connect_kwargs.get("timeout")  # -t
            or config.timeouts.connect
            or target.connect_timeout
            or CONNECT_TIMEOUT,
            config=config,
        )
        # As a part of the configuration it would have all of that merged anew by each word set.
        given = dict(self.connect_kwargs)
        given.pop("timeout", None)  # which Fabric refuses to be told twice
        self._set(connect_kwargs=given)
        self._set(target=target)
        self._set(original_host=target.alias)

    def open(self) -> Any:
        """Log in; raises Exit with one line that says what is wrong and what to type."""
        if self.is_connected:
            return None
        target: Target = self.target
        session_manager.refuse_without_programs(target.proxy_command)
        policy = self._learn_host_keys(target)
        self.connect_kwargs.update(_authentication(target, self.connect_kwargs))
        self.connect_kwargs["transport_factory"] = _transport
        try:
            try:
                result = super().open()
            except (paramiko.SSHException, EOFError, OSError) as error:
                if not policy.accepted or isinstance(error, paramiko.AuthenticationException):
                    raise
                # sshd hangs up on whoever compares a key for longer than two minutes.
                self._learn_host_keys(target)
                result = super().open()
        except Exit:
            raise
        except Exception as error:
            keys = self.connect_kwargs["key_filename"]
            raise Exit(explained(unmasked(error, keys), target)) from error
        self.transport.set_keepalive(KEEPALIVE)
        return result

    def _learn_host_keys(self, target: Target) -> HostKeyPolicy:
        """Tell Paramiko what OpenSSH's files say, under the name that Paramiko looks for.

        Returns what decides on a key that they do not know.
        """
        wanted = target.hostname if target.port == 22 else f"[{target.hostname}]:{target.port}"
        for file in (*target.known_hosts, *target.global_known_hosts):
            if not file.is_file():
                continue
            known: Any = host_keys(file).lookup(target.key_name) or {}
            for kind in known:
                self.client.get_host_keys().add(wanted, kind, known[kind])
        policy = HostKeyPolicy(target)
        self.client.set_missing_host_key_policy(policy)
        return policy


def _transport(sock: Any, **options: Any) -> paramiko.Transport:
    """Make a transport whose small packets leave at once: 5 ms a login where it would be 50."""
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return paramiko.Transport(sock, **options)


class HostKeyPolicy(paramiko.MissingHostKeyPolicy):
    """Treat an unknown host key as OpenSSH's StrictHostKeyChecking says."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.accepted = False  # by somebody who was asked

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:
        """Accept and remember the key, or raise Exit that says how to accept it."""
        target = self._target
        seen = f"{target.alias} ({target.hostname}) shows {kind(key)} key {key.fingerprint}"
        if target.checking in ("accept-new", "no", "off", "false"):
            self._remember(key)
            console.warn(f"{seen}, which is new and was added to known_hosts.", target.alias)
            return
        if target.checking == "ask" and interactive():
            with _asking:
                console.warn(f"{seen}, which is not in known_hosts.")
                if confirm("Trust this host and remember its key?", yes=False):
                    self.accepted = True
                    self._remember(key)
                    return
        raise Exit(
            f"Unknown host key: {seen}. Compare it with the console output of the instance, "
            f"then accept it once: {ssh(target.alias, 'true')}"
        )

    def _remember(self, key: paramiko.PKey) -> None:
        target = self._target
        file = target.known_hosts[0] if target.known_hosts else Path.home() / ".ssh/known_hosts"
        name = target.key_name
        if target.hash_known_hosts:
            name = paramiko.HostKeys.hash_host(name)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        # Somebody's editor may have left the last line without its end.
        open_end = file.is_file() and file.read_bytes()[-1:] not in (b"", b"\n")
        with os.fdopen(descriptor, "a") as stream:
            stream.write("\n" if open_end else "")
            stream.write(HostKeyEntry([name], key).to_line() or "")


def host_keys(file: Path) -> paramiko.HostKeys:
    """Read known_hosts, passing over lines that Paramiko dies of, such as @cert-authority."""
    found = paramiko.HostKeys()
    for line in file.read_text(errors="replace").splitlines():
        try:
            entry = HostKeyEntry.from_line(line.strip())
        except (paramiko.SSHException, InvalidHostKey, ValueError):
            continue
        if entry is not None:
            for name in entry.hostnames:
                found.add(name, entry.key.get_name(), entry.key)
    return found


def kind(key: paramiko.PKey) -> str:
    """Name the key's algorithm as people do: ED25519, RSA, ECDSA."""
    return key.get_name().removeprefix("ssh-").split("-")[0].upper()


def _authentication(target: Target, given: dict[str, Any]) -> dict[str, Any]:
    """Choose keys as OpenSSH would; an agent's keys too, unless the configuration says no."""
    chosen: dict[str, Any] = {"look_for_keys": False}
    keys = key_files(given.get("key_filename"))
    chosen["key_filename"] = [
        *keys,
        *(name for name in target.identities if name not in keys),
    ]
    agent = target.identity_agent != "none" and not target.identities_only
    chosen["allow_agent"] = agent and given.get("allow_agent") is not False
    if target.identities_only and target.identity_agent != "none":
        named = _agent_key_named_by(target.identities)
        if named is not None:
            chosen["pkey"] = named
    for limit in ("auth_timeout", "banner_timeout"):
        chosen[limit] = given.get(limit) or 30  # seconds
    return chosen


def _agent_key_named_by(identities: tuple[str, ...]) -> paramiko.PKey | None:
    """Return the agent's key whose public half stands beside a configured identity, or None."""
    public = {
        words[1]
        for name in identities
        if (file := Path(name.removesuffix(".pub") + ".pub")).is_file()
        and len(words := file.read_text().split()) > 1
    }
    if not public or "SSH_AUTH_SOCK" not in os.environ:
        return None
    return next((key for key in paramiko.Agent().get_keys() if key.get_base64() in public), None)


def unmasked(error: Exception, keys: Iterable[str]) -> Exception:
    """Return the reason that Paramiko hides: it reads a key as every kind and keeps a misfit.

    So a refused RSA or ECDSA key, such as EC2's own .pem, is reported as a malformed Ed25519 one.
    """
    misfits = ("expected OPENSSH key", "Invalid key", "not a valid", "No authentication methods")
    if type(error) is not paramiko.SSHException or not any(
        misfit in str(error) for misfit in misfits
    ):
        return error
    if any(_has_passphrase(key) for key in keys):
        return paramiko.PasswordRequiredException(str(error))
    return paramiko.AuthenticationException(str(error))


def _has_passphrase(key: str) -> bool:
    try:
        paramiko.PKey.from_path(key)
    except TypeError:  # what the cryptography package raises where a password is missing
        return True
    except (paramiko.SSHException, UnknownKeyType, ValueError, OSError):
        return False
    return False


def explained(error: Exception, target: Target) -> str:
    """Say in one line why a login failed and what to type next; `error` is Paramiko's."""
    host, user = target.alias, target.user
    place = f"{target.hostname} port {target.port}"
    if isinstance(error, paramiko.BadHostKeyException):
        return (
            f"The host key of {host} has CHANGED: it shows {kind(error.key)} "
            f"{error.key.fingerprint}, known_hosts says {error.expected_key.fingerprint}. "
            "If the instance was rebuilt, forget the old one: "
            f"ssh-keygen -R '{target.key_name}'; if not, somebody may be listening."
        )
    if isinstance(error, paramiko.PasswordRequiredException):
        return f"The SSH key for {host} has a passphrase. Add it to the agent first: ssh-add"
    if isinstance(error, paramiko.AuthenticationException):
        return (
            f"{host} refuses the login of {user or getpass.getuser()}: no key fits. "
            "Name user and key in ~/.ssh/config, or with -i KEY and -H USER@HOST."
        )
    if session_manager.is_used(target.proxy_command):
        return session_manager.unanswered(host, target.hostname)
    if isinstance(error, socket.gaierror):
        return (
            f"Unknown host {host}: it is no alias in the ssh configuration and the name does not "
            "resolve. Fix -H or add a Host block to ~/.ssh/config."
        )
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        # One of each address of the name's, in the order of their being tried.
        error = list(error.errors.values())[-1]
    if isinstance(error, ConnectionRefusedError):
        return f"{host} refuses connections at {place}. Is it running, and is that sshd's port?"
    if isinstance(error, TimeoutError | socket.timeout) or "timed out" in str(error).lower():
        if re.fullmatch("i-[0-9a-f]+", target.key_alias or ""):
            return shut_out(host, place)
        return (
            f"{host} does not answer at {place}. Is the instance running, and does its security "
            "group allow SSH from here?"
        )
    if isinstance(error, FileNotFoundError):
        return f"Cannot log in to {host}: there is no {error.filename}. {FIX_KEY}."
    if isinstance(error, OSError) and error.filename:
        return f"Cannot log in to {host}: {error.filename}: {error.strerror}. {FIX_KEY}."
    if isinstance(error, OSError):
        return f"Cannot reach {host} at {place}: {error.strerror or error}. Check the network."
    via = " through its jump host" if target.proxy_command else ""
    return f"Cannot log in to {host}{via}: {error}. Try it with: {ssh(host, 'true')}"


def shut_out(host: str, place: str) -> str:
    """Say what opens an instance that this project made or took over: its group knows who comes."""
    environment = host.removeprefix("mlflow-server").removeprefix("-")
    use = f"use {environment} " if host.startswith("mlflow-server-") else ""
    return (
        f"{host} does not answer at {place}. If your own address has changed: ./fab {use}"
        f"aws.allow-me; if the instance is stopped: ./fab {use}aws.start"
    )
