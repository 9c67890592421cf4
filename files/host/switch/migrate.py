"""Bring two databases that nobody uses to the schema of one MLflow release.

Runs in that release's environment. Reports {"migrated": [names], "seconds": n}; ends with one line
where a row that somebody made is gone afterwards.
The functions behind `mlflow db upgrade` and `mlflow.server.auth db upgrade`, without their command
line: internal to MLflow, tested for each release.
"""

import dataclasses
import os
import sqlite3
import sys
import time
from contextlib import closing

import databases
import postgres
import talk

# Migrations may rebuild any table; these hold what people made and must keep every row.
KEPT = {
    databases.TRACKING: (
        "experiments", "runs", "metrics", "latest_metrics", "params", "tags",
        "registered_models", "model_versions",
    ),
    databases.AUTH: ("users",),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Request:
    folder: str  # with mlflow.db and basic_auth.db, or a server.env that names PostgreSQL's


def migrate_tracking(uri):
    from mlflow.store.db.utils import _upgrade_db, create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(uri)
    try:
        _upgrade_db(engine)
    finally:
        engine.dispose()


def migrate_auth(uri):
    # MLflow refuses to load its login without a key; this one is for nothing else.
    os.environ.setdefault("MLFLOW_FLASK_SERVER_SECRET_KEY", "unused")
    from mlflow.server.auth.db import utils
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    try:
        utils.migrate(engine, "head")
    finally:
        engine.dispose()


def examined(folder, name, uri):
    """Check a database and say what is in it."""
    if uri.startswith("sqlite:"):
        return databases.examine(os.path.join(folder, name))
    return postgres.examine(uri, name)


def migrated(folder, name, migrate):
    """Migrate one database where it is not of the newest schema; tells whether it was not."""
    uri = databases.addresses(folder)[name]
    before = examined(folder, name, uri)
    known, newest = databases.revisions(sys.prefix, name)
    if before["revision"] == newest:
        return False
    if before["revision"] not in known:
        version = os.path.basename(sys.prefix).partition("-")[0]
        raise databases.Damaged(
            f"{name} was made by a newer MLflow than {version}; set that one's `version:` in "
            "fabric.yaml"
        )
    talk.say(f"migrate {name} to the release's schema")
    migrate(uri)
    after = examined(folder, name, uri)
    if after["revision"] != newest:
        raise databases.Damaged(f"the migration of {name} ended at {after['revision']}")
    for table in KEPT[name]:
        had, has = before["counts"].get(table, 0), after["counts"].get(table, 0)
        if has < had:
            raise databases.Damaged(f"the migration lost rows of {table}: {had}, now {has}")
    return True


def log_ahead(folder, name):
    """Have a database write ahead, which MLflow never sets by itself."""
    with closing(sqlite3.connect(os.path.join(folder, name))) as database:
        database.execute("pragma journal_mode=wal")


def main(folder):
    began = time.monotonic()
    steps = ((databases.TRACKING, migrate_tracking), (databases.AUTH, migrate_auth))
    done = [name for name, migrate in steps if migrated(folder, name, migrate)]
    for each, uri in databases.addresses(folder).items():
        if uri.startswith("sqlite:"):
            log_ahead(folder, each)
    talk.report({"migrated": done, "seconds": round(time.monotonic() - began, 1)})


try:
    main(talk.request(Request).folder)
except Exception as error:  # noqa: BLE001 (whatever a release's migration raises, nothing is switched)
    lines = (str(error).strip() or type(error).__name__).splitlines()
    talk.fail(f"The databases cannot be migrated: {lines[0].rstrip('.')}. Nothing was changed.")
