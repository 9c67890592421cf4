"""Three servers with one database behind a balancer: one dies, others restart, nobody notices."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from lab import ROOT, SEARCH, UNIT, Done, Host, Lab, answer
from load import writers
from older import KILL, NEWER, OLDER
from sabotage import START
from waiting import until

CLIENTS = ("client", 8)  # MLflow's own, as they are out of the box
CACHE = 60  # seconds that a server remembers a good login (files/mlflow_auth_config.ini)
KEY = "MLFLOW_FLASK_SERVER_SECRET_KEY"


@dataclass
class Several:
    """The hosts, and one operator for all of them."""

    lab: Lab
    web: list[Host]
    db: Host
    lb: Host

    def fab(self, *words: str, on: list[Host] | None = None, **rest: Any) -> Done:
        """Run ./fab on several hosts at once; by default on all servers."""
        names = ",".join(host.alias for host in on or self.web)
        aim = ("-S", str(self.lab.ssh_config), "-H", names)
        return self.web[0].fab(*words, aim=aim, timeout=600, **rest)

    def through_the_balancer(self, path: str, login: tuple[str, str] | None = None) -> int:
        return answer(f"http://{self.lb.address}:5000{path}", login)

    def requests_of(self, host: Host) -> int:
        """Count what a server was asked."""
        return int(host.run(f"wc -l < /var/log/nginx/{UNIT}.access.log"))


@contextmanager
def three_servers(lab: Lab) -> Iterator[Several]:
    """Make three servers with one database on another host, and a balancer on a fifth."""
    with ExitStack() as stack:
        *web, db, lb = [stack.enter_context(lab.blank()) for _ in range(5)]
        shared = {
            "FABRIC_HOSTS": ",".join(host.alias for host in web),
            "FABRIC_MLFLOW_BIND": "0.0.0.0",
            "FABRIC_MLFLOW_BALANCER": lb.address,
            "FABRIC_MLFLOW_PREFIX": "several",
            "FABRIC_MLFLOW_VERSION": OLDER,
            "FABRIC_MLFLOW_BACKEND_STORE_URI": (
                f"postgresql://mlflow@{db.address}/mlflow?sslmode=require"
            ),
        }
        for host in (*web, db, lb):
            host.home, host.variables = web[0].home, shared
        there = Several(lab, web, db, lb)
        clients = ",".join(host.address for host in web)
        making = stack.enter_context(db.start("postgres.install", "--clients", clients))
        there.fab("install")
        assert making.done(600).code == 0, making.so_far
        there.fab("configure", "deploy")
        there.fab("balancer", on=[lb])
        yield there


@pytest.fixture(scope="class")
def several(lab: Lab) -> Iterator[Several]:
    with three_servers(lab) as there:
        yield there


class TestSeveral:
    def test_hosts_with_one_database_are_one_server(self, several: Several) -> None:
        marks = {host.run(f"grep {KEY} {ROOT}/server.env; cat {ROOT}/.server-id")
                 for host in several.web}  # fmt: skip
        assert len(marks) == 1
        assert {host.run(f"stat -c %a {ROOT}/server.env") for host in several.web} == {"600"}
        secret = marks.pop().partition("=")[2].partition("\n")[0]
        assert len(secret) == 64
        again = several.fab("install", "configure", "deploy")
        assert again.out.count("nothing to change") == 9, again
        assert secret not in again.out + again.err
        again = several.fab("balancer", on=[several.lb])
        assert "nothing to change" in again.out
        assert again.out.count(" usable") == 3, again
        # One login, known to each of them and through the balancer.
        login = several.web[2].login()
        assert [host.status(SEARCH, login) for host in several.web] == [200] * 3
        assert several.through_the_balancer(SEARCH, login) == 200
        assert several.through_the_balancer(SEARCH) == 401
        for host in several.web:
            host.healthy()

    def test_a_host_that_dies_fails_no_call_and_a_new_password_is_known_to_all(
        self, several: Several
    ) -> None:
        one, _, three = several.web
        done = several.fab("users.add", "ada")
        assert f"Done once, through {one.alias}" in done.out
        old = ("ada", password(several, "ada"))
        assert [host.status(SEARCH, old) for host in several.web] == [200] * 3
        several.fab("users.passwd", "--name", "ada", on=[one])
        changed = time.monotonic()
        new = ("ada", password(several, "ada"))
        # Where it was changed the old one is forgotten, and the new one is in the database.
        assert [host.status(SEARCH, new) for host in several.web] == [200] * 3
        assert one.status(SEARCH, old) == 401
        with writers(several.lb, one.login(), CLIENTS) as load:
            several.lab.rehearsal.kill(three.alias)
            for _ in range(3):
                load.goes_on()
            seen = several.fab("balancer", on=[several.lb])
            assert seen.out.count(" usable") == 2, seen
            assert f"{three.address}:5000" in seen.out.partition("cannot be reached")[0]
            three.boot()
            until(lambda: three.status("/usable") == 200, "the server comes back by itself", 120)
            before = several.requests_of(three)
            until(lambda: several.requests_of(three) > before + 5, "it is asked again")
            load.goes_on()
        assert load.failures() == []
        time.sleep(max(0.0, changed + CACHE + 1 - time.monotonic()))
        assert [host.status(SEARCH, old) for host in several.web] == [401] * 3

    def test_a_rolling_restart_fails_no_call(self, several: Several) -> None:
        one, two, _ = several.web
        before = [host.unit(f"{UNIT}.service", "MainPID") for host in (one, two)]
        with writers(several.lb, one.login(), CLIENTS) as load:
            done = several.fab("restart", on=[one, two])
            load.goes_on()
        assert load.failures() == []
        after = [host.unit(f"{UNIT}.service", "MainPID") for host in (one, two)]
        assert not set(before) & set(after)
        assert [host.run(f"ls /run/{UNIT}.drain", code=None) for host in (one, two)] == ["", ""]
        assert one_by_one(done, [one, two])

    @pytest.mark.costly
    def test_a_server_that_does_not_come_back_ends_a_rolling_restart(
        self, several: Several
    ) -> None:
        one, two, three = several.web
        with one.kept(f"{ROOT}/start_mlflow_server.sh"):
            one.run(
                f"sed -i '2i echo Error: broken by a test; exit 1' {ROOT}/start_mlflow_server.sh"
            )
            done = several.fab("restart", code=1)
            assert f"[{two.alias}] Not begun, and serving as before" in done.err
            assert f"[{three.alias}] Not begun, and serving as before" in done.err
            assert one.status("/usable") == 503
            assert several.through_the_balancer("/usable") == 200
        several.fab("restart", on=[one])
        assert one.status("/usable") == 200

    @pytest.mark.costly
    def test_a_deploy_that_restarts_goes_from_host_to_host_and_fails_no_call(
        self, several: Several
    ) -> None:
        one, two, _ = several.web
        with writers(several.lb, one.login(), CLIENTS) as load:
            done = several.fab("deploy", FABRIC_MLFLOW_WORKERS="2")
            load.goes_on()
            assert done.out.count("restart the server") == 3, done
            assert one_by_one(done, several.web)
            several.fab("verify")

            python = f"{ROOT}/venv/bin/python"
            with one.kept(python):
                failing = START.format(when="true")
                one.run(
                    f"mv {python} {python}.released; cat > {python}; chmod 755 {python}", failing
                )
                done = several.fab("deploy", code=1, FABRIC_MLFLOW_WORKERS="1")
            one.run(f"rm {python}.released")
            assert f"[{two.alias}] Not begun, and serving as before" in done.err
            assert "--workers 2" in one.run(f"cat {ROOT}/start_mlflow_server.sh")
            until(lambda: one.status("/usable") == 200, "the former one serves again")
            load.goes_on()
        assert load.failures() == []

    @pytest.mark.costly
    def test_an_upgrade_that_is_cut_off_leaves_all_of_them_serving(self, several: Several) -> None:
        one = several.web[0]
        # While the database is closed to all: whoever comes first opens it again.
        with one.start("upgrade", "--to", NEWER) as working:
            until(lambda: "stop the server" in working.so_far, "the server is stopped", 300)
            time.sleep(2)
            one.python(KILL)
            working.done()
        login = one.login()
        until(
            lambda: [host.status(SEARCH, login) for host in several.web] == [200] * 3,
            "all serve again", 120,
        )  # fmt: skip
        # What was killed could not say that balancers may come back to its own host.
        assert [host.status("/usable") for host in several.web] == [404, 200, 200]
        assert {version(host) for host in several.web} == {OLDER}

    def test_an_upgrade_comes_to_all_and_fails_no_call(self, several: Several) -> None:
        one = several.web[0]
        with writers(several.lb, one.login(), CLIENTS) as load:
            several.fab("upgrade", "--to", NEWER)
            load.goes_on()
            load.goes_on()
        assert load.failures() == []
        assert {version(host) for host in several.web} == {NEWER}
        assert len({store(host) for host in several.web}) == 1
        assert load.acknowledged() - runs(one) == set()
        assert several.fab("upgrade", "--to", NEWER).out.count("nothing to change") == 3

    @pytest.mark.costly
    def test_a_rollback_and_a_restore_come_to_all(self, several: Several) -> None:
        one, two, _ = several.web
        several.fab("upgrade", "--to", NEWER)
        newer = store(one)
        assert "Done once" in several.fab("backup").out
        several.fab("rollback", "--yes", on=[one])
        # What the others have is not served any more, and balancers know it.
        until(lambda: two.status("/usable") == 503, "the second host is not usable")
        assert "store-closed" in several.fab("doctor", "--json", on=[two], code=1).out
        several.fab("upgrade", on=[two], code=1)
        # To the version that the first has again: the others follow.
        several.fab("upgrade")
        assert len({store(host) for host in several.web} - {newer}) == 1
        assert {version(host) for host in several.web} == {OLDER}
        several.fab("upgrade", "--to", NEWER)
        assert [host.status("/usable") for host in several.web] == [200] * 3
        before = store(one)
        several.fab("restore", "--yes")
        assert len({store(host) for host in several.web} - {before}) == 1
        login = one.login()
        assert [host.status(SEARCH, login) for host in several.web] == [200] * 3


def one_by_one(done: Done, hosts: list[Host]) -> bool:
    """Tell whether each host was left alone until the one before was back, from what was said."""
    said = [line.partition("]")[0] for line in done.out.splitlines() if line.startswith("[")]
    return said == sorted(said, key=[f"[{host.alias}" for host in hosts].index)


def version(host: Host) -> str:
    """Return the MLflow version that serves."""
    return host.run(f"basename $(readlink {ROOT}/venv)").rpartition("-")[0]


def store(host: Host) -> str:
    """Return the database that a host uses."""
    return host.run(f"grep STORE_URI {ROOT}/server.env")


def runs(host: Host) -> set[str]:
    """Return the runs in that database."""
    return set(host.fab("postgres.psql", "--command", "select run_uuid from runs").out.split())


def password(several: Several, name: str) -> str:
    """Read what was made for a user on the operator's machine."""
    (file,) = several.web[0].home.glob(f".config/remote-mlflow/*/users/{name}.env")
    words = dict(word.partition("=")[::2] for word in shlex.split(file.read_text(), comments=True))
    return words["MLFLOW_TRACKING_PASSWORD"]
