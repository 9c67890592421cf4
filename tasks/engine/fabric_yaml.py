"""Reading fabric.yaml, where a mistake is one line that names its place; and writing it."""

from __future__ import annotations

import difflib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import fabrics
from tasks.engine.configuration import closest, host_names, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

# What fabric.yaml holds of ours at its top; beside it there may be what Fabric and Invoke know.
TOP = ("mlflow", "hosts")

SYSTEMS = Path("/etc")  # where Fabric looks for what holds for every project

# What Fabric takes, mostly for a login, and its kinds: no default tells them.
TEXT, SECONDS, CHOICE = (
    ((str,), "a text"),
    ((int, float), "a number above 0"),
    ((bool,), "true or false"),
)
MOST = 1e6  # seconds: eleven days, and less than .inf
CLASS: tuple[tuple[type, ...], str] = (), "nothing that a file can name"
KINDS: dict[str, Any] = {
    "tasks": {"executor_class": CLASS},
    "authentication": {"strategy_class": CLASS},
    "ssh_config_path": TEXT,
    "timeouts": {"connect": SECONDS},
    "run": {"out_stream": CLASS, "err_stream": CLASS, "in_stream": CHOICE},
    "connect_kwargs": {
        "key_filename": ((str, list), "a path, or a list of them,"),
        "password": TEXT,
        "passphrase": TEXT,
        "timeout": SECONDS,
        "banner_timeout": SECONDS,
        "auth_timeout": SECONDS,
        "channel_timeout": SECONDS,
        "allow_agent": CHOICE,
        "look_for_keys": CHOICE,
        "compress": CHOICE,
        "disabled_algorithms": ((dict,), "lines such as `keys: [ssh-rsa]`"),
    },
}


def load_yaml(path: str) -> dict[str, Any]:
    """Read a configuration file; raises Exit that names file and line of a mistake."""
    import yaml

    try:
        with open(path) as stream:
            # In C, where PyYAML was built so: our comments alone would take as long as a login.
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(stream)
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
    except UnicodeDecodeError:
        raise Exit(f"{path} is not in UTF-8. Save it in that.") from None
    except (ValueError, RecursionError):  # whose words may hold a secret
        odd = "holds a date or a number that cannot be, or refers to itself"
        raise Exit(f"{path} {odd}. Fix it.") from None
    if not isinstance(data, dict | None) or not all(isinstance(key, str) for key in data or ()):
        raise Exit(f"{path} holds no `key: value` lines at its top. Start from the one in git.")
    found = _sections(path, data or {}, fabrics.Config.global_defaults())
    options = found.get("connect_kwargs", {})
    _refuse_unknown(path, options)
    for key in [key for key, value in options.items() if value is None]:
        del options[key]
    _refuse_unfit(path, found, KINDS)
    return found


def _sections(path: str, data: dict[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file holds without Fabric's sections that are empty.

    Raises Exit where one is a value, or the other way round: Invoke would die of it. What stands
    there is not said, for it may be a secret.
    """
    found = dict(data)
    for key in [key for key in data if key in defaults]:
        value, section = data[key], isinstance(defaults[key], dict)
        if section and value is None:
            del found[key]
        elif isinstance(value, dict) != section:
            form = "`key: value` lines below it" if section else "one value"
            raise Exit(f"{path}: Fabric takes {form} for `{key}:`. Fix that line.")
        elif section:
            found[key] = _sections(path, value, defaults[key])
    return found


def _refuse_unknown(path: str, options: Mapping[str, Any]) -> None:
    """Raise Exit where connect_kwargs has a key that no login takes."""
    known = KINDS["connect_kwargs"]
    for key in options:
        if key not in known:
            raise Exit(
                f"{path}: unknown key `{key}:` in `connect_kwargs:`{nearest(str(key), known)}. "
                f"It takes {', '.join(known)}. Name, user and port go into ~/.ssh/config."
            )


def _refuse_unfit(path: str, found: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Raise Exit where a login could not take a value."""
    for key, kind in kinds.items():
        value = found.get(key)
        if isinstance(kind, dict):
            _refuse_unfit(path, value or {}, kind)
        elif value is not None and not _fits(value, kind[0]):
            raise Exit(f"{path}: Fabric takes {kind[1]} for `{key}:`. Fix that line.")


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    """Tell whether a value is of these kinds: a list is one of texts, a mapping's values are such
    lists, and true is no number.
    """
    if isinstance(value, dict):
        return dict in kinds and all(_fits(each, (list,)) for each in value.values())
    if isinstance(value, list):
        return list in kinds and all(isinstance(each, str) for each in value)
    if isinstance(value, int | float) and float in kinds:
        return not isinstance(value, bool) and 0 < value < MOST
    return isinstance(value, kinds)


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


# -- writing -----------------------------------------------------------------------------------


def filled(text: str, hosts: Sequence[str], settings: Mapping[str, str]) -> str:
    """Return fabric.yaml's text with these values; every comment and every other line stays.

    A setting takes the place of its line, commented or not. Raises Exit where the text is laid out
    in another way, so that it would say something else then.
    """
    lines = text.splitlines() or ["mlflow:"]
    lines = _with_hosts(lines, hosts)
    for key, value in settings.items():
        lines = _with_setting(lines, key, value)
    made = "\n".join(lines) + "\n"
    if not _says(made, hosts, settings):
        wanted = ", ".join(f"`{key}: {value}`" for key, value in settings.items())
        raise Exit(
            f"fabric.yaml is laid out in a way that init cannot change. Write by hand {wanted} "
            f"below `mlflow:`, and `hosts: [{', '.join(hosts)}]` at the top."
        )
    return made


def filled_below(text: str, name: str, hosts: Sequence[str], settings: Mapping[str, str]) -> str:
    """Return fabric.yaml's text with these values for one environment; every other line stays.

    Raises Exit where the text is laid out in another way, so that it would say something else then.
    """
    import yaml

    said = [f"hosts: [{', '.join(map(_scalar, hosts))}]"]
    said += [f"{key}: {_scalar(value)}" for key, value in settings.items()]
    lines = text.splitlines()
    starts = [place for place, line in enumerate(lines) if re.match(rf"    {name}:\s*(#|$)", line)]
    made = text
    if len(starts) == 1:
        start = starts[0] + 1
        end = next(
            (place for place in range(start, len(lines)) if re.match(r" {0,4}\S", lines[place])),
            len(lines),
        )
        keys = tuple(f"      {line.partition(':')[0]}:" for line in said)
        kept = [line for line in lines[start:end] if not line.startswith(keys)]
        own = [f"      {line}" for line in said]
        made = "\n".join([*lines[:start], *own, *kept, *lines[end:]]) + "\n"
    try:
        data = yaml.safe_load(made) or {}
        there = data["mlflow"]["environments"][name]
        good = there["hosts"] == list(hosts) and settings.items() <= there.items()
    except (yaml.YAMLError, KeyError, TypeError):
        good = False
    if not good:
        raise Exit(
            f"fabric.yaml is laid out in a way of its own. Write below `{name}:` there by hand "
            f"{', '.join(f'`{line}`' for line in said)}."
        )
    return made


def _with_hosts(lines: Sequence[str], hosts: Sequence[str]) -> list[str]:
    """Put the hosts where they stand, else where their comment does, else first."""
    own = [f"hosts: [{', '.join(map(_scalar, hosts))}]"]
    for mark in ("", "# "):
        for place, line in enumerate(lines):
            if line.startswith(f"{mark}hosts:"):
                end = place + 1
                while end < len(lines) and re.match(rf"{mark}\s*- ", lines[end]):
                    end += 1
                return [*lines[:place], *own, *lines[end:]]
    return [*own, *lines]


def _with_setting(lines: Sequence[str], key: str, value: str) -> list[str]:
    """Put a setting where it stands, else where its comment does, else below the bucket."""
    own = f"  {key}: {_scalar(value)}"
    for mark in ("", "# "):
        for place, line in enumerate(lines):
            if line.startswith(f"  {mark}{key}:"):
                remark = "" if mark else "".join(re.findall(r"\s+#.*$", line))
                return [*lines[:place], own + remark, *lines[place + 1 :]]
    for above in ("  bucket:", "mlflow:"):
        for place, line in enumerate(lines):
            if line.startswith(above):
                return [*lines[: place + 1], own, *lines[place + 1 :]]
    return [*lines, "mlflow:", own]


def _scalar(value: str) -> str:
    """Spell a text for YAML, quoted where it would be something else."""
    import yaml

    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9@._:/-]*", value) and ": " not in value
    if plain and yaml.safe_load(value) == value:
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _says(text: str, hosts: Sequence[str], settings: Mapping[str, str]) -> bool:
    import yaml

    try:
        data = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        return False
    below = data.get("mlflow") or {}
    return data.get("hosts") == list(hosts) and settings.items() <= below.items()


def hosts_in(text: str, environment: str | None) -> list[str]:
    """Return the hosts that an environment names itself, or those at the top without one."""
    import yaml

    data = yaml.safe_load(text) or {}
    if environment:
        there = (data.get("mlflow") or {}).get("environments") or {}
        data = there.get(environment) or {}
    hosts = data.get("hosts") or []
    return host_names(hosts) if isinstance(hosts, str) else [str(host) for host in hosts]


def holds_something(text: str) -> bool:
    """Tell whether somebody has set anything: as it is shipped, only an empty bucket stands."""
    import yaml

    data = yaml.safe_load(text) or {}
    below = data.pop("mlflow", None) or {}
    return any(data.values()) or any(value not in (None, "") for value in below.values())


def difference(former: str, text: str) -> list[str]:
    """Show what changes in fabric.yaml, as diff does."""
    lines = difflib.unified_diff(
        former.splitlines(), text.splitlines(), "fabric.yaml", "fabric.yaml, new", n=1, lineterm=""
    )
    return list(lines)


def replace(file: Path, text: str) -> None:
    """Write a file whole or not at all, where a link to it leads."""
    there = file.resolve()
    part = there.with_name(f"{there.name}.part")
    part.write_text(text)
    if there.is_file():
        shutil.copymode(there, part)
    part.replace(there)
