"""Status: plain values for programs, a table that fits for people, one exec for all."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from stand_ins import SETTINGS, Reply, blank, context, deployed

from tasks import status as module
from tasks.engine.console import console
from tasks.engine.facts import Unit
from tasks.engine.settings import Settings
from tasks.engine.tables import Row
from tasks.laptop import tunnels
from tasks.status import layout, row, show, status

NOW = 1_800_000_000
STAGING = Settings(bucket="my-bucket", environment="staging", port=5005)


@pytest.fixture(autouse=True)
def _no_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "tunnel_column", lambda server: (None, None))


def of(**values: Any) -> dict[str, Any]:
    return row(context(replace(deployed(), **values)).server)


def test_status_is_plain_values_with_their_units_in_the_names():
    facts = replace(deployed(), backup=f"{NOW - 7200} 20270115T060000Z-ec2", service_kb=400_000)
    assert status(context(facts)) == [
        {
            "environment": "default",
            "version": "3.17.2",
            "state": "running",
            "running": True,
            "since_seconds": 1000,
            "restarts": 0,
            "memory_bytes": 400_000 * 1024,
            "workers": 1,
            "database": "sqlite",
            "database_bytes": 5_000_000,
            "runs": 3,
            "experiments": 1,
            "users": 1,
            "last_backup": "2027-01-15T06:00:00+00:00",
            "backup_age_seconds": 7200,
            "failed_by_timer": [],
            "stream": None,
            "stream_lag_seconds": None,
            "disk_bytes": 80_000_000 * 1024,
            "disk_free_bytes": 20_000_000 * 1024,
            "port": 5000,
            "tunnel_port": None,
            "tunnel_alive": None,
            "certificate_days_left": None,
        }
    ]


def test_status_of_a_blank_host_is_no_error():
    (row,) = status(context(blank()))
    assert (row["version"], row["state"], row["running"]) == (None, "not deployed", False)
    assert (row["memory_bytes"], row["database"], row["last_backup"]) == (None, None, None)


def test_a_stopped_server_says_since_when_and_holds_no_memory():
    stopped = Unit("loaded", "inactive", file="enabled", since=NOW - 9999, changed=NOW - 60)
    values = of(units={"mlflow-server.service": stopped}, service_kb=None)
    assert values["since_seconds"] == 60
    assert values["memory_bytes"] is None
    assert values["runs"] == 3


def test_systemd_s_figure_does_where_the_processes_cannot_be_read():
    assert of(service_kb=None)["memory_bytes"] == 431 << 20


def test_the_size_of_another_database_is_not_that_of_a_forgotten_file():
    values = of(database="postgresql", database_bytes=5)
    assert (values["database"], values["database_bytes"]) == ("postgresql", 5)


@pytest.mark.parametrize(("seconds", "wanted"), [(86400 * 30 + 5, 30), (5, 0), (-5, -1)])
def test_a_certificate_s_days_are_whole_ones(seconds, wanted):
    assert of(certificate_until=NOW + seconds)["certificate_days_left"] == wanted


def test_a_tunnel_is_open_or_dead(monkeypatch):
    monkeypatch.undo()
    server = context(deployed()).server
    assert module.tunnel_column(server) == (None, None)
    there = tunnels.Tunnel("ec2", None, 5007, 5000, "open", 1, (2,), 0.0, 0, None)
    for condition, alive in (("open", True), ("dead", False), ("stale", False)):
        monkeypatch.setattr(
            tunnels, "opened", lambda server, now=condition: replace(there, condition=now)
        )
        assert module.tunnel_column(server) == (5007, alive)


FAILED = Unit("loaded", "failed", "failed", "static", changed=NOW - 100)


@pytest.mark.parametrize(
    ("name", "backup", "wanted"),
    [
        ("backup", None, ["backup"]),
        ("backup", NOW - 7200, ["backup"]),
        # Its backup was made, and could not be thinned out.
        ("backup", NOW - 101, ["backup"]),
        ("backup", NOW - 50, []),
        ("backup-verify", NOW - 50, ["backup.verify"]),
    ],
)
def test_what_a_timer_failed_at_stands_until_it_was_made_up_for(name, backup, wanted):
    values = of(
        units={f"mlflow-server-{name}.service": FAILED}, backup=backup and f"{backup} some-id"
    )
    assert values["failed_by_timer"] == wanted


# -- all environments --------------------------------------------------------------------------


def probed(**facts: str) -> str:
    return "".join(f"{key}\t{value}\n" for key, value in facts.items()) + "end\tyes\n"


def test_all_environments_of_a_host_cost_one_exec():
    c = context()
    c.handed(everywhere=[c.server, c.server.beside(STAGING)])
    c.recorder.replies = [Reply(probed(release="3.17.2-abc") + probed(release="3.17.1-abc"))]
    rows = status(c)
    assert [(row["environment"], row["version"], row["port"]) for row in rows] == [
        ("default", "3.17.2", 5000),
        ("staging", "3.17.1", 5005),
    ]
    (run,) = c.recorder.runs
    assert "mlflow-server-staging" in run.command
    status(c)
    assert len(c.recorder.runs) == 1, "what is known is not asked again"


def test_a_server_beside_itself_is_itself():
    server = context().server
    assert server.beside(SETTINGS) is server
    assert server.beside(STAGING).connection is server.connection


# -- the table ---------------------------------------------------------------------------------


def rows(*environments: str, **values: Any) -> list[Row]:
    return [{"host": "ec2", **of(), "environment": name, **values} for name in environments]


def headings(columns: Any) -> list[str]:
    return [column.heading for column in columns]


WHO = ["host", "environment"]


def test_a_wide_table_shows_every_column():
    assert headings(layout(rows("default"), None)) == [
        *WHO, "version", "state", "since", "memory", "workers", "database", "runs", "experiments",
        "last backup", "disk free", "tunnel", "certificate",
    ]  # fmt: skip


def test_a_narrower_one_leaves_out_what_says_nothing():
    shown = headings(layout(rows("default"), 120))
    assert not {"environment", "tunnel", "certificate"} & set(shown)
    assert "disk free" in shown


@pytest.mark.parametrize(
    ("width", "wanted"),
    [
        (40, ["state", "last backup"]),  # folded
        (60, ["version", "state", "last backup", "disk free"]),
        (80, ["version", "state", "since", "memory", "last backup", "disk free"]),
        (
            110,
            ["version", "state", "since", "memory", "database", "runs", "last backup", "disk free",
             "tunnel"],
        ),
    ],
)  # fmt: skip
def test_a_narrow_one_shows_what_matters_most(width, wanted):
    full = rows("default", "staging", tunnel_port=5001, certificate_days_left=80)
    assert headings(layout(full, width)) == [*WHO, *wanted]


@pytest.mark.parametrize("width", [60, 80, 110])
def test_at_every_width_there_is_one_table(width, capsys, monkeypatch):
    monkeypatch.setattr(type(console), "width", width)
    show({"ec2": rows("default", "staging", tunnel_port=5001)})
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert last == "more of each: ./fab -H ec2 status -v"


def test_verbose_leaves_nothing_out(capsys, monkeypatch):
    monkeypatch.setattr(type(console), "width", 60)
    show({"ec2": rows("default", "staging", certificate_days_left=1)}, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "ec2 (default)",
        "ec2 (staging)",
    ]
    shown = {line.split("  ")[1] for line in lines if line.startswith(" ")}
    assert shown == {column.heading for column in (*module.WHAT, *module.MORE)}
    assert "  certificate  1 day" in lines


@pytest.mark.parametrize("width", [40, 80, 100, 120, 200])
def test_no_line_is_longer_than_the_terminal(width, capsys, monkeypatch):
    monkeypatch.setattr(type(console), "width", width)
    long = "stopped, but the next request starts it (./fab stop stops both)"
    show({"ec2": [{**of(), "state": long, "tunnel_port": 5001, "environment": "production"}]})
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width


def test_one_table_shows_all_hosts(capsys):
    facts = replace(deployed(), backup=f"{NOW - 7200} x", service_kb=431 << 10)
    show({"alpha": status(context(facts)), "beta": status(context(blank()))})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == (
        "alpha default 3.17.2 running 16 min 431 MB 1 sqlite 4.8 MB 3 1 2 h ago 19.1 GB - -"
    )
    assert lines[2] == "beta default - not deployed - - - - - - - 19.1 GB - -"


@pytest.mark.parametrize(
    ("heading", "values", "wanted"),
    [
        ("since", {"since_seconds": -3}, "0 s"),
        ("since", {"since_seconds": 119}, "119 s"),
        ("since", {"since_seconds": 7199}, "119 min"),
        ("since", {"since_seconds": 86400}, "24 h"),
        ("since", {"since_seconds": 4 * 86400}, "4 days"),
        ("last backup", {}, "never"),
        ("last backup", {"failed_by_timer": ["backup"]}, "never, backup failed"),
        (
            "last backup",
            {"backup_age_seconds": 7200, "failed_by_timer": ["backup.verify"]},
            "2 h ago, backup.verify failed",
        ),
        ("database", {"database": "postgresql", "database_bytes": None}, "postgresql"),
        ("database", {"database_bytes": 3 * 1024**3}, "sqlite 3.0 GB"),
        ("tunnel", {"tunnel_port": 5001, "tunnel_alive": True}, "5001"),
        ("tunnel", {"tunnel_port": 5001, "tunnel_alive": False}, "5001 dead"),
        ("certificate", {"certificate_days_left": 12}, "12 days"),
        ("certificate", {"certificate_days_left": -1}, "expired"),
    ],
)
def test_cells_read_as_people_say_it(heading, values, wanted):
    (column,) = (column for column in module.WHAT if column.heading == heading)
    assert column.cell({**of(), **values}) == wanted


def test_the_values_are_json():
    assert json.loads(json.dumps(status(context(deployed()))))
