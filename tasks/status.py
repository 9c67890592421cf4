"""How every server stands: one table for all hosts and environments, from one look at each host."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tasks.changes import stream
from tasks.changes.releases import version_of
from tasks.changes.service import failed_by_timer, state
from tasks.engine.console import console
from tasks.engine.tables import (
    DAY,
    GAP,
    IN_A_FILE,
    Column,
    age,
    age_text,
    counted,
    fitting,
    needed,
    plain,
    size,
    size_text,
)
from tasks.engine.task import remote
from tasks.engine.typed import typed
from tasks.laptop import tunnels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from rich.table import Table

    from tasks.engine.server import Server
    from tasks.engine.tables import Row
    from tasks.engine.task import Host


def _database(row: Row) -> str:
    if row["database"] is None:
        return "-"
    if row["database_bytes"] is None:
        return str(row["database"])
    return f"{row['database']} {size_text(row['database_bytes'])}"


def _backup(row: Row) -> str:
    if row["backup_age_seconds"] is None:
        made = "never" if row["version"] else "-"
    else:
        made = f"{age_text(row['backup_age_seconds'])} ago"
    failed = (f"{name} failed" for name in row["failed_by_timer"])
    return ", ".join((made, *_stream(row), *failed))


def _stream(row: Row) -> Iterator[str]:
    if row["stream_lag_seconds"] is not None:
        yield f"streamed {age_text(row['stream_lag_seconds'])} ago"
    elif row["stream"]:
        yield f"stream {row['stream']}"


def _tunnel(row: Row) -> str:
    if row["tunnel_port"] is None:
        return "-"
    return f"{row['tunnel_port']}" if row["tunnel_alive"] else f"{row['tunnel_port']} dead"


def _certificate(row: Row) -> str:
    days = row["certificate_days_left"]
    if days is None:
        return "-"
    return counted(days, "day") if days >= 0 else "expired"


WHO = (Column("host", plain("host")), Column("environment", plain("environment")))

# By rank: what says that something is wrong goes last where there is no room for all.
WHAT = (
    Column("version", plain("version"), rank=4),
    Column("state", plain("state"), least=16, rank=1),
    Column("since", age("since_seconds"), rank=6),
    Column("memory", size("memory_bytes"), rank=5),
    Column("workers", plain("workers"), rank=11),
    Column("database", _database, rank=8),
    Column("runs", plain("runs"), rank=7),
    Column("experiments", plain("experiments"), rank=12),
    Column("last backup", _backup, least=20, rank=2),
    Column("disk free", size("disk_free_bytes"), rank=3),
    Column("tunnel", _tunnel, rank=9),
    Column("certificate", _certificate, rank=10),
)

# What a table has no room for.
MORE = (
    Column("users", plain("users")),
    Column("restarts", plain("restarts")),
    Column("port", plain("port")),
    Column("disk", size("disk_bytes")),
)


def layout(rows: Sequence[Row], width: int | None) -> list[Column]:
    """Choose the columns that fit: all where there is room (None: no end), in one table always.

    Else those that say something, as far as they have room; the host is never left out.
    """
    if width is None or needed([*WHO, *WHAT], rows) <= width:
        return [*WHO, *WHAT]
    one_environment = {row["environment"] for row in rows} == {"default"}
    who = WHO[:1] if one_environment else WHO
    saying = [column for column in WHAT if not column.says_nothing(rows)]
    return [*who, *fitting(saying, rows, width - needed(who, rows) - GAP)]


def show(answers: Mapping[str, Sequence[Row]], verbose: bool = False) -> None:
    """Print one table for all hosts and environments; or, `verbose`, all that is known of each."""
    rows = [{"host": host, **row} for host, own in answers.items() for row in own]
    if verbose:
        show_details(rows)
        return
    columns = layout(rows, console.width)
    console.show(tabular(columns, rows), IN_A_FILE)
    left_out = [column for column in WHAT if column not in columns]
    if any(not column.says_nothing(rows) for column in left_out):
        hosts = ",".join(dict.fromkeys(answers))
        console.say(f"more of each: {typed(hosts, None, 'status', '-v')}", style="dim")


def tabular(columns: Sequence[Column], rows: Sequence[Row]) -> Table:
    """Lay rows out below headings."""
    from rich.table import Table

    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column.heading, no_wrap=not column.least, overflow="fold")
    for row in rows:
        table.add_row(*(column.cell(row) for column in columns))
    return table


def show_details(rows: Sequence[Row]) -> None:
    """Print all that is known of each server, one thing a line."""
    widest = max(len(column.heading) for column in (*WHAT, *MORE))
    for row in rows:
        console.say(f"{row['host']} ({row['environment']})", style="bold")
        for column in (*WHAT, *MORE):
            console.say(f"  {column.heading:{widest}}  {column.cell(row)}")


@remote(
    everywhere=True,
    report=show,
    report_options=("verbose",),
    help={
        "json": "print JSON instead of a table",
        "verbose": "all that is known of each, one thing a line, whatever the terminal's width",
    },
)
def status(c: Host, json: bool = False, verbose: bool = False) -> list[dict[str, Any]]:
    """Show how every server stands, in one table.

    All hosts, and all environments where none is chosen. What has no room in the terminal is shown
    by -v. Reads only, asks systemd and the databases rather than the server, and never starts one
    that is stopped.

    Example: fab -H ec2 status
    """
    c.server.look_at(c.turn.everywhere)
    return [row(server) for server in c.turn.everywhere]


def row(server: Server) -> dict[str, Any]:
    """Say how one server stands, in plain values with their units in the names."""
    settings, facts = server.settings, server.facts
    service = facts.unit(f"{settings.unit}.service")
    running = service.active == "active"
    since = service.since if running else service.changed
    memory = facts.service_kb * 1024 if facts.service_kb else service.memory
    backup = int(facts.backup.split()[0]) if facts.backup else None
    certificate = facts.certificate_until
    port, alive = tunnel_column(server)
    return {
        "environment": settings.label,
        "version": version_of(facts.release) or None,
        "state": server.completed(state(settings, facts)),
        "running": running,
        "since_seconds": facts.now - since if since else None,
        "restarts": service.restarts,
        "memory_bytes": memory if running else None,
        "workers": facts.workers,
        "database": facts.database,
        "database_bytes": facts.database_bytes,
        "runs": facts.runs,
        "experiments": facts.experiments,
        "users": facts.users,
        "last_backup": backup and datetime.fromtimestamp(backup, timezone.utc).isoformat(),
        "backup_age_seconds": backup and facts.now - backup,
        "failed_by_timer": list(failed_by_timer(settings, facts)),
        "stream": stream.state(settings, facts),
        "stream_lag_seconds": stream.lag(settings, facts),
        "disk_bytes": facts.disk_kb * 1024,
        "disk_free_bytes": facts.free_kb * 1024,
        "port": settings.port,
        "tunnel_port": port,
        "tunnel_alive": alive,
        "certificate_days_left": certificate and (certificate - facts.now) // DAY,
    }


def tunnel_column(server: Server) -> tuple[int | None, bool | None]:
    """Return the local port of this machine's tunnel to the server, and whether it is open."""
    there = tunnels.opened(server)
    return (there.local_port, there.condition == "open") if there else (None, None)
