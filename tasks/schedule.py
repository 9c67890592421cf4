"""Have the host back itself up by timers of systemd's, thin its backups out, and verify them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import backup_key
from tasks.changes.presence import absent
from tasks.changes.schedule import VERIFIED, calendar, changes, chosen, loaded, unscheduling
from tasks.engine.facts import is_deployed, refuse_without_sudo
from tasks.engine.tables import clock
from tasks.engine.task import remote

if TYPE_CHECKING:
    from tasks.engine.task import Host

NAMESPACE = "backup"


def refuse_nonsense(every: str, verify: str, off: bool) -> None:
    """Raise Exit where what was typed makes no sense."""
    if off and (every or verify):
        raise Exit("--off takes the whole schedule away. Give it alone.")
    if every:
        calendar(every)
    if verify and verify not in (*VERIFIED, "off"):
        raise Exit(f"--verify is {verify!r}. Give daily, weekly or off.")


@remote(
    options=refuse_nonsense,
    help={
        "every": "how often: 15m, 1h, 6h, 1d, ... (default: as it is, at first 1h)",
        "verify": "how often one is verified: daily, weekly, off (default: as it is, first weekly)",
        "off": "take the schedule away; backups stay",
    },
)
def schedule(c: Host, every: str = "", verify: str = "", off: bool = False) -> None:
    """Have the host back itself up, and verify its backups.

    By timers of systemd's, as the login user, also after this machine is switched off. What was
    missed while the host was off is made up for. Each backup thins out the old ones, as `keep` in
    the settings says; one that fails is a problem that `status` and `doctor` name.

    Example: fab -H ec2 backup.schedule --every 6h
    """
    server = c.server
    settings, facts = server.settings, server.facts
    if off:
        if not (facts.schedule or loaded(settings, facts)):
            server.say("backup.schedule: nothing to change, there is none")
            return
        server.apply("backup.schedule --off", [unscheduling(settings)])
        server.say("✓ no schedule any more; the backups in the bucket stay", "green")
        return
    if not is_deployed(settings, facts):
        raise Exit(absent(server))
    refuse_without_sudo(facts)
    plan = chosen(facts, every, verify)
    what = f"a backup every {plan.every}, verified {plan.verify}".replace(
        "verified off", "unverified"
    )
    needed = changes(settings, facts, plan)
    if not needed:
        server.say(f"backup.schedule: nothing to change ({what})")
        return
    reports = server.apply("backup.schedule", [*backup_key.agreeing(server), *needed])
    first = dict(line.split("\t", 1) for line in reports if "\t" in line).get("backup", "")
    when = f"at {clock(int(first))} by your clock" if first.isdigit() else f"within {plan.every}"
    server.say(f"✓ {what}; the first {when}, or now: ./fab backup", "green")
