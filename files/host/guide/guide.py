"""Know a server that the guide made: whether there is one, and how it runs.

Runs on the host's own Python, by itself or beside guide_service.py. Prints {"version", "unit",
"active", "enabled", "pid", "host", "port", "store", "destination", "profile", "auth", "permission",
"cut_off"} as one line; nothing where the guide made no server here.
"""

import configparser
import dataclasses
import glob
import json
import os
import re
import shlex
import subprocess
import sys

SCRIPT = "start_mlflow_server.sh"
UNITS = "/etc/systemd/system"


@dataclasses.dataclass(frozen=True)
class Request:
    root: str
    unit: str  # ours


# -- what runs ---------------------------------------------------------------------------------


def read(pid, name):
    """Return one file of /proc as text; empty where the process is gone or somebody else's."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as stream:
            return stream.read().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def words(pid):
    return read(pid, "cmdline").split("\0")[:-1]


def parent(pid):
    return read(pid, "stat").rpartition(")")[2].split()[1:2]


def serves(root, pid):
    """Tell whether a process is the guide's start script or the `mlflow server` that it starts."""
    argv = words(pid)
    names = [os.path.basename(word) for word in argv]
    by_name = "mlflow" in names[:2] and "server" in names[:4]
    # Several workers of ours have uvicorn in its place.
    if not (SCRIPT in names[:3] or by_name or names[1:3] == ["-m", "uvicorn"]):
        return False
    try:
        here = os.readlink(f"/proc/{pid}/cwd") == root
    except OSError:
        here = False
    return here or any(word.startswith(root + "/") for word in argv[:3])


def processes(root):
    """List the server's first processes, and all of its processes."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    found = {pid for pid in pids if serves(root, pid)}
    first = [pid for pid in found if not found.intersection(parent(pid))]
    every, added = set(), found
    while added:
        every |= added
        added = {pid for pid in pids if every.intersection(parent(pid))} - every
    return sorted(first, key=int), every


def unit_of(pid):
    """Return the unit that runs a process, or "" where it is somebody's own.

    What was started by hand in a session lies in the unit that holds the session, such as EC2's
    Session Manager agent, cron or ssh: to stop or disable that one would lock its owner out.
    """
    found = re.search(r"/system\.slice/(?:.*/)?([^/\n]+)\.service", read(pid, "cgroup"))
    name = found.group(1) if found else ""
    its = name and (
        unit_says(name, "MainPID") == str(pid) or "mlflow" in unit_says(name, "ExecStart")
    )
    return name if its else ""


def unit_says(name, key):
    done = subprocess.run(
        ["systemctl", "show", name + ".service", "-p", key, "--value"],
        capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def is_loaded(name):
    return unit_says(name, "LoadState") == "loaded"


# -- what it is ----------------------------------------------------------------------------------


def environment(root):
    """Return the folder that the server runs from, and whether it lost its name.

    That is so where its taking over was cut off between two renames.
    """
    place = os.path.join(root, "venv")
    if not os.path.lexists(place):
        for mark in glob.glob(root + "/releases/*-guide/.guide/stopped"):
            return os.path.dirname(os.path.dirname(mark)), True
    return os.path.realpath(place), False


def version(venv):
    """Return the MLflow version of an environment, or None."""
    for path in glob.glob(venv + "/lib/python3*/site-packages/mlflow-*.dist-info"):
        return os.path.basename(path)[len("mlflow-") : -len(".dist-info")]
    return None


def told(root, pid):
    """Return the words and variables that the server was started with, as far as known."""
    text = ""
    if os.path.exists(os.path.join(root, SCRIPT)):
        with open(os.path.join(root, SCRIPT), errors="replace") as stream:
            text = stream.read().replace("\\\n", " ")
    assignment = r"^\s*(?:export\s+)?([A-Z][A-Z0-9_]*)=[\"']?([^\s\"']*)"
    variables = dict(re.findall(assignment, text, re.M))
    line = next((line for line in text.splitlines() if re.search(r"\bmlflow\s+server\b", line)), "")
    try:
        argv = shlex.split(line, comments=True)
    except ValueError:
        argv = line.split()
    # What runs knows better: there no variable of the script's is left.
    for child in sorted(processes(root)[1], key=int) if pid else ():
        if SCRIPT not in " ".join(words(child)[:3]) and serves(root, child):
            pairs = (pair.partition("=") for pair in read(child, "environ").split("\0") if pair)
            return words(child), {key: value for key, _, value in pairs} or variables
    return argv, variables


def option(argv, name, default=""):
    for number, word in enumerate(argv):
        if word == name and number + 1 < len(argv):
            return argv[number + 1]
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return default


def file_of(root, uri):
    """Return the file of an SQLite database as the server sees it; "" for any other database."""
    if not uri.startswith("sqlite:///"):
        return ""
    return os.path.normpath(os.path.join(root, os.path.expanduser(uri[len("sqlite:///") :])))


def login_file(root, variables):
    """Return the database of users and the default permission that the server's ini names."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(os.path.join(root, variables.get("MLFLOW_AUTH_CONFIG_PATH") or "none.ini"))
    values = dict(config["mlflow"]) if config.has_section("mlflow") else {}
    uri = values.get("database_uri", "sqlite:///basic_auth.db")
    return file_of(root, uri), values.get("default_permission", "READ")


def look(root, ours, venv):
    made = version(venv)
    if made is None:
        return None
    first, _ = processes(root)
    pid = int(first[0]) if first else 0
    unit = unit_of(pid) if pid else ""
    if not pid and os.path.exists(f"{UNITS}/{ours}.service"):
        unit = ours
    argv, variables = told(root, pid)
    auth, permission = login_file(root, variables)
    seen = {
        "version": made,
        "unit": unit,
        "active": bool(pid),
        "enabled": bool(unit) and unit_says(unit, "UnitFileState") == "enabled",
        "pid": pid,
        "host": option(argv, "--host")
        or option(argv, "-h")
        or variables.get("MLFLOW_HOST")
        or "127.0.0.1",
        "port": int(
            option(argv, "--port") or option(argv, "-p") or variables.get("MLFLOW_PORT") or 5000
        ),
        # Never the whole of one that may hold a password.
        "store": file_of(root, option(argv, "--backend-store-uri")),
        "destination": option(argv, "--artifacts-destination")
        or option(argv, "--default-artifact-root"),
        "profile": variables.get("AWS_PROFILE") or "default",
        "auth": auth,
        "permission": permission,
    }
    if pid or not os.path.exists(venv + "/.guide/stopped"):
        return seen
    kept = noted(venv)
    seen = {key: kept.get(key, seen[key]) for key in seen}
    return dict(seen, active=False, pid=0, cut_off=True)


def noted(venv):
    """Return how it ran when it was last stopped by us."""
    with open(os.path.join(venv, ".guide/ran.json")) as stream:
        return json.load(stream)


def main(request):
    root = os.path.realpath(request.root)
    venv, _ = environment(root)
    seen = look(root, request.unit, venv)
    if seen:
        print(json.dumps(seen))


if __name__ == "__main__":
    # Asked for by its text alone, with nothing staged beside it.
    main(Request(**dict(word.split("=", 1) for word in sys.argv[1:])))
