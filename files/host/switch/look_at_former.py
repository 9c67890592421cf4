"""Find the state that a rollback would give back, and count what would be lost.

Runs on the host and changes nothing. Arguments: root, and the state's name or "" for the last that
an upgrade, restore or adoption replaced. Reports {"name", "task", "release", "databases",
"replaced": seconds since 1970, "runs": n, "lost": n, or null where what is there now cannot be
read}.
"""

import json
import os
import sqlite3
import sys
from contextlib import closing

import databases

root, wanted = sys.argv[1:3]
folder = os.path.join(root, "former")


def fail(text):
    print("@fail " + text)
    sys.exit(1)


def states():
    """List what is kept, the newest first: names begin with their time."""
    found = []
    for name in sorted(os.listdir(folder) if os.path.isdir(folder) else (), reverse=True):
        try:
            with open(os.path.join(folder, name, "about.json")) as stream:
                found.append(json.load(stream) | {"name": name})
        except FileNotFoundError:
            continue
    return found


def counted(state):
    """Count the former runs, and those that only the present database knows."""
    place = os.path.join(folder, state["name"])
    try:
        former = run_ids(place)
    except Unreadable as error:
        fail("The former database of %s cannot be read: %s." % (state["name"], error))
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
    path = os.path.join(state, databases.TRACKING)
    try:
        # Not read-only: a log that was never folded into the file belongs to it.
        with closing(sqlite3.connect("file:%s?mode=rw" % path, uri=True, timeout=10)) as base:
            return {run for (run,) in base.execute("select run_uuid from runs")}
    except sqlite3.Error as error:
        raise Unreadable(error) from None


found = states()
known = ", ".join(state["name"] for state in found)
LEFT = ("rollback", "return")  # tasks that a state was put aside by, as it was not wanted
if wanted:
    fitting = [state for state in found if state["name"] == wanted]
    if not fitting:
        fail("There is no former state %s. Kept are: %s" % (wanted, known or "none"))
else:
    fitting = [state for state in found if state["task"] not in LEFT]
    if not fitting:
        fail(
            "There is nothing to go back to: no upgrade, restore or adoption was made here."
            + (" Kept are: %s. Back to one: ./fab rollback --id NAME" % known if known else "")
        )
state = fitting[0]
state["replaced"] = int(os.stat(os.path.join(folder, state["name"], "about.json")).st_mtime)
if state["databases"]:
    state.update(counted(state))
print("@report " + json.dumps(state))
