"""Keys and profile for AWS on a host, and the proof that the bucket can be used."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.releases import python_of
from tasks.changes.surroundings import aws_profile_script, backup_place, for_backups, place
from tasks.engine import login
from tasks.engine.change import Change
from tasks.engine.templates import requested

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.engine.facts import Facts
    from tasks.engine.login import Keys, Login
    from tasks.engine.settings import Settings


def aws_changes(
    settings: Settings, facts: Facts, keys: Keys | None, _: Login | None = None
) -> list[Change]:
    """Decide which AWS files the host needs, and whether the bucket must be proved again."""
    needed = []
    wanted = {
        key: value
        for key, value in (
            ("region", settings.region),
            ("endpoint_url", settings.endpoint_url),
        )
        if value
    }
    new_keys = keys is not None and keys.digest != facts.credentials
    new_config = not wanted.items() <= facts.aws_config.items()
    if keys is None and facts.credentials and len(facts.credential_keys) < 2:
        raise Exit(
            f"Partial AWS credentials: profile {settings.profile} in ~/.aws/credentials on the "
            f"host lacks one of its two keys. Set {login.KEY_ID} and {login.KEY} and "
            "type ./fab configure again."
        )
    if new_keys or new_config:
        script = f'python3 "$here/write_aws.py"\n{UNPROVE}'
        files = requested(
            "write_aws.py", profile=settings.profile,
            credentials=keys.profile() if keys and new_keys else {},
            config=wanted if new_config else {},
        )  # fmt: skip
        names = " and ".join(
            name for name, new in (("credentials", new_keys), ("config", new_config)) if new
        )
        needed.append(Change(f"write ~/.aws {names} (profile {settings.profile})", script, files))
    if facts.credentials and facts.credentials_mode != "600" and not new_keys:
        needed.append(Change("close ~/.aws/credentials to others", "chmod 0600 ~/.aws/credentials"))
    stamp = proof(settings, keys.digest if keys else facts.credentials)
    if needed or facts.proved != stamp:
        needed.append(proving(settings, stamp, python_of(settings, facts)))
    return needed


def backup_changes(settings: Settings, facts: Facts, keys: Keys | None) -> list[Change]:
    """Decide what backups with a bucket or keys of their own need: these keys, and a proof.

    `keys` are those of `backup_profile`; None leaves the host those that it has. Raises Exit where
    neither side has any.
    """
    if not settings.has_own_backups:
        return []
    profile, needed = settings.backup_profile, []
    digest = facts.backup_aws if profile else facts.credentials
    if profile and keys is None and facts.backup_aws is None:
        raise Exit(
            f"`backup_profile: {profile}` stands neither in your ~/.aws/credentials nor on the "
            f"host. Put [{profile}] with aws_access_key_id and aws_secret_access_key there, then "
            "type ./fab configure again."
        )
    if profile and keys is not None:
        digest = hashlib.sha256(keys.file().replace("\n", "").encode()).hexdigest()[:8]
        if digest != facts.backup_aws:
            script = f"unit={settings.unit}\n{PUT}"
            what = f"write the backups' own AWS keys (profile {profile})"
            needed.append(Change(what, script, {"backup_keys": keys.file()}))
    place = backup_place(settings) | {"prefix": f"{settings.backup_prefix}/{settings.label}"}
    parts = (place["bucket"], place["prefix"], settings.region, settings.endpoint_url, digest)
    stamp = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    if needed or facts.proved_backups != stamp:
        needed.append(proving_backups(settings, place, stamp, python_of(settings, facts)))
    return needed


PUT = """rm -f "$root/.proved_backups"
as_root install -d -m 0700 "/etc/$unit" "/etc/$unit/backup-aws"
place_as_root "$here/backup_keys" "/etc/$unit/backup-aws/credentials" 0600
"""


def proving_backups(
    settings: Settings, place: Mapping[str, str], stamp: str, python: str
) -> Change:
    """Prove from the host, with the backups' own keys, that they can be written and read there."""
    script = (
        f"{for_backups(settings)}\n"
        f'for_backups {python} "$here/prove_backups.py"\n'
        f'echo {stamp} > "$root/.proved_backups"'
    )
    files = requested("prove_backups.py", place=dict(place))
    return Change(f"prove access to s3://{place['bucket']}/{place['prefix']}/", script, files)


UNPROVE = 'rm -f "$root/.proved"'


def proving(settings: Settings, stamp: str, python: str = '"$root/venv/bin/python"') -> Change:
    """Prove from the host that the bucket can be listed, written, read and deleted from."""
    script = (
        f"{aws_profile_script(settings)}\n"
        f'{python} "$here/prove_bucket.py"\n'
        f'echo {stamp} > "$root/.proved"'
    )
    return Change(
        f"prove access to s3://{settings.require_bucket()}/{settings.artifact_prefix}/",
        script,
        requested("prove_bucket.py", place=place(settings)),
    )


def proof(settings: Settings, keys_digest: str | None) -> str:
    """Digest what the proof of the bucket covers: it holds until one of these changes."""
    parts = (
        settings.bucket, settings.artifact_prefix, settings.region, settings.endpoint_url,
        settings.profile, keys_digest,
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
