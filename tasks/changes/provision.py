"""What a server's parts in the account should be, and what is to be done for that: pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from tasks.changes import prices
from tasks.changes.files import WORKER_MB
from tasks.changes.role import rights
from tasks.engine.account_parts import (
    Address,
    Instance,
    Parts,
    differing,
)
from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.changes.prices import Listed, Price
    from tasks.engine.account_parts import Group, Names, Part
    from tasks.engine.settings import Settings

SYSTEM_MB = 450  # what Ubuntu 24.04 with nginx and one backup takes beside the server

# Memory in MB, as EC2 describes the types; the smallest that fits is taken.
TYPES = {
    "t4g.small": 2048,
    "t4g.medium": 4096,
    "t4g.large": 8192,
    "t4g.xlarge": 16384,
    "t4g.2xlarge": 32768,
}

RELEASE = "24.04"

USER = "ubuntu"  # of Ubuntu's images

# Where Canonical says which image is the newest of a release.
IMAGE = "/aws/service/canonical/ubuntu/server/{release}/stable/current/{arch}/hvm/ebs-gp3/ami-id"

GIGABYTES = 16


def needed_mb(workers: int) -> int:
    """Return the memory that a host with so many workers needs; 0 is as many as fit."""
    return SYSTEM_MB + WORKER_MB * max(1, workers)


def type_for(workers: int) -> str:
    """Return the cheapest type that has the memory for so many workers."""
    return next(name for name, there in TYPES.items() if there >= needed_mb(workers))


def buckets(settings: Settings, names: Names) -> list[str]:
    """Name the buckets: the settings', else one of our own."""
    artifacts = settings.bucket or names.bucket
    return list(dict.fromkeys((artifacts, settings.backup_bucket or artifacts)))


def policies(settings: Settings, names: Names) -> dict[str, Any]:
    """Return the role's policies by their names, for the bucket that there will be."""
    return rights(settings.model_copy(update={"bucket": settings.bucket or names.bucket}))


def instance(names: Names, type: str, image: str, subnet: str) -> Instance:
    """Return the instance as it should be born."""
    return Instance(
        type=type,
        image=image,
        subnet=subnet,
        key=names.unit,
        group="",
        profile=names.role,
        gigabytes=GIGABYTES,
        disk="gp3",
        encrypted=True,
        tokens="required",
        hops=1,
        protected=True,
    )


def as_it_is(there: Instance, names: Names) -> Instance:
    """Return how an instance that is there should be: what cannot be changed stays."""
    profile = there.profile or names.role
    return replace(there, tokens="required", hops=1, protected=True, profile=profile)


def settled(wanted: Instance, group: str) -> Instance:
    """Return an instance with its group, whose id is known once that is made."""
    return wanted if wanted.group else replace(wanted, group=group)


def address(settings: Settings) -> Address | None:
    """Return the lasting address that a public name needs."""
    return Address(associated=True) if settings.public_name else None


# -- the plan ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One resource: made (+), changed (~) or left as it is (=), and what it costs a month."""

    sign: Literal["+", "~", "="]
    name: str
    what: str
    price: Price


SIGNS: dict[bool | None, Literal["+", "~", "="]] = {None: "+", True: "~", False: "="}


def plan(wanted: Parts, there: Parts, listed: Listed, theirs: frozenset[str]) -> list[Line]:
    """Return a line for each resource; `theirs` are buckets of the operator's own making."""
    return list(_lines(wanted, there, listed, theirs))


def changes(lines: list[Line]) -> bool:
    """Tell whether anything would be done."""
    return any(line.sign != "=" for line in lines)


def _lines(wanted: Parts, there: Parts, listed: Listed, theirs: frozenset[str]) -> Iterator[Line]:
    known = {bucket.name: bucket for bucket in there.buckets}
    for bucket in wanted.buckets:
        if bucket.name in theirs:
            yield Line("=", "bucket", f"bucket {bucket.name}, yours: used as it is", prices.USE)
        else:
            what = "versions, encryption, no public access, TLS alone, old versions for 30 days"
            yield _line(
                "bucket",
                f"bucket {bucket.name}: {what}",
                prices.USE,
                bucket,
                known.get(bucket.name),
            )
    if wanted.role:
        what = f"role {wanted.role.name} with its instance profile: what ./fab aws.policy prints"
        yield _line("role", what, prices.NOTHING, wanted.role, there.role)
    if wanted.group:
        yield _line("group", _who(wanted.group), prices.NOTHING, wanted.group, there.group)
    if wanted.key:
        what = f"key pair {wanted.key.name}: made on this machine, its public half goes to AWS"
        yield _line("key", what, prices.NOTHING, wanted.key, there.key)
    if wanted.instance:
        yield from _instance(wanted, there, listed)


def _instance(wanted: Parts, there: Parts, listed: Listed) -> Iterator[Line]:
    made = wanted.instance
    assert made
    what = f"instance {made.type}, image {made.image}, in {made.subnet}: token for metadata, " + (
        "protected from termination"
    )
    yield _line("instance", what, prices.instance(listed), made, there.instance)
    sign: Literal["+", "="] = "=" if there.instance else "+"
    closed = "encrypted" if made.encrypted else "not encrypted"
    disk = f"its disk: {made.gigabytes} GB {made.disk}, {closed}"
    yield Line(sign, "disk", disk, prices.disk(listed, made.gigabytes))
    if wanted.address:
        what = "Elastic IP address, which stays the same, for the public name"
        yield _line("address", what, prices.address(), wanted.address, there.address)
    else:
        yield Line(sign, "address", "its public address", prices.address())


def _who(group: Group) -> str:
    ssh = sorted(rule.network for rule in group.rules if rule.port == 22)
    web = sorted({str(rule.port) for rule in group.rules if rule.port != 22})
    words = f"SSH from {', '.join(ssh)}" if ssh else "no port for SSH"
    more = f"; {' and '.join(web)} from everywhere" if web else " alone" if ssh else ""
    return f"security group {group.name}: {words}{more}"


def _line(name: str, what: str, price: Price, wanted: Part, there: Part | None) -> Line:
    differs = differing(wanted, there) if there else []
    more = f" ({', '.join(differs).replace('_', ' ')})" if differs else ""
    return Line(SIGNS[bool(differs) if there else None], name, f"{what}{more}", price)
