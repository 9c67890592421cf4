"""Who may log in, as a backup remembers it, and how that differs from what a stream brings.

Runs on the host, beside the programs that import it. Names are anybody's.
"""

import hashlib
import re
from contextlib import closing

import databases
import shapes

NAME = re.compile(r"[A-Za-z0-9._@+-]{1,64}")
MOST = 10  # names in one line
QUERY = "select username, is_admin, password_hash from users"


def of_sqlite(path):
    """Return {name: {"admin": whether it is one, "password": a digest of its hash}}."""
    with closing(databases.opened(path)) as database:
        return _told(database.execute(QUERY))


def oddities(path):
    """Say in lines what a database has that MLflow never makes: who may log in is not what it says.

    A view may show other users an hour later, a trigger make some.
    """
    with closing(databases.opened(path)) as database:
        made = database.execute(
            "select name from sqlite_master where coalesce(rootpage, 0) = 0 order by name"
        ).fetchall()
        twice = database.execute(
            "select username from users group by username having count(*) > 1"
        ).fetchall()
    lines = {"views or triggers, of which MLflow makes none": made, "users of one name": twice}
    return [
        f"{what}: {_names([str(name) for (name,) in names])}"
        for what, names in lines.items()
        if names
    ]


def of_postgres(uri):
    """Return the same of a database of PostgreSQL's."""
    import postgres
    from sqlalchemy import text

    with postgres.connected(uri) as connection:
        return _told(connection.execute(text(QUERY)))


def _told(rows):
    return {
        str(name): {
            "admin": bool(admin),
            "password": hashlib.sha256(str(password).encode()).hexdigest(),
        }
        for name, admin, password in rows
    }


def read(told):
    """Return what a backup remembers, by its shape; raises Odd."""
    if not isinstance(told, dict) or not all(
        isinstance(user, dict)
        and type(user.get("admin")) is bool
        and shapes.spelled(shapes.SHA256)(user.get("password"))
        for user in told.values()
    ):
        raise shapes.Odd("has a users.json that is none")
    return told


def differences(now, then, id):
    """Say in a few lines what `now` has otherwise than `then`, which the backup of this id had."""
    admins = [name for name in now if now[name]["admin"] and not then.get(name, {}).get("admin")]
    lines = {
        f"admins that are not in the backup {id}": admins,
        f"users that are not in the backup {id}": [
            name for name in now if name not in then and name not in admins
        ],
        f"another password than in the backup {id}": [
            name for name in now if name in then and now[name]["password"] != then[name]["password"]
        ],
        f"users that are only in the backup {id}": [name for name in then if name not in now],
    }
    return [f"{what}: {_names(names)}" for what, names in lines.items() if names]


def _names(names):
    shown = [name if NAME.fullmatch(name) else shapes.quoted(name) for name in sorted(names)]
    more = f" and {len(shown) - MOST} more" if len(shown) > MOST else ""
    return ", ".join(shown[:MOST]) + more
