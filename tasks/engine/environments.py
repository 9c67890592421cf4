"""All environments of the operator's settings: which there are, and what two must not share."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.configuration import UNNAMED
from tasks.engine.records import dataclass
from tasks.engine.settings import PREFIX, Settings, environments_in, section, settle

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

# What each environment has for itself: given as a variable, it is meant for the chosen one alone.
OWN = ("environment", "port", "root", "prefix", "backend_store_uri")


def settle_all(
    file: Mapping[str, Any] | None, variables: Mapping[str, str]
) -> list[tuple[Settings, list[str]]]:
    """Settle every environment, the unnamed one first; raises Exit as `settle` does.

    A variable that is meant for one alone, such as its port, counts for the one that is chosen.
    """
    base = section((file or {}).get("mlflow"), "mlflow")
    chosen = settle(file, variables)[0].label
    return [
        settle(file, variables if name == chosen else without(OWN, variables), name)
        for name in (UNNAMED, *map(str, environments_in(base)))
    ]


def without(keys: Collection[str], variables: Mapping[str, str]) -> dict[str, str]:
    """Leave away the variables of some settings."""
    left_out = {PREFIX + key.upper() for key in keys}
    return {name: value for name, value in variables.items() if name not in left_out}


def has_default(file: Mapping[str, Any] | None) -> bool:
    """Tell whether the file names the environment that is meant where nothing is chosen.

    Then the unnamed one is meant by nobody who does not say so.
    """
    return section((file or {}).get("mlflow"), "mlflow").get("environment") not in (
        None,
        "",
        UNNAMED,
    )


@dataclass(frozen=True)
class Place:
    """An environment, the hosts that it is on, and whether only -H says which."""

    settings: Settings
    hosts: frozenset[str]
    anywhere: bool

    def shares_host(self, other: Place) -> bool:
        """Tell whether they may be on one host."""
        return bool(self.hosts & other.hosts) or (self.anywhere and other.anywhere)


def refuse_shared(
    file: Mapping[str, Any] | None,
    variables: Mapping[str, str],
    chosen: Sequence[tuple[Settings, Collection[str]]] = (),
) -> None:
    """Raise Exit where two environments would take each other's port, folder, database or files.

    `chosen` are those that tasks are going to work on, with their hosts. The unnamed one counts
    where it is chosen, or where no `environment:` takes its place.
    """
    common = without(OWN, variables)
    common.pop("FABRIC_HOSTS", None)
    places = {
        settings.label: Place(settings, frozenset(hosts), anywhere=not hosts)
        for settings, hosts in settle_all(file, common)
    }
    for settings, hosts in chosen:
        there = places[settings.label]
        places[settings.label] = Place(settings, there.hosts.union(hosts), there.anywhere)
    if has_default(file) and UNNAMED not in {settings.label for settings, _ in chosen}:
        del places[UNNAMED]
    for one, other in itertools.combinations(places.values(), 2):
        if shared := _shared(one, other):
            key, what = shared
            raise Exit(
                f"The environments {one.settings.label} and {other.settings.label} have the same "
                f"{what}. Give one of them a `{key}:` of its own under `environments:` in "
                "fabric.yaml."
            )


def _shared(one: Place, other: Place) -> tuple[str, str] | None:
    """Return the key that two environments must not have in common, and what its value means."""
    a, b = one.settings, other.settings
    hosts = sorted(one.hosts & other.hosts)
    where = f" on {', '.join(hosts)}" if hosts else ""
    same_host = one.shares_host(other)
    if same_host and a.port == b.port:
        return "port", f"port ({a.port}){where}"
    if same_host and a.root_path.rstrip("/") == b.root_path.rstrip("/"):
        return "root", f"folder ({a.root_path}){where}"
    if a.backend_store_uri and a.backend_store_uri == b.backend_store_uri:
        return "backend_store_uri", "database"
    store = (a.bucket, a.endpoint_url) == (b.bucket, b.endpoint_url)
    if store and _nest(a.artifact_prefix, b.artifact_prefix):
        return "prefix", f"files (s3://{a.bucket or '…'}/{a.artifact_prefix})"
    return None


def _nest(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
