"""What there is of a server in the account, whole or in parts: to be shown, removed, looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.engine.records import dataclass
from tasks.laptop.account import bucket, group, instance, key_pair, role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tasks.engine.account_parts import Names
    from tasks.laptop.account.session import Account


@dataclass(frozen=True)
class Remains:
    """What bears a server's tag; `theirs` are buckets of the operator's own making."""

    instances: tuple[Mapping[str, Any], ...]
    volumes: tuple[Mapping[str, Any], ...]
    addresses: tuple[Mapping[str, Any], ...]
    groups: tuple[str, ...]
    key: bool
    role: bool
    buckets: tuple[str, ...]
    theirs: tuple[str, ...]

    @property
    def anything(self) -> bool:
        """Tell whether there is anything that a destroy removes, buckets aside."""
        found = (self.instances, self.volumes, self.addresses, self.groups, self.key, self.role)
        return any(found)


def look(account: Account, names: Names, buckets: Iterable[str]) -> Remains:
    """Look for everything of a server; raises botocore's exceptions."""
    there = [name for name in buckets if exists(account, name)]
    ours = [name for name in there if bucket.is_ours(account, names, name)]
    return Remains(
        instances=tuple(instance.all_of(account, names)),
        volumes=tuple(volumes(account, names)),
        addresses=tuple(instance.addresses(account, names)),
        groups=tuple(group.tagged(account, names)),
        key=_is_ours(lambda: key_pair.look(account, names)),
        role=role.is_there(account, names),
        buckets=tuple(ours),
        theirs=tuple(name for name in there if name not in ours),
    )


def volumes(account: Account, names: Names) -> list[dict[str, Any]]:
    """Return the disks that bear this server's tag, but those that are going."""
    pages = account.client("ec2").get_paginator("describe_volumes")
    found = [one for page in pages.paginate(Filters=names.bears()) for one in page["Volumes"]]
    return [one for one in found if one["State"] not in ("deleting", "deleted")]


def exists(account: Account, name: str) -> bool:
    """Tell whether a bucket of this account's is there, in its region."""
    try:
        return bucket.exists(account, name)
    except Exit:  # another account's, or in another region: none of ours
        return False


def _is_ours(look: Callable[[], Any]) -> bool:
    try:
        return bool(look())
    except Exit:  # the name is somebody else's
        return False


def remove_volume(account: Account, id: str) -> None:
    """Remove a disk that no instance holds any more."""
    account.client("ec2").delete_volume(VolumeId=id)
