"""Experiments, versions and traces that lie where no login may put them any more."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from tasks.engine.records import dataclass
from tasks.engine.shell import sh
from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from tasks.findings.case import Case, Finding

SHOWN = 3


@dataclass(frozen=True)
class Kind:
    """How one of a kind is named, what is done about it, and how MLflow's client deletes it.

    The places in `named` and `delete` are the words that the host names it by.
    """

    nouns: str
    named: str
    words: str
    delete: str = ""


KINDS = {
    "experiments": Kind(
        "experiments",
        "{0} ({1})",
        "Copy what you want of it to another one, and delete it; as an admin:",
        "delete_experiment({0!r})",
    ),
    "deleted": Kind(
        "deleted experiments",
        "{0} ({1})",
        "Remove it for good; it takes the folders of its runs at that place along:",
    ),
    "versions": Kind(
        "model versions",
        "{0} {1}",
        "Register the model from a run, and delete this version; as an admin:",
        "delete_model_version({0!r}, {1!r})",
    ),
    "traces": Kind(
        "traces", "{1}", "Delete it; as an admin:", "delete_traces({0!r}, trace_ids=[{1!r}])"
    ),
}


def places(case: Case) -> Iterator[Finding]:
    for key, kind in KINDS.items():
        found = case.audited.places.get(key, {})
        if found.get("count"):
            yield elsewhere(case, key, kind, found)


def elsewhere(case: Case, key: str, kind: Kind, found: Mapping[str, Any]) -> Finding:
    """Return the finding of what lies elsewhere: how many, and the first of them."""
    count, first = found["count"], found["first"][:SHOWN]
    listed = "; ".join(f"{kind.named.format(*row['name'])} at {row['place']}" for row in first)
    more = f"; and {count - len(first)} more" if count > len(first) else ""
    names = [row["name"] for row in first]
    lie = "lies" if count == 1 else "lie"
    return case.finding(
        f"{key}-elsewhere",
        f"{count} of the {kind.nouns} {lie} where no login may put one: {listed}{more}. MLflow "
        "reads or writes there with the server's rights, for whoever may use it.",
        "the tracking database, by the rule of docs/walls.md",
        deleting(case, kind, names) if kind.delete else removing(case, kind, names),
    )


def deleting(case: Case, kind: Kind, names: Sequence[Sequence[str]]) -> Remedy:
    """Return what deletes them through the server."""
    scripts = (
        f"import mlflow; mlflow.MlflowClient().{kind.delete.format(*name)}" for name in names
    )
    login = f'eval "$({case.fab("client", "--export")})"'
    return Remedy(kind.words, type=(login, *(f"python3 -c {shlex.quote(s)}" for s in scripts)))


def removing(case: Case, kind: Kind, names: Sequence[Sequence[str]]) -> Remedy:
    """Return what removes deleted experiments on the host: `gc` leaves what lies elsewhere."""
    settings = case.settings
    place = (
        sh(f"AWS_DEFAULT_REGION={settings.region}") if settings.region else "",
        sh(f"MLFLOW_S3_ENDPOINT_URL={settings.endpoint_url}") if settings.endpoint_url else "",
        sh(f"AWS_PROFILE={settings.profile}") if settings.profile != "default" else "",
    )
    store = '"$MLFLOW_BACKEND_STORE_URI"'
    ids = ",".join(name[0] for name in names)
    words = (
        *filter(None, place), "venv/bin/mlflow gc --backend-store-uri", store, "--tracking-uri",
        store, sh("--experiment-ids", ids),
    )  # fmt: skip
    script = f"cd {sh(case.facts.root)} && set -a && . ./server.env && {' '.join(words)}"
    return Remedy(kind.words, script=script, safe=False)
