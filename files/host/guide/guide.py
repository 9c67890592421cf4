"""Know a server that the guide made: how it runs, how to stop it, how to have it run so again.

Runs on the host's own Python. Arguments: a verb, root, and the unit's name.
look    prints {"version", "unit", "active", "enabled", "pid", "host", "port", "store",
        "destination", "profile", "auth", "permission", "cut_off"} as one line; nothing where the
        guide made no server here.
note    writes that down beside the environment, and what else a new start needs. Until that start
        what was noted holds, whatever stops the server and is itself cut off.
stop    ends the server: its unit, or its process with all children.
retire  has the unit not start any more, and takes its file away where ours has the same name.
start   runs it as was noted, and waits until it answers.
"""

import configparser
import glob
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

verb, root, ours = sys.argv[1:]
root = os.path.realpath(root)
SCRIPT = "start_mlflow_server.sh"
UNITS = "/etc/systemd/system"
GRACE = 60  # seconds to end requests in flight
PATIENCE = 150  # seconds to start


def fail(text):
    print("@fail " + text)
    sys.exit(1)


def as_root(*words, **options):
    prefix = [] if os.getuid() == 0 else ["sudo", "-n"]
    return subprocess.run([*prefix, *words], **options)


# -- what runs ---------------------------------------------------------------------------------


def read(pid, name):
    """Return one file of /proc as text; empty where the process is gone or somebody else's."""
    try:
        with open("/proc/%s/%s" % (pid, name), "rb") as stream:
            return stream.read().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def words(pid):
    return read(pid, "cmdline").split("\0")[:-1]


def parent(pid):
    return read(pid, "stat").rpartition(")")[2].split()[1:2]


def serves(pid):
    """Tell whether a process is the guide's start script or the `mlflow server` that it starts."""
    argv = words(pid)
    names = [os.path.basename(word) for word in argv]
    if SCRIPT not in names[:3] and ("mlflow" not in names[:2] or "server" not in names[:4]):
        return False
    try:
        here = os.readlink("/proc/%s/cwd" % pid) == root
    except OSError:
        here = False
    return here or any(word.startswith(root + "/") for word in argv[:3])


def processes():
    """List the server's first processes, and all of its processes."""
    pids = [name for name in os.listdir("/proc") if name.isdigit()]
    found = {pid for pid in pids if serves(pid)}
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


def environment():
    """Return the folder that the server runs from, and whether it lost its name.

    That is so where its taking over was cut off between two renames.
    """
    place = os.path.join(root, "venv")
    if not os.path.lexists(place):
        for mark in glob.glob(root + "/releases/*-guide/.guide/stopped"):
            return os.path.dirname(os.path.dirname(mark)), True
    return os.path.realpath(place), False


def name_again(venv):
    """Give it back the name that its own programs know it by."""
    os.symlink(os.path.relpath(venv, root), os.path.join(root, "venv"))


def version(venv):
    """Return the MLflow version of an environment, or None."""
    for path in glob.glob(venv + "/lib/python3*/site-packages/mlflow-*.dist-info"):
        return os.path.basename(path)[len("mlflow-") : -len(".dist-info")]
    return None


def told(pid):
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
    for child in sorted(processes()[1], key=int) if pid else ():
        if SCRIPT not in " ".join(words(child)[:3]) and serves(child):
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


def file_of(uri):
    """Return the file of an SQLite database as the server sees it; "" for any other database."""
    if not uri.startswith("sqlite:///"):
        return ""
    return os.path.normpath(os.path.join(root, os.path.expanduser(uri[len("sqlite:///") :])))


def login_file(variables):
    """Return the database of users and the default permission that the server's ini names."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(os.path.join(root, variables.get("MLFLOW_AUTH_CONFIG_PATH") or "none.ini"))
    values = dict(config["mlflow"]) if config.has_section("mlflow") else {}
    uri = values.get("database_uri", "sqlite:///basic_auth.db")
    return file_of(uri), values.get("default_permission", "READ")


def look(venv):
    made = version(venv)
    if made is None:
        return None
    first, _ = processes()
    pid = int(first[0]) if first else 0
    unit = unit_of(pid) if pid else ""
    if not pid and os.path.exists("%s/%s.service" % (UNITS, ours)):
        unit = ours
    argv, variables = told(pid)
    auth, permission = login_file(variables)
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
        "store": file_of(option(argv, "--backend-store-uri")),
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


# -- its end and its return --------------------------------------------------------------------


def note(venv):
    """Write down how it runs, where only this user reads it: an environment may hold secrets."""
    how = look(venv)
    if how.get("cut_off"):
        return
    pid = how["pid"]
    if pid and not how["unit"]:
        how["argv"], how["cwd"] = words(pid), os.readlink("/proc/%d/cwd" % pid)
        how["environ"] = [pair for pair in read(pid, "environ").split("\0") if pair]
        log = os.readlink("/proc/%d/fd/1" % pid)
        how["log"] = log if os.path.isfile(log) else os.devnull
    folder = os.path.join(venv, ".guide")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    file = "%s/%s.service" % (UNITS, how["unit"])
    if how["unit"] and os.path.exists(file):
        shutil.copy(file, os.path.join(folder, "unit"))
    file = os.path.join(folder, "ran.json")
    with open(file + ".part", "w") as stream:
        json.dump(how, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(file + ".part", file)
    with open(os.path.join(folder, "stopped"), "w"):
        pass


def noted(venv):
    with open(os.path.join(venv, ".guide/ran.json")) as stream:
        return json.load(stream)


def send(number, pids):
    for pid in pids:
        try:
            os.kill(int(pid), number)
        except ProcessLookupError:
            pass
        except PermissionError:
            as_root("kill", "-%d" % number, str(pid), capture_output=True)


def stop(venv):
    how = noted(venv)
    if how["unit"] and is_loaded(how["unit"]):
        as_root("systemctl", "stop", how["unit"] + ".service", check=True)
    _, every = processes()
    send(signal.SIGTERM, every)
    for number in (0, signal.SIGKILL):
        deadline = time.monotonic() + GRACE
        send(number, every)
        while time.monotonic() < deadline:
            if not any(read(pid, "cmdline") for pid in every):
                return
            time.sleep(0.2)
    fail("The guide's server does not end. End it by hand, then type the same again.")


def retire(venv):
    how = noted(venv)
    if how["unit"] and is_loaded(how["unit"]):
        as_root("systemctl", "disable", "--quiet", how["unit"] + ".service", check=True)
    if how["unit"] == ours:
        as_root("rm", "-f", "%s/%s.service" % (UNITS, ours), check=True)
        as_root("systemctl", "daemon-reload", check=True)


def start(venv):
    how = noted(venv)
    if how["unit"]:
        kept = os.path.join(venv, ".guide/unit")
        if os.path.exists(kept):
            file = "%s/%s.service" % (UNITS, how["unit"])
            as_root("install", "-m", "644", kept, file, check=True)
            as_root("systemctl", "daemon-reload", check=True)
        if how["enabled"]:
            as_root("systemctl", "enable", "--quiet", how["unit"] + ".service", check=True)
    if how["active"]:
        if how["unit"]:
            as_root("systemctl", "reset-failed", how["unit"] + ".service", capture_output=True)
            as_root("systemctl", "start", how["unit"] + ".service", check=True)
        elif not processes()[0]:
            by_hand(how)
        await_health(how["port"])
    else:
        print("@say the guide's server is as it was: stopped")
    os.remove(os.path.join(venv, ".guide/stopped"))


def by_hand(how):
    """Start it as nohup does, with what it was started with."""
    pairs = (pair.partition("=") for pair in how["environ"])
    with open(how["log"], "a") as log:
        child = subprocess.Popen(
            how["argv"], cwd=how["cwd"], env={key: value for key, _, value in pairs},
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True, umask=0o022,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        )  # fmt: skip
    file = os.path.join(root, "mlflow.pid")
    if os.path.exists(file):
        with open(file, "w") as stream:
            stream.write("%d\n" % child.pid)


def await_health(port):
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    began = time.monotonic()
    while time.monotonic() < began + PATIENCE:
        try:
            with direct.open("http://127.0.0.1:%d/health" % port, timeout=10):
                print("@say the guide's server runs, as it ran before")
                return
        except OSError:
            time.sleep(0.3)
    fail("The guide's server does not answer on port %d. See its log." % port)


def show(venv):
    seen = look(venv)
    if seen:
        print(json.dumps(seen))


if __name__ == "__main__":
    verbs = {"look": show, "note": note, "stop": stop, "retire": retire, "start": start}
    its, nameless = environment()
    if nameless and verb != "look":
        name_again(its)
    verbs[verb](its)
