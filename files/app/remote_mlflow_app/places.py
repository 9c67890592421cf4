"""Which places a client may name: an experiment's location, a version's source, a trace's tags.

MLflow takes such a name and acts there later with the rights of the server, for whoever may use the
experiment, the model or the trace. So a name is MLflow's own (a run, a model), or lies where the
grants of MLflow hold, or is refused. Nothing here needs MLflow: names in, Refused out.
"""

import re
from urllib.parse import unquote_plus

OWN = "mlflow-artifacts:/"
# What every prompt has for a source: text lies in its tags, there are no files.
PROMPTS = frozenset({"prompt-template", "dummy-source"})
# The trace's tags that say where the server finds what belongs to it (MLflow 3.17, handlers.py).
TRACE_LOCATION = "mlflow.artifactLocation"
ARCHIVE_LOCATION = "mlflow.trace.archiveLocation"
SPANS_LOCATION = "mlflow.trace.spansLocation"
ARCHIVED = "ARCHIVE_REPO"
# The folders that MLflow makes below an experiment's location; a run's is named by its id.
MADE = frozenset({"artifacts", "models", "traces", "workspaces"})
RUN = re.compile(r"[0-9a-f]{32}")
# What ends a path, or is no character of one.
NO_NAME = re.compile(r"[?#%\\\x00-\x1f\x7f]")


class Refused(Exception):
    """What a client named, and what it may name instead."""


def leads_out(path):
    """Tell whether a path has a part `..`, or a character that ends it, in any encoding."""
    while (plain := unquote_plus(path)) != path:
        path = plain
    return "\0" in path or ".." in re.split(r"[/\\]", path)


def refuse_path(path):
    """Refuse the path of a file that leads out of where it begins."""
    if leads_out(path):
        raise Refused("A path has no '..' in it. Name a file by its path below the root.")


def refuse_location(location):
    """Refuse an experiment's location that is neither the default nor a folder of its own.

    A folder with a number is another experiment's, and what MLflow makes below one belongs to a run
    or a model: files there would be planted under somebody else's.
    """
    if not location:
        return
    folders = location[len(OWN) :].rstrip("/").split("/")
    if (
        not location.startswith(OWN)
        or NO_NAME.search(location)
        or any(not folder or folder.startswith(".") for folder in folders)
        or folders[0].isdigit()
        or any(folder in MADE or RUN.fullmatch(folder) for folder in folders)
    ):
        raise Refused(
            "This server keeps its artifacts in one place. Leave the location empty, or name a "
            f"folder below its root that is not yet MLflow's: {OWN}NAME, where NAME is no number "
            f"(and not {', '.join(sorted(MADE))})."
        )


def refuse_source(source, roots):
    """Refuse a version's source that lies below none of these locations of a run or a model."""
    if leads_out(source) or not any(
        source == root or source.startswith(root.rstrip("/") + "/") for root in roots if root
    ):
        raise Refused(
            "A model version comes from a run or a model that you may read. Name runs:/RUN/PATH, "
            "models:/MODEL/VERSION, or the very artifacts of the run or model that run_id or "
            "model_id says."
        )


def refuse_trace(trace, experiment, tags):
    """Refuse a trace whose name or tags lead elsewhere than to where MLflow keeps it."""
    if not re.fullmatch(r"[\w.:@=+-]*", trace) or trace in (".", ".."):
        raise Refused("A trace's id is made of letters, digits and . _ - : @ = +.")
    own = f"{OWN}{experiment}/traces/{trace}/artifacts"
    for key, value in tags:
        if (key, value) != (TRACE_LOCATION, own):
            refuse_tag(key, value)


def refuse_tag(key, value):
    """Refuse a tag that would say where a trace is kept."""
    if key in (TRACE_LOCATION, ARCHIVE_LOCATION) or (key, value) == (SPANS_LOCATION, ARCHIVED):
        raise Refused(f"MLflow itself says where a trace is kept. Leave out the tag {key}.")
