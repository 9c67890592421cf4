"""A host that lives on its instance's role: the role's rights, their proof, and no keys there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.changes import policy
from tasks.changes.releases import python_of
from tasks.changes.surroundings import backup_place, place
from tasks.engine.change import Change
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings

PATIENCE = 180  # seconds; the host hears of a new role after some, S3 after some more

UNPROVE = 'rm -f "$root/.proved" "$root/.proved_backups"'


def rights(settings: Settings) -> dict[str, Any]:
    """Return the policies of the host's role, by name; backups with keys of their own need none."""
    of: policy.Role = "artifacts" if settings.backup_profile else "both"
    return {"bucket": policy.document(settings, of)}


def proving_role(settings: Settings, facts: Facts, patience: int = PATIENCE) -> Change:
    """Return the step that proves from the host that its role alone can use the bucket."""
    backups = {}
    if not settings.backup_profile:
        backups = backup_place(settings) | {"prefix": f"{settings.backup_prefix}/{settings.label}"}
    files = requested("prove_role.py", place=place(settings), backups=backups, patience=patience)
    script = f'{python_of(settings, facts)} "$here/prove_role.py"'
    return Change("prove that the role can use the bucket", script, files)


def taking_keys(settings: Settings, action: str) -> Change:
    """Return the change that takes the profile's keys off the host: away, back, or forget them."""
    what = {
        "away": f"take the keys of profile {settings.profile} out of ~/.aws/credentials",
        "back": f"put the keys of profile {settings.profile} back into ~/.aws/credentials",
        "forget": "forget the keys that were taken away",
    }[action]
    files = requested("take_keys.py", profile=settings.profile, action=action)
    return Change(what, f'python3 "$here/take_keys.py"\n{UNPROVE}', files)
