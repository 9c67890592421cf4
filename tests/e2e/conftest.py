"""Fixtures for the promises that only a real host can keep; see lab.py."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import HOME, UNIT, Host, Lab, opened, remove
from older import Older

from tasks.rehearsal.trees import alone

HERE = Path(__file__).parent
TIMEOUT = 900  # seconds a test; the slowest needs a tenth of it where nothing hangs
# How often a costly promise is put to the test: by default, and with --full.
SAMPLE, ALL = 1, 5
ONE_SERVER = "_move_store.py"  # whose tests share a PostgreSQL
# Whose tests share the host of the former release.
OF_THE_OLDER = ("_cut_off.py", "_nothing_lost.py", "_refused_restore.py", "_upgrade.py")
# Those that keep a worker busy for minutes come first: none is left alone with one in the end.
LONGEST = (
    "_several.py", *OF_THE_OLDER, "_guide.py", "_stream.py", "_rehearse.py", "_environments.py",
    "_chain.py", "_registry.py", "_tls.py",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--picture", help="where to put the picture of the pages over HTTPS")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test beside this file, before pytest chooses by mark; costly ones are --full's.

    Of the sampled ones a third stays, unless some are asked for by name.
    """
    if not config.getoption("full"):
        left_out = {item for item in items if item.get_closest_marker("costly")}
        if not config.getoption("keyword"):
            sampled = [item for item in items if item.get_closest_marker("sampled")]
            left_out |= set(sampled) - set(sampled[config.getoption("third") :: 3])
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: turn(item.path.name))
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(TIMEOUT))


def turn(name: str) -> int:
    """Rank a file of tests: the longest first."""
    return next((n for n, end in enumerate(LONGEST) if name.endswith(end)), len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker one test at a time, or those of one class or fixture that share a host.

    Its own `--dist loadgroup` does nothing where pytest is newer than 9.1 (xdist 3.8).
    """
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False
    full = config.getoption("full")

    class ByHost(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            if nodeid.partition("::")[0].endswith(ONE_SERVER):
                return "postgresql"
            # A sample is too small for each worker to make such a host.
            if nodeid.partition("::")[0].endswith(OF_THE_OLDER) and not full:
                return "older"
            return nodeid.rpartition("::")[0] if "::Test" in nodeid else nodeid

    return ByHost(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that takes a `moment` its seeded fractions (0 to 1) of the time it concerns."""
    if "moment" in metafunc.fixturenames:
        count = ALL if metafunc.config.getoption("full") else SAMPLE
        chance = random.Random(metafunc.function.__name__)
        metafunc.parametrize("moment", [round(chance.random(), 3) for _ in range(count)])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show with a test that failed what its host's server said last."""
    report: Any = yield
    if report.when == "call" and report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            host = getattr(value, "host", value)
            if isinstance(host, Host):
                report.sections.append((f"the server on {name}", said_last(host)))
    return report  # type: ignore[return-value]


def said_last(host: Host) -> str:
    try:
        return host.run(f"journalctl --no-pager -o cat -n 60 -u {UNIT}.service", code=None)
    except Exception as error:  # noqa: BLE001 (a host that is down must not hide the failure)
        return repr(error)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[WORKERS] = []


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.config.stash[WORKERS].append(node.gateway.id)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Clean up behind workers that Ctrl-C has ended before they could."""
    if "not e2e" in config.getoption("markexpr"):
        return  # another run's hosts may be at work
    for worker in config.stash.get(WORKERS, []):
        if (HOME / worker).is_dir():
            with alone(HOME / worker):
                Lab(worker).close()
            remove(HOME / worker)


WORKERS = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Give this process its hosts, and leave nothing of them, whatever happens."""
    with opened(os.environ.get("PYTEST_XDIST_WORKER", "alone")) as lab:
        yield lab


@pytest.fixture
def host(lab: Lab) -> Host:
    """Give a converged host, with its operator; the next test gets it mended."""
    return lab.main()


@pytest.fixture(scope="module")
def no_backups(lab: Lab) -> None:
    """Have a module begin without backups, of which no other host's key is this one's."""
    lab.main().remove_backups()


@pytest.fixture
def blank(lab: Lab) -> Iterator[Host]:
    """Give a host as a cloud would ship it, for this test alone."""
    with lab.blank() as host:
        yield host


@pytest.fixture(scope="session")
def host_of_the_older_release(lab: Lab) -> Iterator[Older]:
    with lab.blank() as host:
        yield Older(host)


@pytest.fixture
def older(host_of_the_older_release: Older) -> Older:
    """Give a host that serves the former MLflow release, with a backup of it."""
    host_of_the_older_release.reset()
    return host_of_the_older_release


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Tell whether all counts of the costly promises are wanted."""
    return bool(request.config.getoption("full"))
