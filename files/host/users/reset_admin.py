"""Give an admin a new password offline, in the database of users itself; make the admin if need be.

Runs on the host in the server's own environment, whether the server runs or not. Arguments: root,
user name. Beside it lies password.json. Reports {"made": true where the user is new}.
`SqlAlchemyStore` is what the server itself uses, and internal to MLflow: tested for each release.
"""

import configparser
import json
import os
import sqlite3
import sys

root, name = sys.argv[1:3]
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "password.json")) as stream:
    password = json.load(stream)
config = configparser.ConfigParser()
config.read(os.path.join(root, ".mlflow_auth_config"))
uri = config["mlflow"]["database_uri"]
if uri.startswith("sqlite:///"):
    # MLflow never sets write-ahead logging, and has to find it when it makes the tables.
    sqlite3.connect(uri[len("sqlite:///") :], timeout=20).execute("pragma journal_mode=wal")

from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore  # noqa: E402 (takes seconds)

store = SqlAlchemyStore()
store.init_db(uri)
made = not store.has_user(name)
if made:
    store.create_user(name, password, is_admin=True)
else:
    store.update_user(name, password=password, is_admin=True)
print("@report " + json.dumps({"made": made}))
