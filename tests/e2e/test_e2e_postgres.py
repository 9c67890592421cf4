"""PostgreSQL on a real host: made, moved to, looked into, backed up, and left again."""

from __future__ import annotations

import json
import time
from datetime import datetime

import pytest
from lab import CHAIN, ROOT, SEARCH, SOCKET, UNIT, Host, Lab
from load import ROWS, Load, writers
from older import KILL, NEWER, OLDER, set_id
from waiting import until
from werkzeug.security import generate_password_hash

RUNS = 300
COUNT = ("postgres.psql", "--command", "select count(*) from runs")


def fill(host: Host) -> None:
    """Put runs into the SQLite database of a server that is stopped meanwhile, and add a user."""
    host.fab("stop")
    words = ("runuser", "-u", "ubuntu", "--", "python3", "-c", ROWS, f"{ROOT}/mlflow.db", str(RUNS))
    done = host.lab.rehearsal.run(host.alias, *words, "3", stdin="")
    assert done.returncode == 0, done.stderr
    host.fab("start")
    host.fab("users.add", "ada")


def runs(host: Host) -> int:
    (row,) = json.loads(host.fab("status", "--json").out)
    assert row["users"] == 2
    return int(row["runs"])


def findings(host: Host) -> list[str]:
    done = host.fab("doctor", "--json", code=None)
    return [finding["key"] for finding in json.loads(done.out)]


def audited(host: Host) -> None:
    """Assert that the audit looks at users where they are now."""
    asked = ("postgres.psql", "--users", "--command")
    kept = generate_password_hash("mlflow123456", "pbkdf2:sha256:1")
    columns = "(username, password_hash, is_admin)"
    host.fab(*asked, f"insert into users {columns} values ('e2e-weak', '{kept}', false)")
    rows = {row["key"]: row for row in json.loads(host.fab("audit", "--json", code=None).out)}
    assert "e2e-weak" in rows["password-weak"]["what"], rows
    assert "not looked at" not in host.fab("audit", code=None).out
    host.fab(*asked, "delete from users where username = 'e2e-weak'")


@pytest.mark.costly
def test_a_server_moves_to_postgresql_beside_it_and_back(lab: Lab) -> None:
    with lab.installed() as host:
        host.fab("configure", "deploy")
        fill(host)
        host.fab("backup")
        login = host.login()
        done = host.fab("postgres.install", timeout=600)
        assert SOCKET in done.out
        again = host.fab("postgres.install").out
        assert "make the" not in again
        assert "listen on" not in again

        host.refused("postgres.migrate", because=("names no PostgreSQL database",))
        host.variables["FABRIC_MLFLOW_BACKEND_STORE_URI"] = SOCKET
        host.refused("deploy", because=("This server's runs are in sqlite:", "postgres.migrate"))
        host.refused("postgres.migrate", because=("needs a confirmation", "--yes"))
        done = host.fab("postgres.migrate", "--yes", timeout=600)
        assert f"{RUNS} runs, 2 users" in done.out
        assert "writes waited for" in done.out

        # Nothing is left to do, users are known, and it is what people see.
        assert "nothing to change" in host.fab("postgres.migrate", "--yes").out
        again = host.fab(*CHAIN).out
        assert again.count("nothing to change") == 3, again
        assert host.status(SEARCH, login) == 200
        assert runs(host) == RUNS
        assert str(RUNS) in host.fab(*COUNT).out
        assert "ada" in host.fab("postgres.psql", "--users", "--command", "table users").out
        host.healthy()
        audited(host)

        host.refused("restore", "--yes", because=("is of SQLite databases", "on PostgreSQL"))
        assert f"{RUNS} runs, 2 users" in host.fab("backup").out
        assert findings(host) == ["backup-unscheduled", "client-variables-unset"]
        host.run("systemctl stop postgresql@15-main")
        assert "store-unreachable" in findings(host)
        host.run("systemctl start postgresql@15-main")

        host.fab("rollback", "--yes")
        del host.variables["FABRIC_MLFLOW_BACKEND_STORE_URI"]
        assert runs(host) == RUNS
        assert host.status(SEARCH, login) == 200
        host.healthy()


@pytest.mark.costly
def test_a_server_with_postgresql_on_another_host(lab: Lab) -> None:
    with lab.blank() as db, lab.installed() as web:
        done = db.fab("postgres.install", "--clients", web.address, timeout=600)
        assert "sslmode=require" in done.out
        address = f"postgresql://mlflow@{db.address}/mlflow?sslmode=require"
        # Whoever is not named is not let in, and there is no way without TLS.
        hba = db.run("cat /etc/postgresql/15/main/pg_hba.conf")
        assert f"hostssl all mlflow {web.address}/32 scram-sha-256" in hba
        listening = db.run("ss -Hltn 'sport = :5432' | awk '{print $4}'").split()
        assert set(listening) <= {"127.0.0.1:5432", "[::1]:5432", f"{db.address}:5432"}

        web.variables["FABRIC_MLFLOW_BACKEND_STORE_URI"] = address
        web.refused("configure", because=("password", "PGPASSWORD"), PGPASSWORD="wrong-word")
        lost = address.replace("/mlflow?", "/nothing?")
        web.refused("configure", because=("nothing",), FABRIC_MLFLOW_BACKEND_STORE_URI=lost)
        # The operator of the database's host has the password; they are one person here.
        kept = db.home / ".config/remote-mlflow" / f"mlflow@{db.address}--postgres.json"
        password = json.loads(kept.read_text())["password"]
        done = web.fab("install", "configure", "deploy", "verify", PGPASSWORD=password)
        assert password not in done.out + done.err
        assert password not in web.run(f"cat {ROOT}/server.env {ROOT}/.mlflow_auth_config")
        assert web.run(f"stat -c %a {ROOT}/.pgpass") == "600"
        assert password not in db.run("cat /var/log/postgresql/*.log")
        assert not web.run(f"ls {ROOT}/*.db", code=None).startswith("/")
        web.healthy()


# -- nothing is lost --------------------------------------------------------------------------


def served(host: Host) -> set[str]:
    """Return the runs in the database that the server uses."""
    return set(host.fab("postgres.psql", "--command", "select run_uuid from runs").out.split())


def as_postgres(host: Host, query: str) -> list[str]:
    """Ask PostgreSQL as its administrator."""
    return host.run(f"cd / && runuser -u postgres -- psql -qtAX -c {query!r}").split()


def made_here(host: Host) -> set[str]:
    """Return the databases that restores and upgrades made."""
    query = "select datname from pg_database where datname like $$mlflow$$ || chr(95) || $$2%$$"
    return set(as_postgres(host, query))


def named(host: Host) -> set[str]:
    """Return those of them that a state of the server names."""
    lines = host.run(
        f"cat {ROOT}/server.env {ROOT}/former/*/server.env {ROOT}/next*/server.env || :"
    )
    uris = [line.split("=", 1)[1].strip("'") for line in lines.splitlines() if "STORE_URI=" in line]
    return {uri.partition("?")[0].rpartition("/")[2] for uri in uris}


def all_there(host: Host, load: Load) -> None:
    load.goes_on()
    assert load.acknowledged() - served(host) == set()


@pytest.mark.costly
def test_postgresql_is_restored_upgraded_and_given_back_and_no_run_is_lost(lab: Lab) -> None:
    with lab.blank() as host:
        host.variables |= {"FABRIC_MLFLOW_BIND": "0.0.0.0", "FABRIC_MLFLOW_VERSION": OLDER}
        host.fab("install", "postgres.install", timeout=600)
        host.variables["FABRIC_MLFLOW_BACKEND_STORE_URI"] = SOCKET
        host.fab("configure", "deploy")
        login = host.login()
        with writers(host, login, ("client", 2), ("raw", 2)) as load:
            # Whoever may make no database is told so before anything is touched.
            as_postgres(host, "alter role mlflow nocreatedb")
            host.refused("upgrade", "--to", NEWER, because=("alter role", "Nothing was changed"))
            as_postgres(host, "alter role mlflow createdb")
            id = set_id(host.fab("backup").out)
            began = time.time()
            assert f"{id} was restored and served in" in host.fab("backup.verify").out
            assert made_here(host) == set()

            done = host.fab("upgrade", "--to", NEWER, timeout=600)
            assert "writes waited for" in done.out
            all_there(host, load)
            assert len(made_here(host)) == 2
            assert load.failures() == []
            before = load.acknowledged()

            host.fab("rollback", "--yes")
            load.goes_on()
            assert before - served(host), "the runs since the upgrade are in the other database"
            # What was put aside is not lost.
            aside = host.run(f"ls {ROOT}/former").split()[-1]
            host.fab("rollback", "--yes", "--id", aside)
            load.goes_on()
            assert before - served(host) == set()
        host.fab("rollback", "--yes", "--id", host.run(f"ls {ROOT}/former").split()[-1])

        # Cut off while the server is stopped: the same again sees it through.
        with host.start("upgrade", "--to", NEWER) as working:
            until(lambda: "stop the server" in working.so_far, "the server is stopped", 300)
            time.sleep(3)
            host.python(KILL)
            working.done()
        until(lambda: host.status(SEARCH, login) == 200, "the server serves", 120)
        host.fab("upgrade", "--to", NEWER, timeout=600)
        assert made_here(host) == made_here(host) & named(host)
        assert host.unit(UNIT, "NRestarts") == "0"

        done = host.fab("restore", "--yes", "--id", id)
        assert "restored " + id in done.out
        made = datetime.strptime(id[:16], "%Y%m%dT%H%M%SZ").timestamp()
        assert load.acknowledged(before=made) - served(host) == set()
        assert load.acknowledged() - load.acknowledged(before=began) - served(host)
        assert host.status(SEARCH, login) == 200
        assert made_here(host) == made_here(host) & named(host)
        again = host.fab("configure", "deploy", FABRIC_MLFLOW_VERSION=NEWER).out
        assert again.count("nothing to change") == 2, again
