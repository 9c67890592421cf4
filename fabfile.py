"""Wiring: which task has which name, and how Fabric runs them."""

import atexit
import gc
import importlib
import sys
from pathlib import Path
from types import ModuleType

# Fabric imports this file by its path; its neighbours must be found from any directory.
sys.path.insert(0, str(Path(__file__).resolve().parent))

import tasks.engine.later  # isort: skip # which loads Invoke: before all others
from invoke import Collection, Task

from tasks.engine.program import ours


def collected() -> Collection:
    """Return all tasks, each where its module says: in its NAMESPACE, or at the root."""
    root = Collection()
    namespaces: dict[str, Collection] = {}
    for verbs in verb_modules():
        place = root
        if name := getattr(verbs, "NAMESPACE", None):
            place = namespaces.setdefault(name, Collection(name))
        for task in declared(verbs):
            default = getattr(task, "default_name", None)
            place.add_task(task, name=default, default=default is not None)
            if guides := getattr(task, "guides_name", None):
                root.add_task(task, name=guides)
    for namespace in namespaces.values():
        root.add_collection(namespace)
    return root


def verb_modules() -> list[ModuleType]:
    """Import all modules of tasks/, but no folder there, by their names in alphabetical order."""
    files = sorted(Path(tasks.__path__[0]).glob("[!_]*.py"))
    return [importlib.import_module(f"tasks.{file.stem}") for file in files]


def declared(verbs: ModuleType) -> list[Task]:  # type: ignore[type-arg]
    """List the tasks that a module declares itself; one whose name begins with _ is its own."""
    return [
        task
        for name, task in vars(verbs).items()
        if isinstance(task, Task) and task.__module__ == verbs.__name__ and name[0] != "_"
    ]


# At its end Python would search all that was loaded for garbage: 0.1 s of a command at a host.
atexit.register(gc.freeze)

program = ours()

namespace = collected()

if __name__ == "__main__":  # ./fab; plain `fab` finds this file by itself
    program.collected = namespace
    program.run(["fab", *sys.argv[1:]])
