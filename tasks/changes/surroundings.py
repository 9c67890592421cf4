"""What programs on the host run in: AWS profile, region, endpoint, and a place in the bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.shell import sh, when
from tasks.engine.templates import source

if TYPE_CHECKING:
    from tasks.engine.settings import Settings


def place(settings: Settings) -> dict[str, str]:
    """Say where the server keeps what it has in the bucket, as `Place` of talk.py reads it.

    Raises Exit where no bucket is named.
    """
    return {
        "bucket": settings.require_bucket(),
        "prefix": settings.artifact_prefix,
        "backup_prefix": settings.backup_prefix,
        "environment": settings.environment or "default",
        "region": settings.region or "",
        "endpoint": settings.endpoint_url or "",
    }


def backup_place(settings: Settings) -> dict[str, str]:
    """Say the same of the bucket that has the backups."""
    return place(settings) | {"bucket": settings.require_backup_bucket()}


def for_backups(settings: Settings) -> str:
    """Spell for a script on the host what programs of backups have: also `for_backups` before each.

    That gives them the key that vouches for backups, and the credentials of `backup_profile`.
    """
    return f"{as_the_server(settings)}\n{backup_secrets(settings)}"


def backup_secrets(settings: Settings) -> str:
    """Spell `for_backups` alone, for a script that sees to the server's surroundings itself."""
    profile = sh(settings.backup_profile or "")
    words = f"unit={settings.unit} profile_of_backups={profile}"
    return f"{words}\n{source('backup_secrets.sh').rstrip()}"


def aws_profile_script(settings: Settings) -> str:
    """Spell the AWS profile for a script on the host; a profile in no file hides the role."""
    header = sh(rf"^\[\(profile \)\?{settings.profile}\]")
    named = f"grep -qs {header} ~/.aws/credentials ~/.aws/config"
    return when(named, f"export AWS_PROFILE={sh(settings.profile)}")


def as_the_server(settings: Settings) -> str:
    """Spell for a script on the host what the server has: AWS profile, region, endpoint, and the
    file where libpq finds a password.
    """
    passwords = 'PGPASSFILE="$root/.pgpass"'
    return f"{aws_profile_script(settings)}\nset -a\n{passwords}\n{aws_variables(settings)}\nset +a"


def aws_variables(settings: Settings) -> str:
    """Spell region and endpoint for the server; nothing where AWS's own defaults are meant."""
    given = {
        "AWS_DEFAULT_REGION": settings.region,
        "MLFLOW_S3_ENDPOINT_URL": settings.endpoint_url,
    }
    lines = [f"{name}={sh(value)}" for name, value in given.items() if value]
    return "\n".join(lines) or "# region and endpoint: AWS's own"
