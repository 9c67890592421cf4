"""What can be wrong with the unit, its environment, its memory and its files."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tasks.changes import files
from tasks.engine import facts as facts_engine
from tasks.engine.tables import counted
from tasks.findings.case import STARTING, Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.findings.case import Case, Finding

SILENT = 10  # seconds of a request for /health: a server that is only slow answers before

RESTARTS = 3  # of themselves nobody's fault: a kill, a reboot of the database


def server(case: Case) -> Iterator[Finding]:
    facts, unit = case.facts, case.unit
    service, socket = facts.unit(f"{unit}.service"), facts.unit(f"{unit}.socket")
    states = f"systemctl: {unit}.service {service.active}, {unit}.socket {socket.active}"
    absent = [
        name for name in (f"{unit}.service", f"{unit}.socket") if facts.unit(name).load != "loaded"
    ]
    if masked := case.symptoms.masked:
        which = " ".join(masked)
        yield case.finding(
            "unit-masked",
            f"{' and '.join(masked)} cannot be started, by anybody: it is masked.",
            "systemctl show: LoadState=masked",
            Remedy(
                script=f"sudo systemctl unmask {which}; sudo systemctl unmask --runtime {which}",
                tasks=("deploy",),
            ),
        )
    elif absent:
        yield case.finding(
            "unit-missing",
            f"{' and '.join(absent)} cannot be loaded.",
            "systemctl show: " + ", ".join(f"{name} {facts.unit(name).load}" for name in absent),
            Remedy(tasks=("deploy",)),
        )
    elif case.crashing:
        error = case.symptoms.error
        yield case.finding(
            "crash-loop",
            f"The server crashes at every start: {error or 'its log names no error'}",
            f"systemd has started it {counted(service.restarts + 1, 'time')}; journalctl -u {unit}",
            Remedy(
                "If another finding names the cause, fix that first. What was changed by hand, "
                "deploy puts right; the whole story is in: " + case.fab("logs"),
                tasks=("deploy",),
            ),
        )
    elif service.active in ("inactive", "failed", "deactivating"):
        hint = "The next request would start it." if socket.active == "active" else ""
        yield case.finding(
            "service-stopped", "The server is stopped.", states, Remedy(hint, tasks=("start",))
        )
    elif socket.active != "active":
        yield case.finding(
            "socket-stopped",
            "The server runs, but its socket is down: a restart would lose requests.",
            states,
            Remedy(tasks=("start",)),
        )
    elif case.symptoms.health not in (200, None) or case.symptoms.silent >= SILENT:
        yield from _not_answering(case)
    elif facts.drained:
        yield case.finding(
            "drained",
            "The server is drained: balancers send nothing here.",
            f"/run/{unit}.drain is there, which a restart takes away again when it is done",
            Remedy("Unless one is under way just now:", type=(case.fab("restart"),)),
            severity="note",
        )
    elif service.restarts >= RESTARTS:
        yield case.finding(
            "restarts",
            "systemd had to start the server again since an operator last did, "
            f"{counted(service.restarts, 'time')}; it runs now.",
            "systemctl: NRestarts",
            Remedy(
                "Its log says why; a restart sets the count back.",
                type=(case.fab("logs", "--level", "error"), case.fab("restart")),
            ),
            severity="note",
        )
    names = (f"{unit}.service", f"{unit}.socket", "nginx.service")
    disabled = [
        name for name in names if facts.unit(name).load == "loaded"
        and facts.unit(name).file not in ("enabled", "static", "")
    ]  # fmt: skip
    if disabled:
        yield case.finding(
            "unit-disabled",
            f"After a reboot the server would not come back: {', '.join(disabled)} "
            f"{'is' if len(disabled) == 1 else 'are'} not enabled.",
            "systemctl is-enabled",
            Remedy(script=f"sudo systemctl enable {' '.join(disabled)}"),
        )
    if case.symptoms.stranger == 200:
        yield case.finding(
            "open",
            "The server answers everybody, without a login.",
            "a search for experiments without a login is answered 200 instead of 401",
            Remedy(tasks=("deploy", "restart")),
        )
    yield from _memory(case)
    yield from readable_secrets(case)


def _not_answering(case: Case) -> Iterator[Finding]:
    facts = case.facts
    age = facts.now - facts.unit(f"{case.unit}.service").since
    seen = f"/health is answered {case.symptoms.health} through nginx"
    if case.symptoms.silent:
        seen = f"/health was not answered within {case.symptoms.silent:.0f} s through nginx"
    if age < STARTING:
        yield case.finding(
            "starting",
            f"The server has been starting for {age} s and does not answer yet.",
            seen,
            Remedy("Give it half a minute.", type=(case.fab("status"),)),
            severity="note",
        )
    else:
        yield case.finding(
            "not-answering",
            "The server runs and does not answer.",
            seen,
            Remedy(
                "If that does not help, its log says why: " + case.fab("logs"), tasks=("restart",)
            ),
        )


def _memory(case: Case) -> Iterator[Finding]:
    workers = case.facts.workers
    have = case.facts.memory_kb / 1024
    if workers:
        need = workers * files.WORKER_MB
        if need > 0.9 * have:
            yield case.finding(
                "memory-small",
                f"The host has {have:.0f} MB of memory, about {need} are needed for "
                f"{counted(workers, 'worker')}.",
                f"--workers {workers} in start_mlflow_server.sh; MemTotal",
                Remedy(
                    "Set fewer `workers:` in fabric.yaml (0 takes as many as fit), or take a "
                    "larger instance; then:",
                    tasks=("deploy",),
                ),
            )
    if case.symptoms.out_of_memory:
        yield case.finding(
            "out-of-memory",
            "The kernel has ended the server for want of memory in the last two hours.",
            f"the journal of {case.unit} names the OOM killer "
            f"{counted(case.symptoms.out_of_memory, 'time')}",
            Remedy(
                "Set fewer `workers:` in fabric.yaml and deploy, or take a larger instance.",
                type=(case.ssh("free -m; ps aux --sort=-rss | head -n 5"),),
            ),
        )


def readable_secrets(case: Case) -> Iterator[Finding]:
    if "MLFLOW_FLASK_SERVER_SECRET_KEY" not in case.facts.server_env:
        yield case.finding(
            "secret-key-missing",
            "The server has no secret key; without one MLflow does not start.",
            f"{case.facts.root}/server.env names no MLFLOW_FLASK_SERVER_SECRET_KEY",
            Remedy(tasks=("configure", "restart")),
        )
    readable = [path for path, mode in case.symptoms.modes.items() if int(mode, 8) & 0o077]
    if readable:
        yield case.finding(
            "readable-secrets",
            f"Other users of the host may read {', '.join(readable)}.",
            "stat: " + ", ".join(f"{case.symptoms.modes[path]} {path}" for path in readable),
            Remedy(script=f"chmod go= {shlex.join(readable)}"),
        )


def environment(case: Case) -> Iterator[Finding]:
    facts, symptoms = case.facts, case.symptoms
    release = facts.release
    if release is None:
        yield case.finding(
            "not-installed",
            "MLflow's environment is gone.",
            f"{facts.root}/venv names no release",
            Remedy(tasks=("install", "deploy")),
        )
    elif release not in facts.complete or symptoms.environment != "whole":
        why = symptoms.environment if symptoms.environment != "whole" else "its Python is gone"
        stamp = f"{facts.root}/releases/{release}/.complete"
        yield case.finding(
            "environment-broken",
            f"MLflow's environment is broken: {why}.",
            f"{facts.root}/venv/bin/python, and the packages' own lists of files",
            Remedy(script=f"rm -f {shlex.quote(stamp)}", tasks=("install", "restart")),
        )


def settings(case: Case) -> Iterator[Finding]:
    """Compare host and machine with what the settings say they should be."""
    if case.settings.access == "ssm" and not case.here.by_session:
        yield case.finding(
            "access-differs",
            "`access: ssm` is set, and the host is reached by its SSH port.",
            "no ProxyCommand of Session Manager's in the ssh configuration",
            Remedy(
                "aws.adopt brings the host over, and proves the new way before the old one goes.",
                type=(case.fab("aws.adopt"),),
            ),
            severity="note",
        )
    if not case.settings.bucket or case.facts.release is None:
        return
    wanted = files.files(case.settings, case.facts)
    differing = [
        file.path
        for file in wanted
        if file.path in case.facts.files
        and not facts_engine.is_there(case.facts, file.path, file.text, file.mode)
    ]
    if differing:
        yield case.finding(
            "deploy-due",
            f"The host and the settings differ: {', '.join(differing)}.",
            "what deploy would put there",
            Remedy(
                "Changed settings, a newer version of this project, or a change made by hand on "
                "the host.",
                tasks=("deploy",),
            ),
            severity="note",
        )
