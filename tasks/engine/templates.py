"""What lands on hosts: templates, rendered strictly, and the host's programs.

Only nginx's sites have conditions; every other template holds no logic.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

FILES = Path(__file__).resolve().parents[2] / "files"

# By this file Python finds the app; where it is, the whole app is, for they come at once.
APP_MARK = "remote_mlflow_app-1.dist-info/entry_points.txt"

Words = ParamSpec("Words")
Made = TypeVar("Made")


def once(make: Callable[Words, Made]) -> Callable[Words, Made]:
    """Make each value once, whichever host's thread asks first; `cache` lets all of them begin."""
    made: Any = cache(make)
    making = threading.RLock()

    @wraps(make)
    def found(*words: Words.args, **named: Words.kwargs) -> Made:
        with making:
            value: Made = made(*words, **named)
        return value

    return found


def render(name: str, **values: Any) -> str:
    """Fill in `files/<name>`; raises where a value is missing, or given and not used."""
    template, wanted = _compiled(read(name))
    if unused := values.keys() - wanted:
        raise ValueError(f"files/{name} does not use {', '.join(sorted(unused))}")
    return str(template.render(values))


def confined(root: str, home: str) -> str:
    """Spell what confines a task of a timer's: all but its folder, the network and AWS's files."""
    folders = f"BindPaths={root}\nReadWritePaths={root}"
    return render("units/confined.conf", folders=folders, home=home).rstrip("\n")


def walled(root: str, home: str, hidden: str = "/run/credentials") -> str:
    """Spell what confines the server and its stream: all but the databases is read-only to them.

    `hidden` is where secrets of other units lie that the unit must not see.
    """
    credentials = " ".join(f"-{path}" for path in hidden.split())
    folders = render("units/walled.conf", root=root, credentials=credentials).rstrip("\n")
    return render("units/confined.conf", folders=folders, home=home).rstrip("\n")


def prepare() -> None:
    """Compile what deploy renders, which takes longer than all else that deploy does here."""
    for folder in ("units", "nginx"):
        for path in sorted(Path(FILES, folder).iterdir()):
            _compiled(path.read_text())


@once
def _compiled(text: str) -> tuple[Any, set[str]]:
    """Compile a template once for all hosts; return it with the names that it uses."""
    from jinja2 import Environment, StrictUndefined, meta

    environment = Environment(
        undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )
    parsed = environment.parse(text)
    wanted = meta.find_undeclared_variables(parsed)
    return environment.from_string(parsed), wanted


@once
def read(name: str) -> str:
    """Read `files/<name>` as it is."""
    return Path(FILES, name).read_text()


@once
def programs() -> dict[str, Path]:
    """Find the programs of files/host, by their names: staged in one folder, each has its own.

    Two parts of the wall are among them: its rule of places, for what it refuses today, programs
    look for, and what has a server be one process, for one that is tried starts like one that
    serves. Raises ValueError where two topics have one of the same name.
    """
    found: dict[str, Path] = {}
    wall = Path(FILES, "app/remote_mlflow_app")
    ours = (wall / "places.py", wall / "one_process.py")
    for path in (*sorted(Path(FILES, "host").glob("*/*.*")), *ours):
        if found.setdefault(path.name, path) != path:
            raise ValueError(f"{path} and {found[path.name]} would be staged as one file")
    return found


@once
def app() -> dict[str, str]:
    """Read the app that MLflow's stands behind (files/app): text by path, such as a/b.py."""
    root = Path(FILES, "app")
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.glob("*/*"))
        if path.suffix != ".pyc" and path.is_file()
    }


def app_folder(unit: str) -> str:
    """Name the folder of that app on a unit's host; another app has another folder.

    It is root's, so that the server's own process cannot change what its next start runs.
    """
    return f"/usr/local/lib/{unit}/app-{_app_digest()}"


@once
def _app_digest() -> str:
    return hashlib.sha256(repr(sorted(app().items())).encode()).hexdigest()[:8]


@once
def source(name: str) -> str:
    """Read a program of files/host, whichever topic it is in."""
    return programs()[name].read_text()


def staged(*names: str) -> dict[str, str | bytes]:
    """Return these programs, and those that they import, as the files of a change."""
    files: dict[str, str | bytes] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in files:
            files[name] = source(name)
            waiting += _imported(name)
    return files


def requested(name: str, /, **request: Any) -> dict[str, str | bytes]:
    """Return a program of the host's, what it imports, and its request: one JSON file beside it.

    Whatever only the host knows, the script gives the program as words, such as `root="$root"`; see
    files/host/common/talk.py.
    """
    return staged(name) | {f"{name.removesuffix('.py')}.json": json.dumps(request)}


@once
def _imported(name: str) -> list[str]:
    """Name the host's programs that one of them imports, at its top or where it needs them.

    By their lines: Python 3.11's own parser fails where several threads parse at once
    (SystemError, "AST constructor recursion depth mismatch").
    """
    if not name.endswith(".py"):
        return []
    modules = re.findall(r"^ *(?:import|from) (\w+)", source(name), re.MULTILINE)
    return [f"{module}.py" for module in modules if f"{module}.py" in programs()]
