"""The house itself: who may import whom, what a start loads, and how much one function takes."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import fabfile
from tasks import doctor, rehearse
from tasks.engine import paths, templates
from tasks.engine.task import RemoteTask

# What each folder of tasks/ may import besides itself; the verbs are the modules beside them. That
# something is only imported for its types (TYPE_CHECKING) or inside a function makes no difference.
ARROWS = {
    "verbs": {"findings", "changes", "laptop", "engine", "rehearsal"},
    "findings": {"changes", "engine"},
    "changes": {"engine"},
    "laptop": {"engine"},
    "rehearsal": {"engine"},
    "engine": set(),
}

# What takes longer to load than all else: only tasks that use it do.
HEAVY = (
    "pydantic", "rich", "boto3", "mlflow", "paramiko", "cryptography", "fabric", "asyncio",
    "urllib.request", "invoke.vendor.yaml.loader",
)  # fmt: skip

Graph = Mapping[str, set[str]]


def modules(root: Path) -> dict[str, Path]:
    """Return the files of tasks/ by the names of their modules."""
    files = sorted((root / "tasks").rglob("*.py"))
    names = {file: ".".join(file.relative_to(root).with_suffix("").parts) for file in files}
    return {name.removesuffix(".__init__"): file for file, name in names.items()}


def imported(tree: ast.AST, known: Mapping[str, Path]) -> Iterator[str]:
    """Name the modules that a source imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "an import says in full where from"
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else str(node.module) for name in wanted)


def graph(root: Path) -> Graph:
    """Say of each module which others of ours it imports."""
    known = modules(root)
    return {
        name: {there for there in imported(ast.parse(file.read_text()), known) if there in known}
        for name, file in known.items()
    }


@cache
def house() -> Graph:
    return graph(paths.PROJECT)


def room(module: str) -> str:
    """Name the folder that a module lies in, or that it is; `verbs` for those beside them."""
    words = module.split(".")
    return words[1] if words[1] in ARROWS else "verbs"


def circles(graph: Graph) -> list[set[str]]:
    """Find the modules that import each other, directly or through others."""
    found: list[set[str]] = []
    above = reachable(graph)
    for module in graph:
        circle = {other for other in above[module] if module in above[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def reachable(graph: Graph) -> dict[str, set[str]]:
    """Say of each module what it imports, directly or through others."""
    found = {module: set(there) for module, there in graph.items()}
    for middle in graph:
        for module in graph:
            if middle in found[module]:
                found[module] |= found[middle]
    return found


def floors(graph: Graph) -> list[set[str]]:
    """Return the longest chain of imports, highest first; a circle is one floor of it.

    Of another state: PYTHONPATH=. python tests/test_house.py CHECKOUT
    """
    above = reachable(graph)

    @cache
    def from_here(module: str) -> tuple[frozenset[str], ...]:
        circle = frozenset({module, *(one for one in above[module] if module in above[one])})
        below = {there for one in circle for there in graph[one]} - circle
        return (circle, *max(map(from_here, sorted(below)), key=len, default=()))

    return [set(floor) for floor in max(map(from_here, sorted(graph)), key=len)]


# -- arrows ------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ARROWS)
def test_every_module_imports_only_what_lies_below_it(above):
    wrong = {
        (module, there)
        for module, others in house().items()
        for there in others
        if module != "tasks" and room(module) == above and not may_import(module, there)
    }
    assert wrong == set()


def may_import(module: str, there: str) -> bool:
    if room(there) == "verbs":
        return there == "tasks" or (module, there) == ("tasks.rehearse", "tasks.sandbox")
    return room(there) == room(module) or room(there) in ARROWS[room(module)]


def test_no_modules_import_each_other():
    assert circles(house()) == []


def test_circles_and_floors_are_found():
    wrong = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": set()}
    assert circles(wrong) == [{"b", "c"}]
    assert floors(wrong) == [{"a"}, {"b", "c"}, {"d"}]


# -- what a function takes, and what it may touch -------------------------------------------------

MOST = 6  # parameters of one function; more are a value object

# Where each function was looked through; the others follow.
LOOKED_THROUGH = ("verbs", "findings", "changes", "laptop", "engine", "rehearsal")


def functions(module: str) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(modules(paths.PROJECT)[module].read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node


def is_task(function: ast.FunctionDef) -> bool:
    """Tell whether its parameters are options of the command line: there may be more of them."""
    names = {ast.unparse(mark).partition("(")[0] for mark in function.decorator_list}
    return bool(names & {"remote", "local", "choosing"})


def parameters(function: ast.FunctionDef) -> list[str]:
    given = function.args
    named = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in named if name not in ("self", "cls")]


def test_no_function_takes_more_than_six_parameters():
    many = {
        f"{module}.{function.name}"
        for module in house()
        if module != "tasks" and room(module) in LOOKED_THROUGH
        for function in functions(module)
        if len(parameters(function)) > MOST and not is_task(function)
    }
    assert many == set()


def test_nothing_is_written_onto_a_server_from_outside():
    """What a task is given, it is handed: see `Turn` in engine/task.py."""
    written = {
        f"{module}: {ast.unparse(target)}"
        for module, file in modules(paths.PROJECT).items()
        if module != "tasks.engine.server"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute)
        and ast.unparse(target.value).rpartition(".")[2] in SERVERS
    }
    assert written == set()


SERVERS = ("server", "target", "source", "lead", "leader", "first", "other")


# -- a start -----------------------------------------------------------------------------------


def test_a_start_loads_nothing_that_takes_long():
    """Every `./fab` pays for it, --list too."""
    look = f"import sys, fabfile; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=paths.PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "words",
    [["--list"], ["--version"], [], ["--complete", "--", "fab", "-"], ["--help", "install"]],
)
def test_neither_a_list_nor_tab_does(words):
    look = f"""
import sys, fabfile
try:
    fabfile.program.run(["fab", *{words}])
except SystemExit:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=paths.PROJECT, capture_output=True, text=True
    )
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("file", ["fabfile.py", "files/host/common/talk.py"])
def test_what_was_loaded_is_not_searched_for_garbage_at_the_end(file):
    look = f"""
import atexit, gc, runpy
atexit.register(lambda: print(len(gc.get_objects()) < 100))
runpy.run_path("{file}")
"""
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=paths.PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


# -- how programs of the host are asked, and answer ----------------------------------------------

# Besides talk.py itself: what is sent as text, so that nothing lies beside it.
ALONE = {"talk.py", "facts_sqlite.py", "facts_postgres.py", "guide.py", "read_log.py"}
ALONE |= {"one_process.py"}  # takes what `mlflow` takes


def test_programs_of_the_host_are_asked_and_answer_through_talk():
    """Neither words by position nor lines of their own: a request by name, and talk.py's words."""
    own = re.compile(r"""sys\.argv|print\(\s*f?["']@""")
    found = {
        f"{path.parent.name}/{name}: {what[0]}"
        for name, path in templates.programs().items()
        if path.suffix == ".py" and name not in ALONE
        for what in own.finditer(path.read_text())
    }
    assert found == set()


# -- wiring ------------------------------------------------------------------------------------

HELLO = '''
from tasks.engine.task import local, remote

NAMESPACE = "greetings"


@remote(default_name="all", guides_name="greet-everybody")
def hello(c):
    """Greet."""


@local
def bye(c):
    """Part."""


@local
def _aside(c):
    """Be nobody's business."""
'''


def test_a_module_of_verbs_is_all_that_a_task_takes(tmp_path):
    shutil.copytree(paths.PROJECT / "tasks", tmp_path / "tasks")
    shutil.copy(paths.PROJECT / "fabfile.py", tmp_path)
    (tmp_path / "tasks/greetings.py").write_text(HELLO)
    look = "import fabfile; print(*sorted(fabfile.namespace.task_names))"
    before, after = (
        subprocess.run([sys.executable, "-c", look], cwd=place, capture_output=True, text=True)
        for place in (paths.PROJECT, tmp_path)
    )
    new = set(after.stdout.split()) - set(before.stdout.split())
    assert new == {"greetings.all", "greetings.bye", "greet-everybody"}, after.stderr


@pytest.mark.parametrize("name", [*doctor.REPAIRS, *rehearse.CHAIN])
def test_what_others_look_up_by_name_is_a_task_at_hosts(name):
    assert isinstance(fabfile.namespace[name], RemoteTask)


if __name__ == "__main__":
    longest = floors(graph(Path(sys.argv[1] if len(sys.argv) > 1 else paths.PROJECT)))
    print(f"{len(longest)} floors:", *(" + ".join(sorted(floor)) for floor in longest), sep="\n  ")
