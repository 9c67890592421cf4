"""Have all servers of one PostgreSQL database be one server: with one secret key, and one id.

Runs on the host in MLflow's environment, with the variables that name the databases. The first host
of a database leaves there what it has, every other one takes that over. It is kept in a schema of
its own, beside the users' table, where only the servers' role can read it and every dump carries it
along.
"""

import dataclasses
import os
import re
import secrets

import postgres
import talk
from databases import write_whole
from sqlalchemy import text

# What every server of the database can write there becomes a line that bash reads.
SHAPES = {"secret_key": r"[A-Za-z0-9._+/=-]{1,256}", "server_id": r"[0-9a-f]{8}"}
KEY = "MLFLOW_FLASK_SERVER_SECRET_KEY"
LOCK = 0x6D6C666C  # "mlfl"; only there so that two hosts do not make the table at once
TABLE = """
create schema if not exists remote_mlflow;
create table if not exists remote_mlflow.shared (name text primary key, value text not null)
"""
LEAVE = "insert into remote_mlflow.shared values (:name, :value) on conflict do nothing"


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's folder."""

    root: str


def agreed(uri, own):
    """Return what all servers of the database have; where there is none yet, it is our own."""
    with postgres.connected(uri) as database:
        database.execute(text(f"select pg_advisory_xact_lock({LOCK})"))
        database.execute(text(TABLE))
        for name, value in own.items():
            database.execute(text(LEAVE), {"name": name, "value": value})
        rows = database.execute(text("select name, value from remote_mlflow.shared"))
        found = dict(rows.all())
        database.commit()
    for name, shape in SHAPES.items():
        if not re.fullmatch(shape, str(found.get(name))):
            talk.fail(
                f"The database of users holds no usable {name} (table remote_mlflow.shared). Have "
                "its administrator delete that row, then type configure again."
            )
    return found


def written(path):
    """Return a file's text, or none where there is no such file."""
    if not os.path.exists(path):
        return ""
    with open(path) as stream:
        return stream.read()


def main(root):
    env = os.path.join(root, "server.env")
    line = re.search(f"^{KEY}=(.*)$", written(env), re.M)
    own = {
        "secret_key": line[1].strip("'\"") if line else secrets.token_hex(32),
        "server_id": talk.server_id(root) or secrets.token_hex(4),
    }
    try:
        found = agreed(os.environ["AUTH_STORE_URI"], own)
    except postgres.Refused as error:
        name = postgres.make_url(os.environ["AUTH_STORE_URI"]).database
        talk.fail(
            f"{error}. The role must own the database of users. Have its administrator type: "
            f"ALTER DATABASE {name} OWNER TO the role; then type configure again."
        )
    if line and found["secret_key"] != own["secret_key"]:
        write_whole(env, written(env).replace(line[0], f"{KEY}={found['secret_key']}"))
        if os.path.exists(os.path.join(root, ".well")):
            talk.warn("it takes over the secret key of the database's other servers: ./fab restart")
    write_whole(os.path.join(root, ".server-id"), found["server_id"] + "\n")


main(talk.request(Request).root)
