"""Say what is wrong with a server, how it was seen, and what to type."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.presence import refuse_nothing
from tasks.changes.releases import version_of
from tasks.engine import credentials, session_manager
from tasks.engine import login as login_engine
from tasks.engine.change import Change
from tasks.engine.console import console
from tasks.engine.server import TIMEOUT
from tasks.engine.tables import counted, size_text
from tasks.engine.task import remote, run_by_name
from tasks.findings.bucket import backup, bucket
from tasks.findings.case import Case, Here
from tasks.findings.client import client
from tasks.findings.database import database, users
from tasks.findings.diagnosis import Area, Look, diagnose, tell, verdict
from tasks.findings.host import host
from tasks.findings.proxy import nginx
from tasks.findings.server import environment, server, settings
from tasks.findings.symptoms import LONGEST, PATIENCE, looking, parse
from tasks.findings.webhooks import webhooks
from tasks.laptop import tunnel_daemon, tunnels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tasks.engine.login import Login
    from tasks.engine.server import Server
    from tasks.engine.task import Host
    from tasks.findings.case import Finding
    from tasks.findings.diagnosis import Diagnosis

# In the order in which an operator would look: what others follow from comes first.
AREAS = {
    "host": Area(host, "system", "machine", "names"),
    "environment": Area(environment, "environment"),
    "database": Area(database, "store"),
    "nginx": Area(nginx, "nginx"),
    "server": Area(server, "service", "requests"),
    "webhooks": Area(webhooks, "webhooks"),
    "users": Area(users, "admins"),
    "bucket": Area(bucket, "bucket"),
    "backup": Area(backup, "bucket"),
    "settings": Area(settings),
    "client": Area(client, "requests"),
}

# What `--fix` may run, in the order of the chain; each says what it does and can be typed again.
REPAIRS = ("install", "configure", "deploy", "start", "restart", "backup")

_asking = threading.Lock()


def options(timeout: int = PATIENCE, **_: bool) -> None:
    """Refuse what is no time to wait; raises Exit."""
    Look(patience=timeout)


@remote(
    options=options,
    verdict=verdict,
    help={
        "json": "print JSON instead of lines",
        "fix": "do the safe repairs, after asking",
        "yes": "do not ask",
        "timeout": f"seconds that each part of the look may take ({PATIENCE}; up to {LONGEST})",
    },
)
def doctor(
    c: Host, json: bool = False, fix: bool = False, yes: bool = False, timeout: int = PATIENCE
) -> Any:
    """Find what is wrong, and say what to type.

    Looks at the host, nginx, the unit, the databases, MLflow's environment, the bucket, backups
    and this machine's clients. Reads only, and never wakes a stopped server. Exit code 1 where a
    problem was found, 2 where none was and not all was looked at; notes do not count. --fix does
    the repairs that can do no harm, after asking.

    Example: fab -H ec2 doctor
    """
    server, look = c.server, Look("doctor", timeout)
    found = diagnosed(server, look, json)
    if fix and (safe := [finding for finding in found.found if finding.safe]):
        repair(c, safe, yes)
        if not json:
            server.say("looked again:")
        found = diagnosed(server, look, json)
    return found.rows


def diagnosed(server: Server, look: Look, quiet: bool) -> Diagnosis:
    """Look, say what was found unless that is to be `quiet`, and return it."""
    case = examined(server, look.patience)
    found = diagnose(case, AREAS, look)
    if not quiet:
        tell(case.host, found, _size(case))
    return found


def examined(server: Server, patience: int) -> Case:
    """Look at host and machine; raises Exit where there is no server to look at."""
    started = time.time()
    facts = refuse_nothing(server)
    logins = known_logins(server)
    tried = [
        {"source": source, "username": login.username, "password": login.password}
        for source, login in logins.items()
    ]
    # A tunnel that hangs is waited for while the host is looked at.
    with ThreadPoolExecutor(max_workers=1) as pool:
        here = pool.submit(this_machine, server, started, logins)
        step = looking(server.settings, tried, patience)
        reports = server.look("doctor", [step], TIMEOUT + patience)
        return Case(server.name, server.settings, facts, parse(reports), here.result())


def known_logins(server: Server) -> dict[str, Login]:
    """Collect every login that a client on this machine might use for this server."""
    variables = server.variables
    username, password = variables.get(login_engine.USERNAME), variables.get(login_engine.PASSWORD)
    found = {
        "variables": login_engine.Login(username, password) if username and password else None,
        "copy": credentials.kept(server),
        "file": None if server.rehearsal else credentials.mlflow_file(),
    }
    for login in found.values():
        console.protect(login.password if login else None)
    return {source: login for source, login in found.items() if login}


def this_machine(server: Server, now: float, logins: Mapping[str, Login]) -> Here:
    """See what concerns this machine alone: its tunnel and its variables."""
    variables = server.variables
    there = tunnels.opened(server)
    return Here(
        now=now,
        uri=variables.get("MLFLOW_TRACKING_URI"),
        sources=frozenset(logins),
        half=bool(variables.get(login_engine.USERNAME))
        != bool(variables.get(login_engine.PASSWORD)),
        file_is_anothers="file" in logins and credentials.is_anothers(server, logins["file"]),
        shell=not server.rehearsal,
        tunnel_port=there.local_port if there else None,
        tunnel=there.condition if there else "",
        # Asks nobody who would have to wake up for it.
        by_session=session_manager.is_used(server.connection.target.proxy_command),
        zone=f"{datetime.now().astimezone():%z}",
        tunnel_answers=there is not None and tunnel_daemon.reaches(there.local_port, 2.0),
    )


def _size(case: Case) -> str:
    facts = case.facts
    runs = "" if facts.runs is None else f", {counted(facts.runs, 'run')}"
    version = version_of(facts.release)
    return f"MLflow {version or '-'}{runs}, {size_text(facts.free_kb * 1024)} free"


def repair(c: Host, safe: Sequence[Finding], yes: bool) -> None:
    """Do the safe repairs, each thing once, after asking."""
    server = c.server
    scripts = list(dict.fromkeys(finding.script for finding in safe if finding.script))
    wanted = {task for finding in safe for task in finding.tasks}
    names = [name for name in REPAIRS if name in wanted]
    # A deploy or restart starts what is stopped.
    if {"deploy", "restart"} & wanted and "start" in names:
        names.remove("start")
    with _asking:
        server.say("doctor --fix would do:")
        for what in (*scripts, *map(server.fab, names)):
            server.say(f"  {what}")
        if not server.confirm(f"Do this on {server.place}?", yes):
            raise Exit("Nothing was changed.")
    if scripts:
        server.apply("doctor --fix", [Change(script, script) for script in scripts], decided=False)
    for name in names:
        run_by_name(c, name)
