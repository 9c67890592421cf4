"""A server's parts in the AWS account: what each is called, and how it is set up.

What is wanted and what is there are said in the same words, so that they can be compared. All parts
bear one tag: by it they are known, and nothing without it is ever changed or removed.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TAG = "remote-mlflow"  # its value is the server's unit, such as mlflow-server

PATH = "/remote-mlflow/"  # of role and instance profile, which policies can be narrowed to

LONGEST_BUCKET = 63  # Amazon S3 user guide, "General purpose bucket naming rules"


@dataclass(frozen=True)
class Names:
    """What a server's parts are called in an account and region; `own` are the operator's tags."""

    unit: str
    account: str
    region: str
    own: tuple[tuple[str, str], ...] = ()

    @property
    def role(self) -> str:
        """Name role and instance profile, which are of no region; 64 characters at most."""
        return f"{self.unit}-{self.region}"

    @property
    def bucket(self) -> str:
        """Name the bucket, as nobody else can: S3 keeps this form for the account in its region."""
        end = f"-{self.account}-{self.region}-an"
        return f"{self.unit[: LONGEST_BUCKET - len(end)].rstrip('-')}{end}"

    @property
    def tags(self) -> list[dict[str, str]]:
        """Return the tags of every part, as AWS takes them."""
        named = {**dict(self.own), "Name": self.unit, TAG: self.unit}
        return [{"Key": key, "Value": value} for key, value in named.items()]

    def tagging(self, *kinds: str) -> list[dict[str, Any]]:
        """Return what has EC2 tag resources of these kinds as it makes them."""
        return [{"ResourceType": kind, "Tags": self.tags} for kind in kinds]

    def bears(self) -> list[dict[str, Any]]:
        """Return the filter by which EC2 finds what is this server's."""
        return [{"Name": f"tag:{TAG}", "Values": [self.unit]}]

    def owns(self, tags: Iterable[Mapping[str, str]] | None) -> bool:
        """Tell whether something with these tags is this server's."""
        return any(one["Key"] == TAG and one["Value"] == self.unit for one in tags or ())


@dataclass(frozen=True)
class Bucket:
    """A bucket: `rules` are the lifecycle rules of ours, each as canonical JSON."""

    name: str
    versioned: bool
    encrypted: bool
    closed: bool
    tls_only: bool
    rules: frozenset[str]


@dataclass(frozen=True)
class Role:
    """A role with its own policies (name and canonical JSON), in a profile of the same name."""

    name: str
    policies: frozenset[tuple[str, str]]
    in_profile: bool


@dataclass(frozen=True, order=True)
class Rule:
    """A network that reaches a TCP port."""

    network: str
    port: int


@dataclass(frozen=True)
class Group:
    """A security group, and who reaches what through it."""

    name: str
    vpc: str
    rules: frozenset[Rule]


@dataclass(frozen=True)
class KeyPair:
    """A key pair, by its public half (kind and base64)."""

    name: str
    public: str


@dataclass(frozen=True)
class Instance:
    """An instance; `gigabytes` and `disk` (such as gp3) are its root volume's."""

    type: str
    image: str
    subnet: str
    key: str
    group: str
    profile: str
    gigabytes: int
    disk: str
    encrypted: bool
    tokens: str
    hops: int
    protected: bool


@dataclass(frozen=True)
class Address:
    """An Elastic IP address, and whether it is the instance's."""

    associated: bool


Part = Bucket | Role | Group | KeyPair | Instance | Address


def differing(wanted: Part, there: Part) -> list[str]:
    """Name the attributes in which a part is not as it is wanted; more rules than that are fine."""
    found = []
    for field in fields(wanted):
        one, other = getattr(wanted, field.name), getattr(there, field.name)
        good = one <= other if isinstance(one, frozenset) else one == other
        if not good:
            found.append(field.name)
    return found


def canonical(document: Any) -> str:
    """Spell JSON in the one way that can be compared."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Parts:
    """All parts of one server: as they are wanted, or those that are there."""

    buckets: tuple[Bucket, ...] = ()
    role: Role | None = None
    group: Group | None = None
    key: KeyPair | None = None
    instance: Instance | None = None
    address: Address | None = None
