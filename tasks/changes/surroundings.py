"""surroundings: see the move list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.shell import sh, when

if TYPE_CHECKING:
    from tasks.engine.settings import Settings


def environment(settings: Settings) -> str:
    """Spell the AWS profile for a script on the host; a profile in no file hides the role."""
    header = sh(rf"^\[\(profile \)\?{settings.profile}\]")
    named = f"grep -qs {header} ~/.aws/credentials ~/.aws/config"
    return when(named, f"export AWS_PROFILE={sh(settings.profile)}")


def as_the_server(settings: Settings) -> str:
    """Spell for a script on the host what the server has: AWS profile, region, endpoint, and the
    file where libpq finds a password.
    """
    passwords = 'PGPASSFILE="$root/.pgpass"'
    return f"{environment(settings)}\nset -a\n{passwords}\n{aws_variables(settings)}\nset +a"


def aws_variables(settings: Settings) -> str:
    """Spell region and endpoint for the server; nothing where AWS's own defaults are meant."""
    given = {
        "AWS_DEFAULT_REGION": settings.region,
        "MLFLOW_S3_ENDPOINT_URL": settings.endpoint_url,
    }
    lines = [f"{name}={sh(value)}" for name, value in given.items() if value]
    return "\n".join(lines) or "# region and endpoint: AWS's own"
