"""Read and change the model registry: what the `registry.*` tasks ask of the tracking server.

Runs on the host. Reports one JSON value; times are UTC.
"""

import dataclasses
import datetime
import difflib

import talk
from talk import fail
from tracking import Refused, Tracking

API = "/api/2.0/mlflow"
PAGE = 1000  # the most models that MLflow 3.17 gives at once; as many versions are plenty
NAMED = 20  # versions in a message; the newest
COPY = "copied_from.id"  # the tag that tells a version's copy; see tasks/registry.py


@dataclasses.dataclass(frozen=True)
class Request:
    """One of ACTIONS, of the server at this port, as the user with this login."""

    port: int
    login: dict
    action: str
    model: str = ""
    version: str = ""
    alias: str = ""
    wanted: list = ()  # aliases that the version shall have
    unwanted: list = ()  # and those that it shall not
    identity: str = ""  # of a copy
    entry: dict = None  # {"model": ..., "version": ...}: what is registered


asked = talk.request(Request)
server = Tracking(asked.port, asked.login)


def get(path, **query):
    return server.call("GET", API + path, query)


def pages(path, key, **query):
    """Return the entries of all pages."""
    found, token = [], ""
    while True:
        page = get(path, max_results=PAGE, page_token=token, **query)
        found += page.get(key, [])
        token = page.get("next_page_token")
        if not token:
            return found


def missing(refused):
    return refused.code == "RESOURCE_DOES_NOT_EXIST"


def model_of(name):
    """Return a model; ends with the nearest name where there is none."""
    try:
        return get("/registered-models/get", name=name)["registered_model"]
    except Refused as no:
        if not missing(no):
            raise
    names = [model["name"] for model in pages("/registered-models/search", "registered_models")]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    fail(f"There is no model '{name}'{hint}. Type ./fab registry.list to see those there are.")


def versions_of(name):
    """Return all versions of a model, the newest first."""
    quote = '"' if "'" in name else "'"
    condition = "name = " + quote + name + quote
    found = pages("/model-versions/search", "model_versions", filter=condition)
    return sorted(found, key=number, reverse=True)


def number(version):
    return int(version["version"])


def version_of(name, version):
    """Return one version; ends with the versions there are where it is none of them."""
    model_of(name)
    try:
        return get("/model-versions/get", name=name, version=version)["model_version"]
    except Refused as no:
        if not missing(no) and no.code != "INVALID_PARAMETER_VALUE":
            raise
    there = [entry["version"] for entry in versions_of(name)]
    if not there:
        fail(f"{name} has no versions yet. Register one first.")
    older = f" and {len(there) - NAMED} older ones" if len(there) > NAMED else ""
    listed = ", ".join(there[:NAMED])
    fail(f"There is no version {version} of {name}. Name one of those there are: {listed}{older}.")


def when(milliseconds):
    moment = datetime.datetime.fromtimestamp(int(milliseconds or 0) / 1000, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def aliases_of(model):
    """Return which version each alias points at."""
    return {entry["alias"]: entry["version"] for entry in model.get("aliases", [])}


def tags_of(entry):
    return {tag["key"]: tag.get("value", "") for tag in entry.get("tags", [])}


def told(model):
    """Spell a model for the operator."""
    newest = max(model.get("latest_versions", []), key=number, default=None)
    return {
        "model": model["name"],
        "latest_version": newest and newest["version"],
        "aliases": aliases_of(model),
        "created": when(model["creation_timestamp"]),
        "updated": when(model["last_updated_timestamp"]),
        "description": model.get("description", ""),
        "tags": tags_of(model),
    }


def told_version(version, aliases):
    stage = version.get("current_stage")
    return {
        "version": version["version"],
        "aliases": sorted(name for name, held in aliases.items() if held == version["version"]),
        "stage": None if stage in (None, "", "None") else stage,
        "created": when(version["creation_timestamp"]),
        "run": version.get("run_id") or None,
        "source": version.get("source", ""),
        "description": version.get("description", ""),
        "tags": tags_of(version),
    }


# -- what is asked for ---------------------------------------------------------------------------


def every_model():
    """List all models that this login may read."""
    return [told(model) for model in pages("/registered-models/search", "registered_models")]


def show(name):
    """Return one model with all its versions."""
    found = told(model_of(name))
    versions = [told_version(entry, found["aliases"]) for entry in versions_of(name)]
    return dict(found, versions=versions)


def one_version(name, version):
    """Return one model with this version alone."""
    found = version_of(name, version)
    model = told(model_of(name))
    return dict(model, versions=[told_version(found, model["aliases"])])


def point(name, version, wanted, unwanted):
    """Have aliases point at a version, and others not.

    Returns the version, and for each alias that changed what it pointed at before and does now.
    """
    version = version_of(name, version)["version"]
    before = aliases_of(model_of(name))
    changed = {}
    for alias in wanted:
        if before.get(alias) != version:
            set_alias(name, alias, version)
            changed[alias] = [before.get(alias), version]
    for alias in unwanted:
        if before.get(alias) == version:
            take_alias(name, alias)
            changed[alias] = [version, None]
    return {"version": version, "changed": changed}


def demote(name, alias):
    """Take an alias away from whatever version has it."""
    version = aliases_of(model_of(name)).get(alias)
    if version is None:
        return {"version": None, "changed": {}}
    take_alias(name, alias)
    return {"version": version, "changed": {alias: [version, None]}}


def set_alias(name, alias, version):
    body = {"name": name, "alias": alias, "version": version}
    try:
        server.call("POST", API + "/registered-models/alias", body=body)
    except Refused as no:
        if no.code != "INVALID_PARAMETER_VALUE":
            raise
        fail(
            f"MLflow does not take '{alias}' as an alias: {no.message} "
            "Give another one, such as champion."
        )


def take_alias(name, alias):
    body = {"name": name, "alias": alias}
    server.call("DELETE", API + "/registered-models/alias", body=body)


def copy_of(name, identity):
    """Return the version of this model that is a copy with this identity, or None."""
    copies = [entry for entry in versions_of(name) if tags_of(entry).get(COPY) == identity]
    return copies[0]["version"] if copies else None


def register(wanted):
    """Make a version as it is described, unless it is there; its files are."""
    name, tags = wanted["model"]["name"], wanted["version"]["tags"]
    already = copy_of(name, tags[COPY])
    if already:
        return already
    try:
        create("/registered-models/create", wanted["model"])
    except Refused as no:
        if no.code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = create("/model-versions/create", dict(wanted["version"], name=name))
    return made["model_version"]["version"]


def create(path, entry):
    tags = [{"key": key, "value": value} for key, value in sorted(entry["tags"].items())]
    return server.call("POST", API + path, body=dict(entry, tags=tags))


ACTIONS = {
    "list": every_model,
    "show": lambda: show(asked.model),
    "version": lambda: one_version(asked.model, asked.version),
    "point": lambda: point(asked.model, asked.version, asked.wanted, asked.unwanted),
    "demote": lambda: demote(asked.model, asked.alias),
    "copy-of": lambda: copy_of(asked.model, asked.identity),
    "register": lambda: register(asked.entry),
}


try:
    talk.report(ACTIONS[asked.action]())
except Refused as no:
    if no.status != 403:
        fail(f"The server refuses that ({no}). See its side: ./fab logs")
    fail(
        f"The server does not let {asked.login['username']} do that ({no.message}). Use an admin's "
        "login, or have one grant MANAGE on the model; docs/registry.md says how."
    )
