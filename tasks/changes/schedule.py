"""The timers that make and verify backups, and what they run."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import stream
from tasks.changes.backup import backing_up, pruning, secrets, verifying
from tasks.changes.files import File
from tasks.engine.change import Change, bundle
from tasks.engine.facts import is_there
from tasks.engine.records import dataclass
from tasks.engine.shell import sh
from tasks.engine.templates import confined, render, source

if TYPE_CHECKING:
    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings

MINUTES = {"m": 1, "min": 1, "h": 60, "d": 1440, "w": 10080}

HOUR, DAY, WEEK = 60, 1440, 10080

SHORTEST = 5  # minutes; a backup of a large database takes one

ACCEPTED = "Give a whole part of an hour or a day, such as 15m, 1h or 6h; or 1d, or 7d."

# By the host's clock, when the night's backup is done.
VERIFIED = {"daily": "*-*-* 04:30:00", "weekly": "Sun *-*-* 04:30:00"}

LONGEST_DELAY = 15  # minutes


@dataclass(frozen=True)
class Plan:
    """How often backups are made (15m, 1h, 1d), and verified (daily, weekly, off)."""

    every: str = "1h"
    verify: str = "weekly"


def chosen(facts: Facts, every: str, verify: str) -> Plan:
    """Return the plan that is meant; what is not given stays as it is."""
    now = planned(facts) or Plan()
    return Plan(every or now.every, verify or now.verify)


def planned(facts: Facts) -> Plan | None:
    """Return the plan that the host goes by, or None."""
    words = (facts.schedule or "").split()
    return Plan(*words[:2]) if len(words) == 3 else None


def changes(settings: Settings, facts: Facts, plan: Plan) -> list[Change]:
    """Decide what the host lacks."""
    wanted = bundles(settings, plan)
    files = units(settings, facts, plan)
    if is_current(settings, facts, plan):
        return []
    sent: dict[str, str | bytes] = {f"{name}.tar": packed for name, packed in wanted.items()}
    sent |= {name: file.text for name, file in files.items()}
    unwanted = {"backup", "verify"} - set(wanted)
    script = "\n".join(
        (
            f"unit={settings.unit} stamp={sh(stamp(settings, facts, plan))}",
            f"wanted={sh(' '.join(wanted))} unwanted={sh(' '.join(unwanted))}",
            source("schedule.sh"),
        )
    )
    return [Change("lay down what the timers run, and switch them on", script, sent)]


def renewing(settings: Settings, facts: Facts) -> list[Change]:
    """Return what brings a schedule's programs to this version; its plan stays as it is."""
    plan = planned(facts)
    return changes(settings, facts, plan) if plan and loaded(settings, facts) else []


def is_current(settings: Settings, facts: Facts, plan: Plan) -> bool:
    """Tell whether the host does what this plan, these settings and this project say."""
    files = units(settings, facts, plan)
    verified = facts.unit(f"{unit_of(settings, 'verify')}.timer")
    timers = [facts.unit(f"{unit_of(settings, name)}.timer") for name in bundles(settings, plan)]
    return (
        facts.schedule == stamp(settings, facts, plan)
        and all(is_there(facts, file.path, file.text, file.mode) for file in files.values())
        and all(timer.active == "active" and timer.file == "enabled" for timer in timers)
        and (plan.verify != "off" or verified.load == "not-found")
    )


def loaded(settings: Settings, facts: Facts) -> bool:
    """Tell whether anything of a schedule is left."""
    names = (unit_of(settings, name) for name in ("backup", "verify"))
    return any(facts.unit(f"{name}.timer").load != "not-found" for name in names)


def unscheduling(settings: Settings) -> Change:
    """Build the change that takes the schedule away."""
    script = f"unit={settings.unit}\n{source('unschedule.sh')}"
    return Change("take the timers away", script)


def bundles(settings: Settings, plan: Plan) -> dict[str, bytes]:
    """Pack what the timers run: what `apply` would send for the same steps."""
    steps = [backing_up(settings), pruning(settings, "timer"), stream.pruning(settings, timer=True)]
    packed = {"backup": bundle(steps)}
    if plan.verify != "off":
        packed["verify"] = bundle([verifying(settings, timer=True)])
    return packed


def units(settings: Settings, facts: Facts, plan: Plan) -> dict[str, File]:
    """Render the units, by the names that they are staged with."""
    minutes, moment = calendar(plan.every)
    found = _pair(settings, facts, "backup", f"every {plan.every}", moment, minutes)
    if plan.verify != "off":
        moment = VERIFIED[plan.verify]
        found |= _pair(settings, facts, "verify", plan.verify, moment, DAY)
    return found


def _pair(
    settings: Settings, facts: Facts, name: str, often: str, moment: str, minutes: int
) -> dict[str, File]:
    unit = unit_of(settings, name)
    about = {"unit": settings.unit, "task": "backup" if name == "backup" else "backup.verify"}
    # A tenth of the time between two of them.
    delay = f"{min(minutes * 6, LONGEST_DELAY * 60)}s"
    texts = {
        "service": render(
            "units/backup.service",
            **about,
            steps=name,
            user=facts.user,
            root=facts.root,
            confined=confined(facts.root, facts.home),
            secrets=secrets(settings, key=True),
        ),
        "timer": render("units/backup.timer", **about, often=often, calendar=moment, delay=delay),
    }
    return {
        f"{name}.{kind}": File(f"/etc/systemd/system/{unit}.{kind}", "644", text)
        for kind, text in texts.items()
    }


def unit_of(settings: Settings, name: str) -> str:
    """Name the unit of the backups, or of their verification, without its kind."""
    return f"{settings.unit}-backup" if name == "backup" else f"{settings.unit}-backup-{name}"


def stamp(settings: Settings, facts: Facts, plan: Plan) -> str:
    """Spell plan and digest of all that the timers are and run; facts show it as `schedule`."""
    texts = [file.text for file in units(settings, facts, plan).values()]
    parts = repr((sorted(bundles(settings, plan).items()), texts))
    return f"{plan.every} {plan.verify} {hashlib.sha256(parts.encode()).hexdigest()[:16]}"


def calendar(every: str) -> tuple[int, str]:
    """Return the minutes between two backups, and systemd's spelling of when they are.

    By the calendar, since systemd makes up for what was missed with no other timer
    (systemd.timer(5), Persistent=). Raises Exit for what no calendar repeats evenly.
    """
    given = re.fullmatch(r"(\d{1,4})(m|min|h|d|w)", every)
    minutes = int(given[1]) * MINUTES[given[2]] if given else 0
    if minutes < SHORTEST:
        raise Exit(f"--every is {every!r}. {ACCEPTED}")
    if minutes < HOUR and HOUR % minutes == 0:
        return minutes, f"*-*-* *:00/{minutes:02d}:00"
    if minutes < DAY and minutes % HOUR == 0 and DAY % minutes == 0:
        return minutes, f"*-*-* 00/{minutes // HOUR:02d}:00:00"
    if minutes == DAY:
        return minutes, "*-*-* 03:00:00"
    if minutes == WEEK:
        return minutes, "Sun *-*-* 03:00:00"
    raise Exit(f"--every is {every!r}. {ACCEPTED}")
