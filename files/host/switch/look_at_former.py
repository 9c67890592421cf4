"""Find the state that a rollback would give back, and count what would be lost.

Runs on the host and changes nothing. Reports {"name", "task", "release", "databases", "replaced":
seconds since 1970, "runs": n, "lost": n, or null where what is there now cannot be read}.
"""

import dataclasses
import json
import os
import sqlite3
from contextlib import closing

import databases
import talk
from fenced import fenced

LEFT = ("rollback", "return")  # tasks that a state was put aside by, as it was not wanted


@dataclasses.dataclass(frozen=True)
class Request:
    root: str
    id: str = ""  # the state's name; the last that a task replaced where there is none


def states(folder):
    """List what is kept, the newest first: names begin with their time."""
    found = []
    for name in sorted(os.listdir(folder) if os.path.isdir(folder) else (), reverse=True):
        try:
            with open(os.path.join(folder, name, "about.json")) as stream:
                found.append(json.load(stream) | {"name": name})
        except FileNotFoundError:
            continue
    return found


def chosen(found, id):
    """Return the state of this name, or the last that an upgrade, restore or adoption replaced."""
    known = ", ".join(state["name"] for state in found)
    fitting = [state for state in found if state["name"] == id]
    if id and not fitting:
        talk.fail(f"There is no former state {id}. Kept are: {known or 'none'}")
    if not id:
        fitting = [state for state in found if state["task"] not in LEFT]
    if not fitting:
        talk.fail(
            "There is nothing to go back to: no upgrade, restore or adoption was made here."
            + (f" Kept are: {known}. Back to one: ./fab rollback --id NAME" if known else "")
        )
    return fitting[0]


def counted(root, place):
    """Count the runs of a former state, and those that only the present database knows."""
    try:
        former = run_ids(place)
    except Unreadable as error:
        talk.fail(f"The former database of {os.path.basename(place)} cannot be read: {error}.")
    try:
        return {"runs": len(former), "lost": len(run_ids(root) - former)}
    except Unreadable:
        return {"runs": len(former), "lost": None}


class Unreadable(Exception):
    """Why a database tells nothing."""


def run_ids(state):
    """Return the ids of all runs in a state's database; raises Unreadable."""
    uri = databases.addresses(state)[databases.TRACKING]
    if not uri.startswith("sqlite:"):
        import postgres  # a state of the guide's needs none of what it imports

        try:
            return postgres.run_ids(uri)
        except postgres.Refused as error:
            raise Unreadable(error) from None
    path = databases.path(state, databases.TRACKING)
    try:
        return fenced([os.path.dirname(path)], lambda: known_runs(path))
    except sqlite3.Error as error:
        raise Unreadable(error) from None


def known_runs(path):
    # Not read-only: a log that was never folded into the file belongs to it.
    with closing(databases.opened(path, "rw", timeout=10)) as base:
        return {run for (run,) in base.execute("select run_uuid from runs")}


def main(request):
    folder = os.path.join(request.root, "former")
    state = chosen(states(folder), request.id)
    place = os.path.join(folder, state["name"])
    state["replaced"] = int(os.stat(os.path.join(place, "about.json")).st_mtime)
    if state["databases"]:
        state.update(counted(request.root, place))
    talk.report(state)


main(talk.request(Request))
