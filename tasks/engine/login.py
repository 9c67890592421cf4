"""A login of the server and keys of AWS: what they are, and which passwords MLflow takes."""

from __future__ import annotations

import hashlib
import re

from invoke import Exit

from tasks.engine.records import dataclass
from tasks.engine.tables import counted

# What works in a login header, a shell, a file's name and MLflow's pages alike.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")

SHORTEST = 12  # characters; MLflow 3.17 refuses a shorter admin password at its first start

USERNAME, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"

KEY_ID, KEY, TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"


@dataclass(frozen=True)
class Login:
    """A user of the tracking server."""

    username: str
    password: str


@dataclass(frozen=True)
class Keys:
    """AWS keys; the token only with temporary ones."""

    key_id: str
    secret: str
    token: str | None = None

    def profile(self) -> dict[str, str]:
        """Spell them as a profile of ~/.aws/credentials."""
        values = {
            "aws_access_key_id": self.key_id,
            "aws_secret_access_key": self.secret,
        }
        return values | ({"aws_session_token": self.token} if self.token else {})

    def file(self) -> str:
        """Spell a credentials file with nothing but them."""
        lines = (f"{key} = {value}\n" for key, value in self.profile().items())
        return "[default]\n" + "".join(lines)

    @property
    def digest(self) -> str:
        """Digest the profile as files/host/engine/facts.sh does, to compare without revealing."""
        lines = "".join(f"{key}={value}\n" for key, value in sorted(self.profile().items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def long_enough(password: str, where: str) -> str:
    """Return the password if MLflow will take it; raises Exit that says what to do."""
    if reason := unfit(password):
        raise Exit(
            f"The password in {where} cannot be taken. {reason} Give {better(password)} one, or "
            "unset it to have one generated."
        )
    return password


def unfit(password: str) -> str | None:
    """Say in a sentence why MLflow would not take a password; None where it would."""
    if len(password) < SHORTEST:
        return f"Too short: {counted(len(password), 'character')}, needs {SHORTEST}."
    if password == "password1234":
        return "It is the one that every guide names."
    if not password.isprintable() or password != password.strip():
        return "It starts or ends with a blank, or holds a control character."
    return None


def better(password: str) -> str:
    """Say which one to give instead of one that is unfit."""
    return "a longer" if len(password) < SHORTEST else "another"
