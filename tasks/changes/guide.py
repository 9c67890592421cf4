"""What must hold for a server that the guide made to be taken over."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from invoke import Exit

if TYPE_CHECKING:
    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings


def refuse_unlike_guide(settings: Settings, facts: Facts) -> None:
    """Raise Exit where the guide's server could not be taken over with these settings.

    Its runs name artifacts by their path below the destination, so that another one loses them all.
    """
    guide = facts.guide
    if guide is None:
        return
    if guide.store != f"{facts.root}/mlflow.db" or guide.auth != f"{facts.root}/basic_auth.db":
        raise Exit(
            f"The guide's server in {facts.root} keeps its databases elsewhere, or runs and users "
            "not both in SQLite; such a server is not taken over. Give this one another place: "
            "`root:` and `port:` under `mlflow:` in fabric.yaml."
        )
    if facts.schema is None or not facts.has_users:
        why = facts.schema_error or facts.users_error or "not both are there yet"
        raise Exit(
            f"The databases of the guide's server in {facts.root} cannot be read ({why}). Start it "
            "once, then run the same command again."
        )
    if minor(guide.version) > minor(settings.version):
        raise Exit(
            f"The guide's server runs MLflow {guide.version}, whose databases the older "
            f"{settings.version} cannot read. Set `version: {guide.version}` under `mlflow:` in "
            "fabric.yaml, then run the same command again."
        )
    bucket, _, prefix = guide.destination.removeprefix("s3://").rstrip("/").partition("/")
    if not (guide.destination.startswith("s3://") and prefix):
        raise Exit(
            f"The guide's server keeps artifacts in {guide.destination or 'an unknown place'}; "
            "only one with a folder in an S3 bucket is taken over. Give this server another place: "
            "`root:` and `port:` under `mlflow:` in fabric.yaml."
        )
    found = {
        "bucket": (bucket, settings.bucket),
        "prefix": (prefix, settings.artifact_prefix),
        "profile": (guide.profile, settings.profile),
        "default_permission": (guide.permission, settings.default_permission),
    }
    unlike = [f"`{key}: {its}`" for key, (its, wanted) in found.items() if its != wanted]
    if unlike:
        raise Exit(
            f"The guide's server has other settings than fabric.yaml. Set {' and '.join(unlike)} "
            "under `mlflow:` there, then run the same command again."
        )


def minor(version: str) -> tuple[int, ...]:
    """Return the part of a version that schemas change with: (3, 17) of 3.17.2."""
    return tuple(int(part) for part in re.findall("[0-9]+", version)[:2])
