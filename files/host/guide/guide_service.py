"""Stop a server that the guide made, and have it run as it ran.

Runs on the host's own Python. Its actions:
note    writes down how it runs, and what else a new start needs. Until that start what was noted
        holds, whatever stops the server and is itself cut off.
stop    ends the server: its unit, or its process with all children.
retire  has the unit not start any more, and takes its file away where ours has the same name.
start   runs it as was noted, and waits until it answers.
"""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import time

import guide
import talk

GRACE = 60  # seconds to end requests in flight
PATIENCE = 150  # seconds to start


@dataclasses.dataclass(frozen=True)
class Request:
    action: str
    root: str
    unit: str  # ours


def as_root(*words, **options):
    prefix = [] if os.getuid() == 0 else ["sudo", "-n"]
    return subprocess.run([*prefix, *words], **options)


def unit_file(unit):
    return f"{guide.UNITS}/{unit}.service"


class Service:
    """The guide's server in a root: `venv` is the folder that it runs from, `ours` our unit."""

    def __init__(self, root, ours):
        self.root, self.ours = os.path.realpath(root), ours
        self.venv, nameless = guide.environment(self.root)
        if nameless:
            # The name that its own programs know it by.
            os.symlink(os.path.relpath(self.venv, self.root), os.path.join(self.root, "venv"))

    def note(self):
        """Write down how it runs, for this user alone: an environment may hold secrets."""
        how = guide.look(self.root, self.ours, self.venv)
        if how.get("cut_off"):
            return
        pid = how["pid"]
        if pid and not how["unit"]:
            how["argv"], how["cwd"] = guide.words(pid), os.readlink(f"/proc/{pid}/cwd")
            how["environ"] = [pair for pair in guide.read(pid, "environ").split("\0") if pair]
            log = os.readlink(f"/proc/{pid}/fd/1")
            how["log"] = log if os.path.isfile(log) else os.devnull
        folder = os.path.join(self.venv, ".guide")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if how["unit"] and os.path.exists(unit_file(how["unit"])):
            shutil.copy(unit_file(how["unit"]), os.path.join(folder, "unit"))
        file = os.path.join(folder, "ran.json")
        with open(file + ".part", "w") as stream:
            json.dump(how, stream, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(file + ".part", file)
        with open(os.path.join(folder, "stopped"), "w"):
            pass

    def stop(self):
        how = guide.noted(self.venv)
        if how["unit"] and guide.is_loaded(how["unit"]):
            as_root("systemctl", "stop", how["unit"] + ".service", check=True)
        _, every = guide.processes(self.root)
        send(signal.SIGTERM, every)
        for number in (0, signal.SIGKILL):
            send(number, every)
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline:
                if not any(guide.read(pid, "cmdline") for pid in every):
                    return
                time.sleep(0.2)
        talk.fail(
            "The guide's server does not end. End it by hand, then run the same command again."
        )

    def retire(self):
        how = guide.noted(self.venv)
        if how["unit"] and guide.is_loaded(how["unit"]):
            as_root("systemctl", "disable", "--quiet", how["unit"] + ".service", check=True)
        if how["unit"] == self.ours:
            as_root("rm", "-f", unit_file(self.ours), check=True)
            as_root("systemctl", "daemon-reload", check=True)

    def start(self):
        how = guide.noted(self.venv)
        if how["unit"]:
            kept = os.path.join(self.venv, ".guide/unit")
            if os.path.exists(kept):
                as_root("install", "-m", "644", kept, unit_file(how["unit"]), check=True)
                as_root("systemctl", "daemon-reload", check=True)
            if how["enabled"]:
                as_root("systemctl", "enable", "--quiet", how["unit"] + ".service", check=True)
        if how["active"]:
            if how["unit"]:
                as_root("systemctl", "reset-failed", how["unit"] + ".service", capture_output=True)
                as_root("systemctl", "start", how["unit"] + ".service", check=True)
            elif not guide.processes(self.root)[0]:
                self.by_hand(how)
            await_answer(how["port"])
        else:
            talk.say("the guide's server is as it was: stopped")
        os.remove(os.path.join(self.venv, ".guide/stopped"))

    def by_hand(self, how):
        """Start it as nohup does, with what it was started with."""
        pairs = (pair.partition("=") for pair in how["environ"])
        with open(how["log"], "a") as log:
            child = subprocess.Popen(
                how["argv"], cwd=how["cwd"], env={key: value for key, _, value in pairs},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, umask=0o022,
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
            )  # fmt: skip
        file = os.path.join(self.root, "mlflow.pid")
        if os.path.exists(file):
            with open(file, "w") as stream:
                stream.write(f"{child.pid}\n")


def send(number, pids):
    for pid in pids:
        try:
            os.kill(int(pid), number)
        except ProcessLookupError:
            pass
        except PermissionError:
            as_root("kill", f"-{int(number)}", str(pid), capture_output=True)


def await_answer(port):
    def answers():
        try:
            with talk.without_proxy().open(f"http://127.0.0.1:{port}/health", timeout=10):
                return True
        except OSError:
            return False

    if not talk.await_health(answers, PATIENCE):
        talk.fail(f"The guide's server does not answer on port {port}. See its log.")
    talk.say("the guide's server runs, as it ran before")


def main(request):
    service = Service(request.root, request.unit)
    actions = {
        "note": service.note, "stop": service.stop, "retire": service.retire,
        "start": service.start,
    }  # fmt: skip
    actions[request.action]()


main(talk.request(Request))
