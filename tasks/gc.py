"""Remove for good what was deleted in MLflow, and find files in the bucket that nothing knows."""

from __future__ import annotations

import json as serialised
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import backup_key
from tasks.changes.backup import backing_up
from tasks.changes.gc import AGE, age, collecting, on_orphans
from tasks.engine.console import console
from tasks.engine.tables import counted, size_text
from tasks.engine.task import remote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from tasks.engine.change import Change
    from tasks.engine.server import Server
    from tasks.engine.task import Host

TIMEOUT = 1800  # seconds; a million objects are listed in some minutes

SHOWN = 20  # lines of each kind; --json tells all


def refuse_nonsense(older_than: str | None = None, orphans: bool = False, **_: Any) -> None:
    """Raise Exit where the options make no sense, before any connection."""
    if older_than is not None:
        age(older_than)
        if orphans:
            raise Exit(
                "--older-than is for what was deleted in MLflow. Orphans are older than a day; "
                "leave it out."
            )


def show(answers: Mapping[str, Any]) -> None:
    """Print each host's answer."""
    for host, answer in answers.items():
        if "backup" in answer:
            console.say(f"backup before: {answer['backup']}", host)
        if "found" in answer:
            show_found(host, answer)
        else:
            (show_deletion if answer["deleted"] else show_report)(host, answer)


def show_found(host: str, answer: Mapping[str, Any]) -> None:
    """Print what was deleted in MLflow, and what of it is left."""
    found, left = answer["found"], answer["left"]
    age_ = f"deleted more than {answer['older_than']} ago"
    say_rows(host, found, described)
    if left:
        console.say("left as it is:", host)
        say_rows(host, left, lambda row: f"{named(row)}: {row['why']}")
    if answer["models"]:
        what = "logged models of these runs that stay until deleted in MLflow themselves"
        console.say(f"{what}: {answer['models']}", host)
    if not found:
        console.say(f"gc: nothing to remove that was {age_}", host)
    elif answer["removed"]:
        console.say(f"✓ removed for good: {by_kind(found)}, {volume(answer)}", host, "green")
    else:
        console.say(f"{age_}: {by_kind(found)}, {volume(answer)}. Nothing was removed.", host)
        console.say(f"to remove it: {answer['type']}", host)


def show_report(host: str, answer: Mapping[str, Any]) -> None:
    """Print the sum of a report of orphans."""
    say_rows(host, answer["places"], located)
    if answer["recent"]:
        younger = counted(answer["recent"], "unknown object")
        console.say(f"{younger} of the last 24 hours may be an upload at work: left out", host)
    if not answer["objects"]:
        console.say("gc --orphans: nothing to delete", host)
        return
    of = f"of {counted(answer['all'], 'object')}"
    console.say(f"unknown to MLflow: {volume(answer)}, {of}. Nothing was deleted.", host)
    if answer["objects"] > answer["all"] / 2:
        console.warn("That is most of what lies there: if runs are missing, restore first.", host)
    console.say(f"each one stands in {answer['report']} on the host", host)
    console.say(f"read it; to delete what stands there: {answer['type']}", host)


def show_deletion(host: str, answer: Mapping[str, Any]) -> None:
    """Print what was deleted of a report of orphans."""
    if not answer["objects"] + answer["left"]:
        console.say("gc --orphans: nothing to delete, the last report is empty", host)
        return
    console.say(f"✓ deleted {volume(answer)} that nothing in MLflow knew", host, "green")
    if answer["left"]:
        console.say(
            f"  known, changed or gone since the report: {counted(answer['left'], 'object')}", host
        )


def say_rows(
    host: str, rows: Sequence[Mapping[str, Any]], spell: Callable[[Mapping[str, Any]], str]
) -> None:
    """Print the first rows, and how many there are beyond."""
    for row in rows[:SHOWN]:
        console.say(f"  {spell(row)}", host)
    if len(rows) > SHOWN:
        console.say(f"  and {len(rows) - SHOWN} more (--json tells all)", host)


def named(row: Mapping[str, Any]) -> str:
    """Name what was deleted: run 3f… (my run) of experiment 3."""
    name = f" ({row['name']})" if row.get("name") else ""
    where = "" if row["kind"] == "experiment" else f" of experiment {row['experiment']}"
    return f"{row['kind']} {row['id']}{name}{where}"


def described(row: Mapping[str, Any]) -> str:
    return f"{named(row)}, deleted {row['deleted'][:10]}: {volume(row)}"


def located(row: Mapping[str, Any]) -> str:
    whose = f" (experiment {row['experiment']})" if row["experiment"] else " (of no experiment)"
    return f"{row['place']}{whose}: {volume(row)}, the newest of {row['newest'][:10]}"


def by_kind(rows: Sequence[Mapping[str, Any]]) -> str:
    """Count what was found, by kind: 3 runs, 1 model."""
    kinds = [row["kind"] for row in rows]
    return ", ".join(counted(kinds.count(kind), kind) for kind in dict.fromkeys(kinds))


def volume(row: Mapping[str, Any]) -> str:
    """Spell objects and bytes: 12 objects, 3.4 MB."""
    return f"{counted(row['objects'], 'object')}, {size_text(row['bytes'])}"


@remote(
    once=True,
    options=refuse_nonsense,
    report=show,
    help={
        "older-than": f"how long ago it was deleted: 12h, 30d, 2w (default: {AGE})",
        "orphans": "files that nothing in MLflow knows, instead of what was deleted there",
        "yes": "remove it; without, nothing is",
        "json": "print JSON instead of lines",
    },
)
def gc(
    c: Host,
    older_than: str | None = None,
    orphans: bool = False,
    yes: bool = False,
    json: bool = False,
) -> dict[str, Any]:
    """Remove deleted runs, models and experiments for good.

    With their files. Shows them and removes nothing; --yes makes a backup, then removes them. What
    a registered model needs is left. --orphans writes a report of the files in the bucket that
    nothing in MLflow knows; --orphans --yes deletes what stands in the last one.

    Example: fab -H ec2 gc --older-than 30d
    """
    if yes and not c.server.confirm(f"Remove for good what is found on {c.server.place}?", yes):
        raise Exit("Nothing was removed.")
    if orphans:
        return delete_orphans(c.server) if yes else find_orphans(c.server)
    return collect(c.server, older_than or AGE, yes)


def collect(server: Server, older_than: str, yes: bool) -> dict[str, Any]:
    """Find what was deleted long enough ago, and remove it where that is wanted."""
    find, check, remove = (
        collecting(server, action, older_than) for action in ("find", "check", "remove")
    )
    found = looked("gc", server, find)
    if yes and found["found"]:
        found = after_backup("gc", server, check, remove)
    again = server.fab("gc --older-than", older_than, "--yes")
    return found | {"older_than": older_than, "removed": yes, "type": again}


def find_orphans(server: Server) -> dict[str, Any]:
    """Have the host write a report of its orphans."""
    found = looked("gc --orphans", server, on_orphans(server, "find", "look for orphans"))
    return found | {"deleted": False, "type": server.fab("gc --orphans --yes")}


def delete_orphans(server: Server) -> dict[str, Any]:
    """Delete what stands in the last report of orphans."""
    last = looked("gc --orphans", server, on_orphans(server, "last", "read the last report"))
    done = {"objects": 0, "bytes": 0, "left": 0}
    if last["objects"]:
        check = on_orphans(server, "check", "see that orphans can be deleted")
        delete = on_orphans(server, "delete", "delete the orphans of the last report")
        done = after_backup("gc --orphans", server, check, delete)
    return done | {"report": last["report"], "deleted": True}


def looked(task: str, server: Server, step: Change) -> Any:
    """Return what a step that only looks reports."""
    return serialised.loads(server.look(task, [step], TIMEOUT)[-1])


def after_backup(task: str, server: Server, check: Change, work: Change) -> Any:
    """Do what cannot be taken back, once it is seen to be possible and a backup is made."""
    steps = [check, *backup_key.agreeing(server), backing_up(server.settings), work]
    reports = server.apply(task, steps, decided=False)
    backup, done = map(serialised.loads, (reports[0], reports[-1]))
    return done | {"backup": backup["place"]}
