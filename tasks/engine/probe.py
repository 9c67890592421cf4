"""The one read-only look at a host: the command that prints the facts, and how it is read."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from tasks.engine.facts import (
    NOTHING,
    PACKAGES,
    PASS_FILE,
    POSTGRES_CLIENT,
    READY,
    Facts,
    Guide,
    Managed,
    Nginx,
    Tls,
    Unit,
    listeners,
    sites,
)
from tasks.engine.shell import sh
from tasks.engine.templates import APP_MARK, app_folder, source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.engine.settings import Settings
    from tasks.engine.shell import Word

END = "end\tyes\n"

# The script is sent once, however many environments it is to look at: Linux takes no command of
# more than 128 KB, which is what sshd makes of one exec. It runs in a shell of its own that reads
# none of the login's files and takes over none of its options, functions and variables.
EACH = """look_at_sqlite=$1 look_at_postgres=$2
look() (
{}
)
"""


def command(*environments: Settings) -> str:
    """Spell the command that prints the facts of environments on a host, one after the other."""
    looks = (sh("look", *_arguments(settings)) for settings in environments)
    script = EACH.format(source("facts.sh")) + "\n".join(looks)
    programs = (source("facts_sqlite.py"), source("facts_postgres.py"))
    return sh("bash", "--norc", "-pc", script, "facts", *programs)


def _arguments(settings: Settings) -> Sequence[Word]:
    return (
        settings.root_path, settings.unit, settings.port, settings.profile,
        *PACKAGES, POSTGRES_CLIENT, "--", *managed_files(settings), "--",
    )  # fmt: skip


def managed_files(settings: Settings) -> list[str]:
    """Name the files whose content decides whether something must be shipped.

    Their paths are absolute or start with `~`.
    """
    unit, root = settings.unit, settings.root_path
    return [
        f"/etc/systemd/system/{unit}.service",
        f"/etc/systemd/system/{unit}.socket",
        f"/etc/tmpfiles.d/{unit}.conf",
        *(site.file for site in sites(unit)),
        f"{app_folder(unit)}/{APP_MARK}",
        f"/etc/ssl/certs/{unit}.pem",
        f"{root}/{READY}",
        f"{root}/start_mlflow_server.sh",
        f"{root}/.mlflow_auth_config",
        f"{root}/{PASS_FILE}",
        *(f"/etc/systemd/system/{name}" for name in schedule_units(settings)),
        f"{root}/start_stream.sh",
        f"{root}/stream.yml",
        f"/etc/systemd/system/{unit}-stream.service",
    ]


def schedule_units(settings: Settings) -> list[str]:
    """Name the units of a schedule of backups."""
    names = (f"{settings.unit}-backup", f"{settings.unit}-backup-verify")
    return [f"{name}.{kind}" for name in names for kind in ("service", "timer")]


def guide_command(settings: Settings, facts: Facts) -> str:
    """Spell the command that looks whether the guide made what lies at our environment's place."""
    return sh("python3", "-c", source("guide.py"), f"root={facts.root}", f"unit={settings.unit}")


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
        sudo_error=one("sudo_error") or "",
        nginx=_nginx(found.get("nginx", [])),
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
        server_env_changed=number("server_env_changed") or 0,
        bootstrap="bootstrap" in found,
        proved=one("proved"),
        proved_backups=one("proved_backups"),
        backup_key=_digest(one("backup.key")),
        backup_aws=_digest(one("backup-aws/credentials")),
        well=one("well"),
        owned=one("owned"),
        elsewhere=one("elsewhere"),
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


def _digest(text: str | None) -> str | None:
    """Return the digest of something of root's; None where that is not there."""
    return None if text == NOTHING else text


def _lag(answer: str | None, now: int) -> float | None:
    """Return the seconds since a database was last sent; None where one never was."""
    try:
        databases = json.loads(answer or "")["databases"]
        # Python 3.10 reads six digits after the point; Litestream writes nine, or fewer.
        sent = [re.sub(r"(\.\d+)?Z$", "+00:00", base["last_sync_at"]) for base in databases]
    except (ValueError, KeyError, TypeError):
        return None
    return max((now - datetime.fromisoformat(moment).timestamp() for moment in sent), default=None)


def _tls(line: str | None) -> Tls | None:
    name, _, authority = (line or "").partition(" ")
    return Tls(name, authority) if authority else None


def _nginx(lines: Sequence[str]) -> Nginx:
    """Read the words `user` and `include` of an nginx.conf; none is a host without nginx."""
    words = [line.split() for line in lines]
    users = [found for word, *found in words if word == "user" and found]
    includes = [place for word, *found in words if word == "include" for place in found]
    if not includes:
        return Nginx()
    # The group is called as its user where none is named (nginx's documentation of `user`).
    group = users[-1][-1] if users else Nginx.group
    return Nginx(group, tuple(os.path.join("/etc/nginx", place) for place in includes))


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
        since=number("ActiveEnterTimestamp"),
        changed=number("StateChangeTimestamp"),
        restarts=number("NRestarts"),
        # systemd spells "not accounted" as [not set] or as 2^64 - 1.
        memory=memory if 0 < memory < 2**63 else None,
        pid=number("MainPID"),
    )
