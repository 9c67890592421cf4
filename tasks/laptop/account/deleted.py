"""What a versioned bucket keeps of deleted objects, and how they come back.

S3 puts a delete marker on top of an object's versions; without the marker the newest version is
the object again. Only markers are ever removed here.
"""

from __future__ import annotations

import itertools
from dataclasses import field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tasks.laptop.account.session import Account

AT_ONCE = 1000  # markers in one request; S3 API, DeleteObjects

SHOWN = 20  # names; a filter shows others

# What a proof of the bucket leaves behind at each `configure`: files/host/configure/prove_bucket.py
PROOF = ".remote-mlflow-proof-"


@dataclass(frozen=True)
class Place:
    """Where to look in a bucket, and where not."""

    bucket: str
    prefix: str
    without: str = ""

    def holds(self, key: str) -> bool:
        """Tell whether it is the place of a key that somebody may miss."""
        return not (self.without and key.startswith(self.without)) and PROOF not in key


@dataclass(frozen=True)
class Key:
    """What the bucket keeps of a key: the markers on top, and of what they hide.

    `deleted` is when, in seconds; None where it is there. `size` is None where no version is left.
    """

    name: str
    markers: tuple[str, ...]
    deleted: float | None
    size: int | None
    versions: int


def keys(account: Account, place: Place) -> Iterator[Key]:
    """Read key by key what the bucket keeps of a place, of which one page at a time is in memory.

    Raises botocore's exceptions.
    """
    pages = account.client("s3").get_paginator("list_object_versions")
    entries = itertools.chain.from_iterable(
        map(in_order, pages.paginate(Bucket=place.bucket, Prefix=place.prefix))
    )
    for name, kept in itertools.groupby(entries, key=lambda entry: str(entry["Key"])):
        if place.holds(name):
            yield read(name, kept)


def in_order(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Put versions and markers together again, as S3 lists them: by key, the latest first."""
    entries = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
    return sorted(
        entries,
        key=lambda one: (one["Key"], not one["IsLatest"], -one["LastModified"].timestamp()),
    )


def read(name: str, kept: Iterable[Mapping[str, Any]]) -> Key:
    """Return a key, of whose versions and markers the latest comes first.

    Of markers in the same second as the newest version nobody knows whether they hide it: one that
    does not is of no use to anybody.
    """
    markers: list[str] = []
    newest: Mapping[str, Any] | None = None
    deleted, versions = None, 0
    for entry in kept:
        if "Size" in entry:
            versions += 1
            newest = newest or entry
        elif newest is None or entry["LastModified"] >= newest["LastModified"]:
            markers.append(entry["VersionId"])
        if entry["IsLatest"] and "Size" not in entry:
            deleted = entry["LastModified"].timestamp()
    size = int(newest["Size"]) if newest else None
    return Key(name, tuple(markers), deleted, size, versions)


@dataclass(frozen=True)
class Wanted:
    """Which deleted keys are to come back: those of a pattern, deleted between two moments."""

    since: float
    until: float = float("inf")
    pattern: str = "*"

    def __contains__(self, key: Key) -> bool:
        when = key.deleted
        return when is not None and self.since <= when <= self.until and self.named(key)

    def named(self, key: Key) -> bool:
        """Tell whether its name is one of those."""
        return fnmatchcase(key.name, self.pattern)


@dataclass
class Tally:
    """How much was found, and the first names."""

    count: int = 0
    bytes: int = 0
    last: float = 0.0
    gone: int = 0
    overwritten: int = 0
    first: list[Key] = field(default_factory=list)

    def add(self, key: Key, wanted: Wanted) -> None:
        """Count a key, whatever became of it."""
        if key in wanted and key.size is None:
            self.gone += 1
        elif key in wanted and key.size is not None and key.deleted is not None:
            self.count += 1
            self.bytes += key.size
            self.last = max(self.last, key.deleted)
            if len(self.first) < SHOWN:
                self.first.append(key)
        elif key.deleted is None and key.versions > 1 and wanted.named(key):
            self.overwritten += 1


def tallied(account: Account, places: Iterable[Place], wanted: Wanted) -> Tally:
    """Count what could come back; raises botocore's exceptions."""
    found = Tally()
    for place in places:
        for key in keys(account, place):
            found.add(key, wanted)
    return found


def brought_back(account: Account, place: Place, wanted: Wanted) -> Iterator[int]:
    """Remove the markers, and say after each request how many keys came back by it.

    Raises botocore's exceptions, for a key that S3 refuses as well.
    """
    from botocore.exceptions import ClientError

    found = (key for key in keys(account, place) if key in wanted and key.size is not None)
    for several in _batches(found):
        markers = [
            {"Key": key.name, "VersionId": marker} for key in several for marker in key.markers
        ]
        for start in range(0, len(markers), AT_ONCE):
            answer = account.client("s3").delete_objects(
                Bucket=place.bucket,
                Delete={"Objects": markers[start : start + AT_ONCE], "Quiet": True},
            )
            for error in answer.get("Errors", []):
                raise ClientError({"Error": error}, "DeleteObjects")
        yield len(several)


def _batches(found: Iterator[Key]) -> Iterator[list[Key]]:
    """Yield keys in lists, each with as many as one request takes markers of."""
    while several := list(itertools.islice(found, AT_ONCE)):
        yield several
