"""Where a server's two databases are: SQLite files in its folder, or PostgreSQL.

A PostgreSQL password never stands in an address: it is taken out here, and lies in a file of
libpq's own that only the server's user can read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from invoke import Exit

from tasks.engine.facts import PASS_FILE
from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings


DRIVER = "postgresql+psycopg2"  # SQLAlchemy 2.1 takes plain postgresql:// for psycopg 3

PORT = 5432

# What a restore or upgrade adds to a database's name (files/host/switch/beside.py).
MADE = re.compile(r"_\d{8}t\d{6}z(\?|$)")

# What facts.sh says of a database that lets nobody in: since another host replaced it, or since
# this one was cut off doing so (its next start, or the next change, opens it again).
CLOSED, CUT_OFF = "closed", "closed by a task that was cut off"

LOOPBACK = ("", "localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Stores:
    """The addresses of both databases, without a password, and the password beside them."""

    tracking: str
    users: str
    password: str | None = None

    @property
    def postgres(self) -> bool:
        """Tell whether they are PostgreSQL's."""
        return is_postgres(self.tracking)

    @property
    def role(self) -> str:
        """Return the PostgreSQL role; empty where libpq chooses it."""
        return unquote(urlsplit(self.tracking).username or "")

    @property
    def database(self) -> str:
        """Return the name of the tracking database."""
        return urlsplit(self.tracking).path.strip("/")

    @property
    def host(self) -> str:
        """Return the PostgreSQL server's host or socket folder; empty where libpq chooses it."""
        parts = urlsplit(self.tracking)
        return parts.hostname or parse_qs(parts.query).get("host", [""])[0]

    @property
    def apart(self) -> bool:
        """Tell whether servers of several hosts can have them in common: by an address."""
        return self.postgres and self.host not in LOOPBACK and not self.host.startswith("/")

    def pass_line(self, password: str) -> str:
        r"""Spell a line of libpq's password file; `:` and `\` are escaped in it."""
        port = urlsplit(self.tracking).port or PORT
        fields = (self.host, str(port), "*", self.role, password)
        return ":".join(f.replace("\\", "\\\\").replace(":", "\\:") for f in fields) + "\n"


def is_postgres(uri: str) -> bool:
    """Tell whether an address is one of PostgreSQL's, whatever driver it names."""
    return uri.split(":", 1)[0].split("+")[0] in ("postgresql", "postgres")


def wanted(settings: Settings, facts: Facts) -> Stores:
    """Return what the settings name; SQLite in the server's folder where they name nothing."""
    uri = settings.backend_store_uri
    if uri is None or not is_postgres(uri):
        return Stores(uri or sqlite(facts, "mlflow.db"), sqlite(facts, "basic_auth.db"))
    return of(uri)


def of(uri: str) -> Stores:
    """Take a PostgreSQL address apart; the users' database is the other's name with `_auth`.

    Raises Exit where it names no database.
    """
    parts = urlsplit(uri)
    name = parts.path.strip("/")
    if not name or "/" in name:
        raise Exit(
            "Setting `mlflow: backend_store_uri:` names no database. Write "
            f"{DRIVER}://ROLE@HOST/DATABASE"
        )
    options = dict(parse_qsl(parts.query))
    hidden = options.pop("password", None)
    password = unquote(parts.password) if parts.password else hidden
    return Stores(
        _address(parts, name, options), _address(parts, f"{name}_auth", options), password
    )


def in_common(settings: Settings) -> Stores | None:
    """Return the databases that servers of several hosts can have in common, if any are named."""
    uri = settings.backend_store_uri
    named = of(uri) if uri and is_postgres(uri) else None
    return named if named and named.apart else None


def current(settings: Settings, facts: Facts) -> Stores:
    """Return what the server uses, as its server.env says, or what a new one will."""
    if facts.store is None:
        return wanted(settings, facts)
    return Stores(facts.store, facts.auth_store or sqlite(facts, "basic_auth.db"))


def lines(named: Stores, root: str) -> str:
    """Spell the lines of server.env that name the databases."""
    values = {"MLFLOW_BACKEND_STORE_URI": named.tracking}
    if named.postgres:
        values |= {"AUTH_STORE_URI": named.users, "PGPASSFILE": f"{root}/{PASS_FILE}"}
    return "".join(f"{key}='{value}'\n" for key, value in values.items())


def sqlite(facts: Facts, name: str) -> str:
    """Spell the address of a file in the server's folder."""
    return f"sqlite:///{facts.root}/{name}"


def is_closed(facts: Facts) -> bool:
    """Tell whether an upgrade, restore or rollback through another host replaced the databases."""
    return CLOSED in (facts.schema_error, facts.users_error)


def refuse_closed(facts: Facts) -> None:
    """Raise Exit where the databases were replaced through another host."""
    if is_closed(facts):
        raise Exit(
            "The database that this host uses was replaced by an upgrade, restore or rollback "
            "through another host. Type for all of them, that one first: ./fab -H HOSTS upgrade"
        )


def refuse_other_store(facts: Facts) -> None:
    """Raise Exit where the databases cannot be switched, or are not the server's any more."""
    refuse_closed(facts)
    if facts.database not in (None, "sqlite", "postgresql"):
        raise Exit(
            f"This server is on {facts.database}, and only SQLite and PostgreSQL databases can be "
            "switched to others. By hand: docs/upgrade.md, Another database."
        )
    if facts.database == "postgresql" and facts.auth_store is None:
        raise Exit(
            "This server's runs are in PostgreSQL and its users in SQLite. Name the users' "
            "database in server.env (AUTH_STORE_URI=...) once they are there: docs/postgres.md"
        )


def refuse_other(settings: Settings, facts: Facts) -> None:
    """Raise Exit where the settings name another database than the one that holds the runs."""
    refuse_closed(facts)
    if facts.store is None or settings.backend_store_uri is None:
        return
    named = wanted(settings, facts)
    if not serves(facts, named) and (named.postgres or is_postgres(facts.store)):
        raise Exit(
            f"This server's runs are in {facts.store}, and `backend_store_uri:` names "
            f"{named.tracking}. To move them there: ./fab postgres.migrate; to leave them, put "
            "the former address back into fabric.yaml."
        )


def serves(facts: Facts, named: Stores) -> bool:
    """Tell whether a server uses these databases, or such as a restore or upgrade made of them."""
    return facts.store is not None and MADE.sub(r"\1", facts.store) == named.tracking


def _address(parts: SplitResult, database: str, options: Mapping[str, str]) -> str:
    role, at, place = parts.netloc.rpartition("@")
    place = f"{role.split(':')[0]}{at}{place}"
    query = f"?{urlencode(options, safe='/')}" if options else ""
    return f"{DRIVER}://{place}/{database}{query}"
