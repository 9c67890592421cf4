"""What one read-only probe of a host tells, as frozen values that tasks decide on."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.shell import sh
from tasks.engine.templates import source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.engine.settings import Settings


def is_there(facts: Facts, path: str, text: str, mode: str) -> bool:
    """Tell whether the host has this file with this content and mode."""
    found = facts.files.get(path)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return found is not None and found.digest == digest and found.mode == mode


def managed_files(settings: Settings) -> list[str]:
    """Name the files whose content decides whether something must be shipped."""
    unit, root = settings.unit, settings.root_path
    return [
        f"/etc/systemd/system/{unit}.service",
        f"/etc/systemd/system/{unit}.socket",
        f"/etc/tmpfiles.d/{unit}.conf",
        f"/etc/nginx/sites-available/{unit}",
        f"/etc/ssl/certs/{unit}.pem",
        f"{root}/start_mlflow_server.sh",
        f"{root}/.mlflow_auth_config",
        f"{root}/{PASS_FILE}",
        *(f"/etc/systemd/system/{name}" for name in schedule_units(settings)),
    ]


def schedule_units(settings: Settings) -> list[str]:
    """Name the units of a schedule of backups."""
    names = (f"{settings.unit}-backup", f"{settings.unit}-backup-verify")
    return [f"{name}.{kind}" for name in names for kind in ("service", "timer")]


def is_deployed(settings: Settings, facts: Facts) -> bool:
    """Tell whether our nginx site is on the host."""
    return f"/etc/nginx/sites-available/{settings.unit}" in facts.files


def is_scheduled(settings: Settings, facts: Facts) -> bool:
    """Tell whether a timer makes backups."""
    return facts.unit(f"{settings.unit}-backup.timer").active == "active"


# What the guide installs (its "System Dependencies"), nginx, what packs backups, and what these
# need to be installed.
PACKAGES = (
    "python3",
    "python3-venv",
    "curl",
    "git",
    "htop",
    "tmux",
    "nginx",
    "ca-certificates",
    "zstd",
)

POSTGRES_CLIENT = "postgresql-client"  # dumps and restores; for servers on PostgreSQL alone

END = "end\tyes\n"


@dataclass(frozen=True)
class Unit:
    """One systemd unit as `systemctl show` describes it."""

    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    file: str = ""
    needs_reload: bool = False
    since: int = 0
    changed: int = 0
    restarts: int = 0
    memory: int | None = None
    pid: int = 0


@dataclass(frozen=True)
class Managed:
    """One file of ours on the host: SHA-256 of its content, and its mode."""

    digest: str
    mode: str


@dataclass(frozen=True)
class Listener:
    """Who listens on the server's port: address, program and process id where root could see."""

    address: str
    program: str
    pid: int


@dataclass(frozen=True)
class Tls:
    """The name that the host serves with TLS, and who certifies it: an ACME address, or `own`."""

    name: str
    authority: str

    @property
    def own(self) -> bool:
        """Tell whether the operator brought the certificate."""
        return self.authority == "own"


@dataclass(frozen=True)
class Guide:
    """A server that the guide made, as files/host/guide/guide.py sees it.

    `unit` is empty where it was started by hand; `store` and `auth` are its databases' files, empty
    for others than SQLite; `destination` is where artifacts lie. `cut_off` says that it was stopped
    by a task that did not come to its end.
    """

    version: str
    unit: str
    active: bool
    enabled: bool
    pid: int
    host: str
    port: int
    store: str
    destination: str
    profile: str
    auth: str
    permission: str
    cut_off: bool = False


@dataclass(frozen=True)
class Facts:
    """A host at one moment. Sizes in KiB where the name says so, times in seconds since 1970."""

    home: str
    user: str
    root: str
    now: int
    sudo: bool = False
    os: str = ""
    machine: str = ""
    systemd: bool = False
    python: tuple[int, ...] = ()
    cores: int = 1
    memory_kb: int = 0
    disk_kb: int = 0
    free_kb: int = 0
    addresses: tuple[str, ...] = ()
    packages: frozenset[str] = frozenset()
    aws: bool = False
    release: str | None = None
    foreign: bool = False
    guide: Guide | None = None
    complete: frozenset[str] = frozenset()
    locked: frozenset[str] = frozenset()  # releases whose lock is kept on the host
    tools: str | None = None
    stream: str | None = None  # the installed Litestream's lock
    stream_every: int | None = None  # seconds
    stream_lag: float | None = None  # seconds since both databases were last sent whole
    files: Mapping[str, Managed] = field(default_factory=dict)
    server_env: frozenset[str] = frozenset()
    bootstrap: bool = False
    proved: str | None = None
    well: str | None = None
    owned: str | None = (
        None  # as whom this host marked which prefix, see files/host/deploy/owner.py
    )
    server_id: str | None = None
    hostname: str = ""
    backup: str | None = None  # when (seconds since 1970) and which, made by this host
    schedule: str | None = None  # how often, verified how often, and a digest of what timers run
    generation: int = 0
    units: Mapping[str, Unit] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = ()
    credentials: str | None = None
    credential_keys: frozenset[str] = frozenset()
    credentials_mode: str | None = None
    aws_config: Mapping[str, str] = field(default_factory=dict)
    users: int | None = None
    users_error: str | None = None
    schema: str | None = None
    schema_error: str | None = None
    runs: int | None = None
    experiments: int | None = None
    database: str | None = None  # the scheme of its URI, such as sqlite
    store: str | None = None  # that URI, without a password
    auth_store: str | None = None  # the users' one; None is SQLite
    shared: bool = False  # whether key and id are those of all servers of the database
    drained: bool = False  # whether /usable has balancers send nothing here
    database_bytes: int | None = None
    workers: int | None = None
    service_kb: int | None = None  # proportional set size of the service's processes
    certificate_until: int | None = None
    tls: Tls | None = None

    @property
    def has_users(self) -> bool:
        return bool(self.users)

    def unit(self, name: str) -> Unit:
        return self.units.get(name, Unit())


def probe(settings: Settings, files: Sequence[str]) -> str:
    """Spell the command that prints the facts; `files` are absolute or start with `~`."""
    return sh(
        "bash", "-c", source("facts.sh"), "facts",
        settings.root_path, settings.unit, settings.port, settings.profile,
        *PACKAGES, POSTGRES_CLIENT, "--", *files, "--",
    )  # fmt: skip


def guide_probe(settings: Settings, facts: Facts) -> str:
    """Spell the command that looks whether the guide made what lies at our environment's place."""
    return sh("python3", "-c", source("guide.py"), "look", facts.root, settings.unit)


def with_guide(facts: Facts, text: str) -> Facts:
    """Add what that command printed: no object where the guide made no server there."""
    # Beside it may lie what the login's own files print.
    for line in text.splitlines():
        if line.startswith("{"):
            return replace(facts, foreign=False, guide=Guide(**json.loads(line)))
    return facts


def parts(text: str, count: int) -> list[str]:
    """Split what so many probes printed one after the other; raises ValueError if one is cut."""
    found = text.split(END)[:-1]
    if len(found) != count:
        raise ValueError("the probe of the host was cut short")
    return [part + END for part in found]


def parse(text: str) -> Facts:
    """Read the probe's output; raises ValueError where it was cut short."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, tab, value = line.partition("\t")
        if tab:
            found.setdefault(key, []).append(value)
    if "end" not in found:
        raise ValueError("the probe of the host was cut short")

    def one(key: str) -> str | None:
        return found.get(key, [""])[0] or None

    def number(key: str) -> int | None:
        value = one(key)
        return int(value) if value and value.isdigit() else None

    return Facts(
        home=one("home") or "",
        user=one("user") or "",
        root=one("root") or "",
        now=number("now") or 0,
        sudo="sudo" in found,
        os=one("os") or "",
        machine=one("machine") or "",
        systemd="systemd" in found,
        python=tuple(int(part) for part in (one("python") or "").split(".") if part),
        cores=number("cores") or 1,
        memory_kb=number("memory_kb") or 0,
        disk_kb=number("disk_kb") or 0,
        free_kb=number("free_kb") or 0,
        addresses=tuple((one("addresses") or "").split()),
        packages=_installed(found.get("package", [])),
        aws="aws" in found,
        release=one("release"),
        foreign="foreign" in found,
        complete=frozenset(found.get("complete", [])),
        locked=frozenset(found.get("locked", [])),
        tools=one("tools"),
        stream=one("stream"),
        stream_every=number("stream_every"),
        stream_lag=_lag(one("stream_sync"), number("now") or 0),
        files=_managed(found.get("file", [])),
        server_env=frozenset(found.get("server_env", [])),
        bootstrap="bootstrap" in found,
        proved=one("proved"),
        well=one("well"),
        owned=one("owned"),
        server_id=one("server_id"),
        hostname=one("hostname") or "",
        backup=one("backup"),
        schedule=one("schedule"),
        generation=number("generation") or 0,
        units=_units(found.get("unit", [])),
        listeners=listeners(found.get("listener", [])),
        credentials=one("credentials"),
        credential_keys=frozenset(found.get("credential", [])),
        credentials_mode=one("credentials_mode"),
        aws_config=dict(line.split("=", 1) for line in found.get("aws_config", [])),
        users=number("users"),
        users_error=one("users_error"),
        schema=one("schema"),
        schema_error=one("schema_error"),
        runs=number("runs"),
        experiments=number("experiments"),
        database=one("database"),
        store=one("store"),
        auth_store=one("auth_store"),
        shared="shared" in found,
        drained="drained" in found,
        database_bytes=number("database_bytes"),
        workers=number("workers"),
        service_kb=number("service_kb"),
        certificate_until=number("certificate_until"),
        tls=_tls(one("tls")),
    )


def _lag(answer: str | None, now: int) -> float | None:
    """Return the seconds since a database was last sent; None where one never was."""
    try:
        told = json.loads(answer or "")["databases"]
        # Python 3.10 reads six digits after the point; Litestream writes nine, or fewer.
        sent = [re.sub(r"(\.\d+)?Z$", "+00:00", base["last_sync_at"]) for base in told]
    except (ValueError, KeyError, TypeError):
        return None
    return max((now - datetime.fromisoformat(moment).timestamp() for moment in sent), default=None)


def _tls(line: str | None) -> Tls | None:
    name, _, authority = (line or "").partition(" ")
    return Tls(name, authority) if authority else None


def _installed(lines: list[str]) -> frozenset[str]:
    # "ii" is dpkg's abbreviation for wanted and wholly installed; "iF" is half configured.
    return frozenset(line.split()[0] for line in lines if line.split()[1:2] == ["ii"])


def _managed(lines: list[str]) -> dict[str, Managed]:
    entries = (line.split(" ", 2) for line in lines)
    return {path: Managed(digest, mode) for digest, mode, path in entries}


def _units(lines: list[str]) -> dict[str, Unit]:
    properties: dict[str, dict[str, str]] = {}
    for line in lines:
        name, _, assignment = line.partition(" ")
        key, _, value = assignment.partition("=")
        properties.setdefault(name, {})[key] = value
    return {name: _unit(values) for name, values in properties.items()}


def _unit(values: Mapping[str, str]) -> Unit:
    def number(key: str) -> int:
        text = values.get(key, "").removeprefix("@")
        return int(text) if text.isdigit() else 0

    memory = number("MemoryCurrent")
    return Unit(
        load=values.get("LoadState", "not-found"),
        active=values.get("ActiveState", "inactive"),
        sub=values.get("SubState", "dead"),
        file=values.get("UnitFileState", ""),
        needs_reload=values.get("NeedDaemonReload") == "yes",
        since=number("ActiveEnterTimestamp"),
        changed=number("StateChangeTimestamp"),
        restarts=number("NRestarts"),
        # systemd spells "not accounted" as [not set] or as 2^64 - 1.
        memory=memory if 0 < memory < 2**63 else None,
        pid=number("MainPID"),
    )


def listeners(lines: Sequence[str]) -> tuple[Listener, ...]:
    """Read lines of address, quoted program and process id."""
    result = []
    for line in lines:
        address, _, process = line.partition(" ")
        program, _, pid = process.rpartition(" ")
        result.append(Listener(address, program.strip('"'), int(pid) if pid.isdigit() else 0))
    return tuple(result)


def refuse_without_sudo(facts: Facts) -> None:
    """Raise Exit where the login user cannot become root without a password."""
    if not facts.sudo:
        raise Exit(
            f"sudo asks {facts.user} for a password on the host. Allow it without one: "
            f"echo '{facts.user} ALL=(ALL) NOPASSWD:ALL' | sudo tee /etc/sudoers.d/{facts.user}"
        )


PASS_FILE = ".pgpass"


def stream_files(settings: Settings) -> list[str]:
    """Name the files whose content decides whether something must be shipped."""
    unit, root = settings.unit, settings.root_path
    return [
        f"{root}/start_stream.sh",
        f"{root}/stream.yml",
        f"/etc/systemd/system/{unit}-stream.service",
    ]
