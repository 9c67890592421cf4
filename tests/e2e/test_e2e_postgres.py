"""PostgreSQL on a real host: made, moved to, looked into, backed up, and left again."""

from __future__ import annotations

import json

import pytest
from lab import CHAIN, ROOT, SEARCH, Host, Lab
from load import ROWS

RUNS = 300
SOCKET = "postgresql+psycopg2://mlflow@/mlflow?host=/var/run/postgresql"
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


@pytest.mark.costly
def test_a_server_moves_to_postgresql_beside_it_and_back(lab: Lab) -> None:
    with lab.installed() as host:
        host.fab("configure", "deploy")
        fill(host)
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

        assert f"{RUNS} runs, 2 users" in host.fab("backup").out
        for task in (("restore",), ("backup.verify",), ("upgrade", "--to", "3.16.0")):
            host.refused(*task, because=("PostgreSQL",))
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
