"""Start, restart and drain a server, and the state of its units in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.facts import is_deployed
from tasks.engine.tables import counted
from tasks.engine.templates import source

if TYPE_CHECKING:
    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings
    from tasks.engine.task import Host

TIMED = ("backup", "backup-verify")  # what timers begin, as their units are called


def failed_by_timer(settings: Settings, facts: Facts) -> tuple[str, ...]:
    """Name what a timer began last and failed at: backup, backup.verify.

    A backup that was made since, by hand, makes up for one that failed.
    """
    backup, verify = (facts.unit(f"{settings.unit}-{name}.service") for name in TIMED)
    made = int(facts.backup.split()[0]) if facts.backup else 0
    found = {
        "backup": backup.active == "failed" and made <= backup.changed,
        "backup.verify": verify.active == "failed",
    }
    return tuple(name for name, failed in found.items() if failed)


def awaiting(settings: Settings, verb: str) -> str:
    """Spell a script that has systemd `start` or `restart` the server, and waits for its answer."""
    return "\n".join((f"unit={settings.unit}", source("health.sh"), f"bring_up {verb}"))


def is_one_of_several(c: Host) -> bool:
    """Tell whether others may serve meanwhile: a balancer stands in front."""
    return c.turn.several or bool(c.server.settings.balancers)


def drained(settings: Settings) -> str:
    """Spell a script that has balancers send nothing new here, and waits for what is under way."""
    return "\n".join((f"unit={settings.unit}", source("drain.sh"), "drain"))


def rolling(settings: Settings, verb: str) -> str:
    """Spell what `awaiting` does for a server that others stand in for meanwhile."""
    lines = (drained(settings), awaiting(settings, verb), "await_usable", "come_back")
    return "\n".join(lines)


def state(settings: Settings, facts: Facts) -> str:
    """Spell what the units do, in words that say what comes next."""
    if facts.guide:
        return "the guide's (./fab deploy takes it over)"
    if not is_deployed(settings, facts):
        return "not deployed"
    service = facts.unit(f"{settings.unit}.service")
    socket = facts.unit(f"{settings.unit}.socket")
    if service.active == "active":
        if facts.drained:
            return "drained: balancers send nothing here (./fab restart ends that)"
        if facts.unit("nginx.service").active != "active":
            return "running, but nginx is down (./fab start)"
        return "running" if socket.active == "active" else "running without its socket"
    if service.active == "activating":
        return f"restarting after a failure ({counted(service.restarts, 'time')}; ./fab logs)"
    if socket.active == "active":
        return "stopped, but the next request starts it (./fab stop stops both)"
    return "stopped (./fab start)"
