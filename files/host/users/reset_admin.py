"""Give an admin a new password offline, in the database of users itself; make the admin if need be.

Runs on the host in the server's own environment, whether the server runs or not. Reports {"made":
true where the user is new}. `SqlAlchemyStore` is what the server itself uses, and internal to
MLflow: tested for each release.
"""

import configparser
import dataclasses
import os
import sqlite3

import databases
import talk
from fenced import fenced


@dataclasses.dataclass(frozen=True)
class Request:
    """The new login of an admin of the server in this folder."""

    root: str
    name: str
    password: str


def reset(asked, uri):
    """Give the admin the password; returns whether the user is new."""
    if uri.startswith("sqlite:///"):
        # MLflow never sets write-ahead logging, and has to find it when it makes the tables.
        sqlite3.connect(uri[len("sqlite:///") :], timeout=20).execute("pragma journal_mode=wal")

    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore  # takes seconds

    store = SqlAlchemyStore()
    store.init_db(uri)
    made = not store.has_user(asked.name)
    if made:
        store.create_user(asked.name, asked.password, is_admin=True)
    else:
        store.update_user(asked.name, password=asked.password, is_admin=True)
    return made


asked = talk.request(Request)
config = configparser.ConfigParser()
config.read(os.path.join(asked.root, ".mlflow_auth_config"))
uri = config["mlflow"]["database_uri"]
beside = os.path.dirname(databases.path(asked.root, databases.AUTH))
talk.report({"made": fenced([beside], lambda: reset(asked, uri))})
