"""All that there is of a server in the account, by name and tag; what is foreign is refused."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.engine.account_parts import Parts
from tasks.engine.records import dataclass
from tasks.laptop.account import bucket, group, instance, key_pair, role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tasks.engine.account_parts import Names
    from tasks.laptop.account.session import Account


@dataclass(frozen=True)
class There:
    """The parts that are there, with what only AWS's own answer says of the instance.

    `theirs` are buckets of the operator's own making, which are used and never changed.
    """

    parts: Parts
    instance: Mapping[str, Any] = field(default_factory=dict)
    theirs: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        return str(self.instance.get("InstanceId", ""))


def survey(account: Account, names: Names, buckets: Iterable[str], vpc: str) -> There:
    """Look for all parts of a server; `vpc` is where its group would be made.

    Raises Exit where a name of ours is somebody else's, and botocore's exceptions.
    """
    found = instance.find(account, names) or {}
    seen, theirs = [], set()
    for name in buckets:
        there = bucket.look(account, name)
        if there and not bucket.is_ours(account, names, name):
            if name == names.bucket:
                raise Exit(bucket.UNTAGGED.format(name=name))
            theirs.add(name)
        if there:
            seen.append(there)
    there_group = group.look(account, names, found.get("VpcId") or vpc)
    parts = Parts(
        buckets=tuple(seen),
        role=role.look(account, names),
        group=there_group[1] if there_group else None,
        key=key_pair.look(account, names),
        instance=instance.part(account, found) if found else None,
        address=instance.address(account, names, found["InstanceId"]) if found else None,
    )
    return There(parts, found, frozenset(theirs))
