"""Have all servers of one PostgreSQL database be one server: with one secret key, and one id.

Runs on the host in MLflow's environment, with the variables that name the databases. Argument: the
server's folder. The first host of a database leaves there what it has, every other one takes that
over. It is kept in a schema of its own, beside the users' table, where only the servers' role can
read it and every dump carries it along.
"""

import os
import re
import secrets
import sys

import postgres
from databases import write_whole
from sqlalchemy import text

KEY = "MLFLOW_FLASK_SERVER_SECRET_KEY"
LOCK = 0x6D6C666C  # "mlfl"; only there so that two hosts do not make the table at once
TABLE = """
create schema if not exists remote_mlflow;
create table if not exists remote_mlflow.shared (name text primary key, value text not null)
"""
LEAVE = "insert into remote_mlflow.shared values (:name, :value) on conflict do nothing"


def agreed(uri, own):
    """Return what all servers of the database have; where there is none yet, it is our own."""
    with postgres.connected(uri) as database:
        database.execute(text("select pg_advisory_xact_lock(%d)" % LOCK))
        database.execute(text(TABLE))
        for name, value in own.items():
            database.execute(text(LEAVE), {"name": name, "value": value})
        rows = database.execute(text("select name, value from remote_mlflow.shared"))
        found = dict(rows.all())
        database.commit()
    return found


def written(path):
    """Return a file's text, or none where there is no such file."""
    if not os.path.exists(path):
        return ""
    with open(path) as stream:
        return stream.read()


def main(root):
    env, id_file = os.path.join(root, "server.env"), os.path.join(root, ".server-id")
    line = re.search("^%s=(.*)$" % KEY, written(env), re.M)
    own = {
        "secret_key": line[1].strip("'\"") if line else secrets.token_hex(32),
        "server_id": written(id_file).strip() or secrets.token_hex(4),
    }
    try:
        found = agreed(os.environ["AUTH_STORE_URI"], own)
    except postgres.Refused as error:
        print(
            "@fail %s. The role must own the database of users. Have its administrator type: ALTER "
            "DATABASE %s OWNER TO the role; then type configure again."
            % (error, postgres.make_url(os.environ["AUTH_STORE_URI"]).database)
        )
        sys.exit(1)
    if line and found["secret_key"] != own["secret_key"]:
        key = "%s=%s" % (KEY, found["secret_key"])
        write_whole(env, written(env).replace(line[0], key))
        if os.path.exists(os.path.join(root, ".well")):
            print(
                "@warn it takes over the secret key of the database's other servers: ./fab restart"
            )
    write_whole(id_file, found["server_id"] + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
