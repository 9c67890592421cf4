"""Start and stop: what is already so costs nothing, and every state has its words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from invoke import Exit
from stand_ins import SETTINGS, Task, blank, context, deployed

from tasks import service
from tasks.changes import service as service_changes
from tasks.engine.facts import Facts, Unit
from tasks.engine.settings import Settings

SERVICE, SOCKET, NGINX = "mlflow-server.service", "mlflow-server.socket", "nginx.service"


def units(service: str = "active", socket: str = "active", nginx: str = "active") -> Facts:
    states = {SERVICE: service, SOCKET: socket, NGINX: nginx}
    return deployed(
        units={name: Unit("loaded", state, file="enabled") for name, state in states.items()}
    )


STOPPED = units("inactive", "inactive")


def steps(c: Task) -> str:
    (run,) = c.recorder.changes
    return run.steps


def test_start_starts_socket_nginx_and_service_and_waits():
    c = context(STOPPED)
    service.start(c)
    lines = steps(c).splitlines()
    assert lines[:3] == [
        "say 'start the server'",
        "as_root systemctl start mlflow-server.socket nginx",
        "unit=mlflow-server",
    ]
    assert lines[-1] == "bring_up start"


def test_stop_stops_service_and_socket_or_the_next_request_would_start_it_again():
    c = context(units())
    service.stop(c)
    assert steps(c) == (
        "say 'stop the server'\nas_root systemctl stop mlflow-server.socket mlflow-server.service\n"
    )


def test_restart_keeps_the_socket_so_that_no_request_is_lost():
    c = context(units())
    service.restart(c)
    lines = [line for line in steps(c).splitlines() if line.startswith(("as_root", "bring_up "))]
    assert lines == ["as_root systemctl start mlflow-server.socket nginx", "bring_up restart"]


@pytest.mark.parametrize(
    ("task", "facts"),
    [
        (service.start, units()),
        (service.stop, STOPPED),
        (service.stop, units("failed", "inactive")),
    ],
)
def test_what_is_already_so_costs_no_exec(task, facts, capsys):
    c = context(facts)
    task(c)
    assert c.recorder.runs == []
    assert "nothing to change" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "facts"),
    [
        (service.start, units(nginx="inactive")),
        (service.start, units(socket="inactive")),
        (service.start, units(service="failed")),
        (service.stop, units("inactive", "active")),
        (service.stop, units("activating", "inactive")),
    ],
)
def test_half_of_it_is_not_enough(task, facts):
    c = context(facts)
    task(c)
    assert len(c.recorder.changes) == 1


@pytest.mark.parametrize("task", [service.start, service.stop, service.restart])
def test_a_host_without_a_server_says_what_to_type(task):
    with pytest.raises(Exit, match=r"no server on ec2 yet.*install configure deploy"):
        task(context(blank()))


def test_an_environment_has_a_unit_of_its_own():
    settings = Settings(bucket="my-bucket", environment="staging")
    c = context(deployed(settings), settings)
    service.restart(c)
    assert "unit=mlflow-server-staging\n" in steps(c)


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (blank(), "not deployed"),
        (units(), "running"),
        (units(nginx="failed"), "running, but nginx is down (./fab start)"),
        (units(socket="inactive"), "running without its socket"),
        (units("inactive", "active"), "stopped, but the next request starts it"),
        (STOPPED, "stopped (./fab start)"),
        (units("failed", "failed"), "stopped (./fab start)"),
    ],
)
def test_every_state_has_words_that_say_what_comes_next(facts, wanted):
    assert service_changes.state(SETTINGS, facts).startswith(wanted)


def test_a_crash_loop_is_counted():
    facts = replace(
        units(), units={**units().units, SERVICE: Unit(active="activating", restarts=7)}
    )
    assert (
        service_changes.state(SETTINGS, facts) == "restarting after a failure (7 times; ./fab logs)"
    )


# -- several with one database -----------------------------------------------------------------

BALANCED = Settings(bucket="my-bucket", balancer="10.0.1.10")


def words_of(c: Task) -> list[str]:
    return [line for line in steps(c).splitlines() if line and not line.startswith((" ", "#", "}"))]


@pytest.mark.parametrize("settings", [SETTINGS, BALANCED])
def test_a_server_that_others_stand_in_for_is_drained_restarted_and_brought_back(settings):
    c = context(units(), settings)
    c.handed(several=settings is SETTINGS)
    service.restart(c)
    lines = words_of(c)
    order = [lines.index(line) for line in (
        "drain", "bring_up restart", "await_usable", "come_back"
    )]  # fmt: skip
    assert order == sorted(order)


def test_a_server_alone_is_not_drained():
    c = context(units())
    service.restart(c)
    assert "drain" not in steps(c)


def test_one_that_is_stopped_lets_balancers_know_first():
    c = context(units(), BALANCED)
    service.stop(c)
    assert words_of(c)[-3:] == [
        "drain", "as_root systemctl stop mlflow-server.socket mlflow-server.service", "undrain",
    ]  # fmt: skip


def test_a_drained_server_says_so():
    facts = replace(units(), drained=True)
    assert "drained: balancers send nothing here" in service_changes.state(SETTINGS, facts)
