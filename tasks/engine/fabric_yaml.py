"""Reading fabric.yaml: a mistake is one line that names the file and the line in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.configuration import closest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# What fabric.yaml holds of ours at its top; beside it there may be what Fabric and Invoke know.
TOP = ("mlflow", "hosts")

SYSTEMS = Path("/etc")  # where Fabric looks for what holds for every project


def load_yaml(path: str) -> dict[str, Any]:
    """Read a configuration file; raises Exit that names file and line of a mistake."""
    import yaml

    try:
        with open(path) as stream:
            loader = yaml.SafeLoader(stream)
            node = loader.get_single_node()
            _refuse_twice(path, node)
            if Path(path).name == "fabric.yaml" and Path(path).parent != SYSTEMS:
                _refuse_misplaced(path, node)
            data = loader.construct_document(node) if node else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise Exit(f"{path}{line} is not YAML: {reason}. Fix that line.") from None
    if not isinstance(data, dict | None):
        raise Exit(f"{path} holds no `key: value` lines at its top. Start from the one in git.")
    return data or {}


def _refuse_twice(path: str, node: Any) -> None:
    """Raise Exit where a key stands twice at one place: YAML would take the last, silently."""
    for pairs in _mappings(node):
        seen: dict[str, int] = {}
        for key, _ in pairs:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise Exit(
                    f"{path} has `{key.value}:` twice, in lines {seen[key.value]} and {line}. "
                    "Delete one of them."
                )
            seen[key.value] = line


def _mappings(node: Any) -> Iterator[list[Any]]:
    """Yield the keys and values of every mapping in a YAML node."""
    kind = getattr(node, "id", None)
    if kind == "mapping":
        yield [pair for pair in node.value if pair[0].id == "scalar" and pair[0].value != "<<"]
        for _, value in node.value:
            yield from _mappings(value)
    elif kind == "sequence":
        for item in node.value:
            yield from _mappings(item)


def _refuse_misplaced(path: str, node: Any) -> None:
    """Raise Exit where a key at the top is a setting, or nearly one of ours."""
    for key, _ in next(_mappings(node), []) if getattr(node, "id", None) == "mapping" else []:
        where = f"{path}, line {key.start_mark.line + 1}: "
        if key.value in TOP:
            continue
        if near := closest(str(key.value), TOP, 0.7):
            raise Exit(f"{where}unknown key `{key.value}:`. Write `{near}:`")
        if _is_setting(str(key.value)):
            raise Exit(
                f"{where}`{key.value}:` is a setting. Put it below `mlflow:`, indented by two "
                "blanks."
            )


def _is_setting(key: str) -> bool:
    from tasks.engine.settings import Settings

    return key in Settings.model_fields or key == "environments"
