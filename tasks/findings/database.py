"""What can be wrong with the databases, and with the users in one of them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tasks.changes.releases import version_of
from tasks.engine import stores
from tasks.engine.tables import counted
from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from tasks.findings.case import Case, Finding


def database(case: Case) -> Iterator[Finding]:
    if not case.sqlite:
        yield from _elsewhere(case)
        return
    found = case.symptoms.databases
    all_seen = "databases" in case.symptoms.looked
    if all_seen and "basic_auth.db" not in found and not case.facts.bootstrap:
        yield case.finding(
            "auth-missing",
            "The database of users is gone: at its next start the server knows nobody.",
            f"there is no {case.facts.root}/basic_auth.db",
            Remedy(
                "Without a backup make a first user again: ./fab users.reset-admin --yes",
                type=(case.fab("restore"),),
            ),
        )
    if all_seen and "mlflow.db" not in found and case.facts.well:
        yield case.finding(
            "tracking-missing",
            "The tracking database is gone.",
            f"there is no {case.facts.root}/mlflow.db",
            Remedy(type=(case.fab("restore"),)),
        )
    for name, base in found.items():
        yield from _one_database(case, name, base)
    yield from _direct(case)


def _elsewhere(case: Case) -> Iterator[Finding]:
    """Look at databases that are not files of the server's: whether they answer is all."""
    error = case.facts.schema_error or case.facts.users_error
    if stores.is_closed(case.facts):
        yield case.finding(
            "store-closed",
            "The database was replaced by an upgrade, restore or rollback through another host: "
            "nothing works here.",
            f"{case.facts.store} lets nobody in",
            Remedy(
                "Have this host follow: ./fab -H HOSTS upgrade, with all hosts of the database, "
                "that one first."
            ),
        )
    elif error:
        yield case.finding(
            "store-unreachable",
            "The database does not answer: every request fails or waits.",
            f"{case.facts.store}: {error}",
            Remedy(
                "Start PostgreSQL, or fix the way to it. Another password goes into PGPASSWORD, "
                "and to the host by:",
                type=(case.fab("configure"),),
            ),
        )


def _one_database(case: Case, name: str, base: Mapping[str, Any]) -> Iterator[Finding]:
    if base["strangers"]:
        files = shlex.join(base["strangers"])
        owners = " and ".join(sorted(set(base["strangers"].values())))
        yield case.finding(
            "database-owner",
            f"{name} belongs to {owners}, not to {case.facts.user}: the server cannot write it.",
            "stat: " + ", ".join(base["strangers"]),
            Remedy(script=f"sudo chown {case.facts.user}: {files}", tasks=("restart",)),
        )
        return
    for pid, program in base["writers"].items():
        if program is None or f"{case.unit}.service" == program["unit"]:
            continue
        state = "hangs" if program["state"] in "TtZD" else "runs on"
        yield case.finding(
            "database-locked",
            f"{name} is locked by {program['name']} (process {pid}), which {state}: the server "
            "cannot write.",
            "/proc/locks: it has held SQLite's write lock for a second",
            Remedy("End it if it is nobody's work.", script=f"sudo kill -9 {pid}", safe=False),
        )
    if base["damage"] not in (None, "unknown"):
        yield case.finding(
            "database-corrupt",
            f"{name} is damaged: {base['damage']}",
            "pragma quick_check",
            Remedy(
                "Stop the server so that it grows no worse, and go back to the newest backup.",
                type=(case.fab("stop"), case.fab("restore")),
            ),
        )
    revision = base["revision"]
    if revision and not revision["known"]:
        version = version_of(case.facts.release)
        yield case.finding(
            "schema-newer",
            f"{name} was migrated by a newer MLflow than {version}, which cannot read it.",
            f"its revision {revision['found']} is none of those that {version} knows",
            Remedy(
                "If that MLflow is wanted: ./fab upgrade --to VERSION. Else go back to a backup.",
                type=(case.fab("restore"),),
            ),
        )
    elif revision and not revision["newest"]:
        yield case.finding(
            "schema-older",
            f"{name} is of an older MLflow; the next start migrates it.",
            f"its revision {revision['found']} is not the newest that is installed",
            Remedy("Make a backup first.", type=(case.fab("backup", "restart"),)),
            severity="note",
        )


def _direct(case: Case) -> Iterator[Finding]:
    direct = case.symptoms.direct
    if direct.get("count"):
        names = ", ".join(direct["names"])
        buckets = ", ".join(direct["places"])
        yield case.finding(
            "direct-artifacts",
            f"The artifacts of {counted(direct['count'], 'experiment')} lie at s3:// addresses "
            f"({names}): clients fetch those from S3 themselves.",
            "artifact_location in the tracking database",
            Remedy(
                f"Such a client needs AWS credentials that may read {buckets}, and boto3: "
                "export AWS_PROFILE=..., or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. New "
                "experiments go through the server."
            ),
            severity="note",
        )


def users(case: Case) -> Iterator[Finding]:
    symptoms = case.symptoms
    for name in symptoms.weak:
        mine = name == case.settings.username
        yield case.finding(
            "password-well-known",
            f"The password of the admin {name} is one that everybody knows.",
            "its hash in basic_auth.db fits a password from a guide",
            Remedy(
                "Whoever reaches the port can do everything. Change it now:",
                type=(case.fab("users.reset-admin", *(() if mine else ("--name", name)), "--yes"),),
            ),
        )
    if symptoms.admins == 0:
        yield case.finding(
            "no-admin",
            "No user is an admin.",
            "is_admin in basic_auth.db",
            Remedy(type=(case.fab("users.reset-admin", "--yes"),)),
        )
