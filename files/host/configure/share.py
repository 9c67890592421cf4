"""Have all servers of one PostgreSQL database be one server: with the same keys, and one id.

Runs on the host in MLflow's environment, with the variables that name the databases. The first host
of a database leaves there what it has, every other one takes that over. It is kept in a schema of
its own, beside the users' table, where only the servers' role can read it and every dump carries it
along.
"""

import base64
import dataclasses
import os
import re
import secrets

import postgres
import talk
from databases import write_whole
from sqlalchemy import text

# What every server of the database can write there becomes a line that bash reads.
SHAPES = {
    "secret_key": r"[A-Za-z0-9._+/=-]{1,256}",
    "webhook_key": r"[A-Za-z0-9_-]{43}=",  # as MLflow's encryption (Fernet) takes it
    "server_id": r"[0-9a-f]{8}",
}
VARIABLES = {
    "secret_key": "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "webhook_key": "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
}
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
                "its administrator delete that row, then type ./fab configure again."
            )
    return found


def written(path):
    """Return a file's text, or none where there is no such file."""
    if not os.path.exists(path):
        return ""
    with open(path) as stream:
        return stream.read()


def of(env, name):
    """Return the key of this name in the text of a server.env, or None."""
    line = re.search(f"^{VARIABLES[name]}=(.*)$", env, re.M)
    return line[1].strip("'\"") if line else None


def with_key(env, name, key):
    """Return the text of a server.env with a key in the place of its own, or after all else."""
    line = f"{VARIABLES[name]}={key}"
    if of(env, name) is None:
        return f"{env}{line}\n"  # every line of it ends, as configure writes it
    return re.sub(f"^{VARIABLES[name]}=.*$", line, env, flags=re.M)


def main(root):
    path = os.path.join(root, "server.env")
    before = env = written(path)
    own = {
        "secret_key": of(env, "secret_key") or secrets.token_hex(32),
        "webhook_key": of(env, "webhook_key") or base64.urlsafe_b64encode(os.urandom(32)).decode(),
        "server_id": talk.server_id(root) or secrets.token_hex(4),
    }
    try:
        found = agreed(os.environ["AUTH_STORE_URI"], own)
    except postgres.Refused as error:
        name = postgres.make_url(os.environ["AUTH_STORE_URI"]).database
        talk.fail(
            f"{error}. The role must own the database of users. Have its administrator type: "
            f"ALTER DATABASE {name} OWNER TO the role; then type ./fab configure again."
        )
    for name in VARIABLES:
        if of(env, name) != found[name]:
            env = with_key(env, name, found[name])
    if env != before:
        talk.say("take over the keys of the database's other servers")
        write_whole(path, env)
    write_whole(os.path.join(root, ".server-id"), found["server_id"] + "\n")


main(talk.request(Request).root)
