"""Print what PostgreSQL holds, as facts.sh does, which runs this in the server's environment."""

import os
import re
import sys

QUESTIONS = {
    "MLFLOW_BACKEND_STORE_URI": {
        "schema": "select version_num from alembic_version",
        "runs": "select count(*) from runs where lifecycle_stage = 'active'",
        "experiments": "select count(*) from experiments where lifecycle_stage = 'active'",
        "database_bytes": "select pg_database_size(current_database())",
    },
    "AUTH_STORE_URI": {"users": "select count(*) from users"},
}


def read_variables(root):
    # Data: nothing of it is run.
    with open(os.path.join(root, "server.env")) as stream:
        for name, _, value in re.findall(r"""^(\w+)=(['"]?)(.*)\2\s*$""", stream.read(), re.M):
            os.environ[name] = value


def as_shared(base, root):
    # What share.py keeps there never leaves the host.
    cursor = base.cursor()
    cursor.execute("select to_regclass('remote_mlflow.shared') is not null")
    if not cursor.fetchone()[0]:
        return False
    cursor.execute("select name, value from remote_mlflow.shared")
    return dict(cursor.fetchall()) == {
        "secret_key": os.environ.get("MLFLOW_FLASK_SERVER_SECRET_KEY"),
        "webhook_key": os.environ.get("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"),
        "server_id": server_id(root),
    }


def server_id(root):
    path = os.path.join(root, ".server-id")
    if not os.path.exists(path):
        return None
    with open(path) as stream:
        return stream.read().strip()


def ask(base, variable, root):
    base.set_session(readonly=True, autocommit=True)
    if variable == "AUTH_STORE_URI" and as_shared(base, root):
        print("shared\tyes")
    for key, question in QUESTIONS[variable].items():
        cursor = base.cursor()
        cursor.execute(question)
        print(f"{key}\t{line(cursor.fetchone()[0])}")


def line(value):
    # What a database says is one value, whatever it is.
    return re.sub(r"[^ -~]", " ", str(value))[:300]


def reason(error, root):
    text = str(error).strip().split("\n")[0]
    # files/host/common/postgres.py closes what an upgrade or restore through another host replaced.
    if "too many connections for database" in text:
        cut_off = os.path.exists(os.path.join(root, ".closed"))
        return "closed by a task that was cut off" if cut_off else "closed"
    return text


def main(root):
    read_variables(root)
    try:
        import psycopg2
    except ImportError as error:
        print(f"schema_error\t{error}")
        return
    for variable, questions in QUESTIONS.items():
        uri = os.environ.get(variable)
        if not uri:
            continue
        base = None
        try:
            # libpq reads such an address itself, options and all, but knows no driver's name.
            base = psycopg2.connect(uri.replace("+psycopg2", "", 1), connect_timeout=3)
            ask(base, variable, root)
        except psycopg2.errors.UndefinedTable:
            pass
        except psycopg2.Error as error:
            print(f"{next(iter(questions))}_error\t{line(reason(error, root))}")
        finally:
            if base:
                base.close()


main(*sys.argv[1:])
