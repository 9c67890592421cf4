"""What the doctor's look at a host tells beside the facts, as frozen values."""

from __future__ import annotations

import json
import re
from dataclasses import field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks.changes.surroundings import aws_profile_script, backup_place, backup_secrets, place
from tasks.engine.change import Change
from tasks.engine.facts import listeners
from tasks.engine.records import dataclass
from tasks.engine.shell import sh, then
from tasks.engine.templates import requested, source, staged
from tasks.findings.reports import Reports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tasks.engine.facts import Listener
    from tasks.engine.settings import Settings

# Seconds that each part of a look may take: the whole has to answer within five.
PATIENCE = 4
LONGEST = 600

# Of these seconds, what goes to checking the databases and trying passwords, to one answer of the
# server, and to one of the bucket: what swallows everything is to be told from what is slow.
DATABASES, ANSWER, STORE = 0.6, 0.75, 0.35


S3, FIRST = "s3.{}.amazonaws.com", "us-east-1"

PACKAGES = "mlflow.org"  # of the world outside; that a closed network has no such name is no fault

ADDRESS = re.compile(r"[0-9.]+|.*:.*")  # of IPv4 or IPv6, which nobody has to be asked for


@dataclass(frozen=True)
class Memory:
    """The host's memory, and what of it swaps out, in KiB."""

    kb: int
    free_kb: int
    swap_kb: int
    free_swap_kb: int


@dataclass(frozen=True)
class Mount:
    """A file system: KiB and inodes, in all and free."""

    path: str
    kb: int
    free_kb: int
    inodes: int
    free_inodes: int
    read_only: bool

    @property
    def free_share(self) -> float:
        """Return the scarcer of room and inodes, from 0 to 1; some file systems count none."""
        shares = [self.free_kb / self.kb if self.kb else 1.0]
        if self.inodes:
            shares.append(self.free_inodes / self.inodes)
        return min(shares)


@dataclass(frozen=True)
class Certificate:
    """A certificate of nginx: file, and end in seconds since 1970."""

    path: str
    ends: int


@dataclass(frozen=True)
class Symptoms:
    """A host as the doctor saw it; what a part that was not `looked` at would say is empty.

    `period` and `skew` are in seconds, `next_backup` in those since 1970; `schedule` is the state
    of the backups' timer, and `timer_failed` says of a unit that a timer started last why it
    failed, as its journal has it.
    """

    looked: frozenset[str] = frozenset()
    blind: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    large: tuple[str, ...] = ()
    modes: Mapping[str, str] = field(default_factory=dict)
    failed: tuple[str, ...] = ()
    reboot: bool = False
    synchronised: bool = True
    memory: Memory | None = None
    routed: bool = True  # whether it has a default route
    masked: tuple[str, ...] = ()
    dpkg: str | None = None  # packages whose installation was cut off; maybe none is named
    apt_holder: tuple[int, str] | None = None  # who has held apt's lock for an hour
    disk_error: str = ""
    killed: Mapping[str, int] = field(default_factory=dict)  # by the kernel, for want of memory
    unresolved: Mapping[str, str] | None = None  # a name that no name server answered for, and why
    listeners: tuple[Listener, ...] = ()
    error: str = ""
    out_of_memory: int = 0
    schedule: str | None = None
    period: float | None = None
    zone: str = ""  # of the host's clock, as `+0100 CET`; known where there is a timer
    next_backup: float | None = None
    timer_failed: Mapping[str, str] = field(default_factory=dict)
    nginx: str = "ok"
    certificates: tuple[Certificate, ...] = ()
    unserved: bool = False
    renewal: str | None = None  # the state of certbot's timer
    renewal_failed: str = ""
    health: int | None = None
    silent: float = 0  # seconds for which /health was not answered
    stranger: int | None = None
    name: int | None = None
    logins: Mapping[str, int | None] = field(default_factory=dict)
    databases: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    admins: int | None = None
    weak: tuple[str, ...] = ()
    direct: Mapping[str, Any] = field(default_factory=dict)
    webhooks: Mapping[str, Any] = field(default_factory=dict)
    environment: str = "whole"
    profile: bool = True
    bucket: Mapping[str, str] | None = None
    owner: Mapping[str, str] | None = None  # the mark of another server; {} where there is none
    skew: float | None = None
    backup: Mapping[str, Any] | None = None
    backup_error: str | None = None
    stream_error: str = ""
    stream_astray: bool = False
    stream_loose: bool = False


def looking(
    settings: Settings, logins: Sequence[Mapping[str, str]], patience: int = PATIENCE
) -> Change:
    """Build the one look at a host; the logins are tried there, and travel as a staged file.

    `patience` is how many seconds each of its parts, which run side by side, may take.
    """
    asking = then(aws_profile_script(settings), "ask_bucket")
    script = "\n".join(
        (
            f"unit={settings.unit} port={settings.port} name={sh(settings.public_name or '')}",
            f"bucket() {{ {asking if settings.bucket else 'false'}; }}",
            f"profile={'' if settings.profile == 'default' else settings.profile}",
            f"patience={patience}",
            f"names={sh(' '.join(names(settings)))}",
            source("parts.sh"),
            source("look_at_host.sh"),
            backup_secrets(settings),
            source("stream.sh"),
            source("stream_errors.sh"),
            source("certbot.sh"),
            source("symptoms.sh"),
        )
    )
    files = staged("look_at_environment.py", "look_at_names.py", "look_at_webhooks.py")
    for program in ("look_at_databases.py", "look_at_admins.py"):
        files |= requested(program, patience=DATABASES * patience)
    answer = ANSWER * patience
    files |= requested(
        "look_at_requests.py", port=settings.port, logins=list(logins), patience=answer
    )
    if settings.bucket:
        files |= requested(
            "look_at_bucket.py",
            place=place(settings),
            backups=backup_place(settings),
            patience=round(STORE * patience, 2),
        )
    return Change("look for what is wrong", script, files)


def names(settings: Settings) -> list[str]:
    """List names that the host must find an address for: S3's, and one that packages come from."""
    store = urlsplit(settings.endpoint_url or "").hostname or S3.format(settings.region or FIRST)
    return [name for name in (store, PACKAGES) if not ADDRESS.fullmatch(name)]


def parse(reports: Sequence[str]) -> Symptoms:
    """Read the reports of the look."""
    found = Reports(reports)
    admins, logins = found.data("admins", {}), map(json.loads, found.all("login"))
    return Symptoms(
        looked=frozenset(found.all("looked")),
        blind=dict(found.pairs("blind")),
        mounts=tuple({mount.path: mount for mount in map(_mount, found.all("mount"))}.values()),
        large=tuple(found.all("large")),
        modes={path: mode for mode, path in found.pairs("mode")},
        failed=tuple(found.all("failed")),
        reboot="reboot" in found,
        synchronised=found.last("synchronised", "yes") != "no",
        memory=Memory(*map(int, found.last("memory").split())) if "memory" in found else None,
        routed="no_route" not in found,
        masked=tuple(found.all("masked")),
        dpkg=found.last("dpkg") if "dpkg" in found else None,
        apt_holder=next(((int(pid), name) for pid, name in found.pairs("apt_held")), None),
        disk_error=found.last("disk_error"),
        killed={name: int(count) for count, name in found.pairs("killed")},
        unresolved=found.data("unresolved"),
        listeners=listeners(found.all("listener")),
        error=found.last("error"),
        out_of_memory=_number(found.last("oom")) or 0,
        schedule=found.last("schedule") or None,
        period=_period(found.data("timer", [])),
        zone=found.last("zone"),
        next_backup=_next(found.data("timer", [])),
        timer_failed=dict(found.pairs("timer_failed")),
        nginx=found.last("nginx", "ok"),
        certificates=tuple(
            Certificate(path, int(ends)) for ends, path in found.pairs("certificate")
        ),
        unserved="unserved" in found,
        renewal=found.last("renewal") or None,
        renewal_failed=found.last("renewal_failed"),
        health=found.data("health"),
        silent=found.data("silent", 0),
        stranger=found.data("stranger"),
        name=found.data("name"),
        logins={login["source"]: login["status"] for login in logins},
        databases={base["name"]: base for base in map(json.loads, found.all("database"))},
        admins=admins.get("count"),
        weak=tuple(admins.get("weak", ())),
        direct=found.data("direct", {}),
        webhooks=found.data("webhooks", {}),
        environment=found.last("environment", "whole"),
        profile="profile" not in found,
        bucket=found.data("bucket"),
        owner=found.data("owner"),
        skew=found.data("skew"),
        backup=found.data("backup"),
        backup_error=found.data("backup_error"),
        stream_error=found.last("stream_error"),
        stream_astray="stream_astray" in found,
        stream_loose="stream_loose" in found,
    )


def _period(timers: Sequence[Mapping[str, int]]) -> float | None:
    """Return the seconds between a timer's last and next time, which systemd tells in 1e-6 s."""
    spans = [
        (timer["next"] - timer["last"]) / 1e6
        for timer in timers
        if timer.get("last") and timer.get("next")
    ]
    return spans[0] if spans and spans[0] > 0 else None


def _next(timers: Sequence[Mapping[str, int]]) -> float | None:
    return next((timer["next"] / 1e6 for timer in timers if timer.get("next")), None)


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _mount(line: str) -> Mount:
    inodes, free_inodes, mode, kb, free_kb, path = line.split(" ", 5)
    return Mount(
        path,
        _number(kb) or 0,
        _number(free_kb) or 0,
        _number(inodes) or 0,
        _number(free_inodes) or 0,
        read_only=mode == "ro",
    )
