"""Fabric's program, made ours: what it lists, offers and says; the tasks run in `executor`."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING

import invoke
from invoke import Exit
from invoke.exceptions import ParseError
from invoke.parser import Parser, ParserContext

from tasks.engine import completion, fabrics, listing, mistakes, paths
from tasks.engine.aliases import known_hosts_of
from tasks.engine.configuration import configured, host_names
from tasks.engine.console import painted
from tasks.engine.executor import Executor
from tasks.engine.fabric_yaml import load_yaml
from tasks.engine.pipes import end_where_output_fails, ending_where_output_fails

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

WHAT = "an MLflow server for production on an Ubuntu or Debian host"

FIRST = (
    ("./fab init", "Write fabric.yaml by questions; test login and bucket."),
    ("./fab rehearse", "Or try it all first, on a throw-away host here."),
)

THEN = "Then: ./fab -H HOST install configure deploy verify"

LATER = (
    ("./fab {on}status", "How every server stands."),
    ("./fab {on}doctor", "What is wrong, and what to type."),
    ("./fab {on}plan", "What install configure deploy would change."),
)

MORE = (
    ("./fab --help TASK", "What a task does, and its options."),
    ("./fab --help", "Options of every task: -H HOST, -S FILE, -i KEY, …"),
)


def ours() -> Program:
    """Return a program of ours, or Fabric's own made ours: plain `fab` has begun by itself."""
    fabrics_own = sys.modules.get("fabric.main")
    return adopt(fabrics_own.program) if fabrics_own else Program()


def adopt(program: Any) -> Program:
    """Make Fabric's program ours, also where it has begun."""
    program.__class__ = Program
    program.executor_class = Executor
    if getattr(program, "config", None):
        program.leave_files_to_us()
        end_where_output_fails()
    adopted: Program = program
    return adopted


class Program(invoke.Program):
    """Fabric's program without loading it: our lists, our completion, mistakes in our words."""

    argv: list[str]
    args: Any
    # All tasks, where they were collected before; else they are looked for, as Fabric does.
    collected: invoke.Collection | None = None

    def __init__(self, **options: Any) -> None:
        """Make a program; whatever is not said is as `fab` has it."""
        ours = {"name": "Fabric", "executor_class": Executor, "config_class": fabrics.Config}
        super().__init__(**{**ours, **options})

    def run(self, argv: Any = None, exit: bool = True) -> None:
        """Do what was typed, or up to where nobody reads any more what is printed."""
        with ending_where_output_fails():
            super().run(argv, exit)

    def core_args(self) -> list[invoke.Argument]:
        """Return the options that stand before the first task, in Fabric's order."""
        return super().core_args() + fabrics.options()

    def create_config(self) -> None:
        """Make the configuration, without what Fabric and Invoke would read on their own."""
        self.config = self.config_class(lazy=True)
        self.leave_files_to_us()
        self.config.load_base_conf_files()
        self.config.merge()

    def update_config(self, merge: bool = True) -> None:
        """Have the configuration say what was typed before the first task."""
        super().update_config(merge=False)
        self.config._overrides.update(fabrics.overrides(self.args))
        if merge:
            self.config.merge()

    def leave_files_to_us(self) -> None:
        """Leave ssh configurations to OpenSSH, and mistakes in fabric.yaml to us."""
        # Fabric would read them once more, with a parser that dies of a file that is not there.
        self.config._set(load_ssh_config=lambda: None)
        # Invoke looks these up by the file's suffix, and would die of a mistake in it.
        self.config._set(_load_yaml=load_yaml, _load_yml=load_yaml)

    def normalize_argv(self, argv: Any) -> None:
        """Keep what was typed; `--list --json` is how other tasks of ours print JSON."""
        super().normalize_argv(argv)
        words = self.argv[1:]
        if {"--list", "-l"} & set(words) and "--json" in words:
            self.argv = [word if word != "--json" else "--list-format=json" for word in self.argv]

    def parse_core(self, argv: Any) -> None:
        """Read what stands before the first task; answer what needs no tasks."""
        self.normalize_argv(argv)
        with self._in_our_words():
            self.parse_core_args()
            if shell := self.args["print-completion-script"].value:
                print(completion.script(shell), end="")
                raise Exit
            super().parse_core(argv)
            if self.args["list-agent-keys"].value:
                print(*fabrics.agent_keys(), sep="\n")
                raise Exit
        # Invoke keeps Python from keeping what it compiles. Each start would compile it anew.
        sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

    def load_collection(self) -> None:
        """Find the tasks, and fabric.yaml beside them."""
        if self.collected is None or self.args.collection.value:
            super().load_collection()
            return
        self.config.set_project_location(str(paths.PROJECT))
        self.config.load_project()
        self.collection = self.collected

    def parse_tasks(self) -> None:
        """Read the tasks and their options; raises Exit that says what to type instead."""
        with self._in_our_words():
            mistakes.refuse_senseless_options(self._line(self._make_parser().contexts))
            super().parse_tasks()

    def parse_cleanup(self) -> None:
        """Answer --list, --help and TAB, and what is no task at all."""
        namespace = self.args.list.value
        if isinstance(namespace, str) and namespace not in self.collection.collections:
            raise Exit(mistakes.unknown_namespace(namespace, self.collection.collections))
        if self.args.complete.value:
            self._complete()
            raise Exit
        with self._in_our_words():
            super().parse_cleanup()

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        """Turn what Invoke says of a mistake in the command line into what helps."""
        try:
            yield
        except ValueError as error:  # int()'s own, whose text ends with the word
            word = str(error).rpartition(": ")[2]
            raise Exit(f"{word} is not a whole number. Give the option one.") from None
        except ParseError as error:
            raise Exit(mistakes.explained(error, self._line())) from None

    def _make_parser(self) -> Parser:
        """Return a parser that knows the tasks which are typed: Invoke's builds and copies all."""
        typed = {part for word in self.argv for part in word.split("=")}
        names = self.collection.task_names.items()
        return Parser(
            [self._context(name, same) for name, same in names if typed & {name, *same}],
            self.initial_context,
        )

    def _context(self, name: str, same: Sequence[str]) -> ParserContext:
        options = self.collection[name].get_arguments()
        return ParserContext(name, aliases=same, args=options)

    def _contexts(self) -> Any:
        return super()._make_parser().contexts if hasattr(self, "collection") else {}

    def _line(self, contexts: Any = None) -> mistakes.Line:
        words = self.argv[1:]
        if words[:2] == ["--search-root", str(paths.PROJECT)]:  # by ./fab, not by who types
            words = words[2:]
        known = self._contexts() if contexts is None else contexts
        return mistakes.Line(words, self.initial_context, known, self._hosts)

    # -- what it shows -----------------------------------------------------------------------

    def print_version(self) -> None:
        """Print our version first, then those of what we stand on."""
        from importlib.metadata import version as installed

        print(f"Remote MLflow {version()}")
        for name in ("Fabric", "Paramiko", "Invoke"):
            print(name, installed(name))
        print(f"Python {platform.python_version()}")

    def list_flat(self) -> None:
        """List all tasks in the README's groups; a part of them as Invoke does."""
        if self.list_root or self.list_depth:
            super().list_flat()
            return
        self._print(self._groups())

    def no_tasks_given(self) -> None:
        """Say where to start, and which tasks there are; the executor refuses what follows --."""
        if self.core.remainder:
            return
        file = configured(self.config)
        on = "" if file["hosts"] else "-H HOST "
        begun = (file["mlflow"] or {}).get("bucket")
        start = [(what.format(on=on), why) for what, why in (LATER if begun else FIRST)]
        width = shutil.get_terminal_size().columns
        self._print(
            (line, None) for line in textwrap.wrap(f"Remote MLflow {version()}: {WHAT}.", width)
        )
        self._print([("", None), ("Where to look" if begun else "Start here", "bold")])
        self._print([*self._commands(start), *([] if begun else [(f"  {THEN}", None)]), ("", None)])
        self._print([*self._groups(), ("More", "bold"), *self._commands(MORE)])
        raise Exit

    def _groups(self) -> Iterator[tuple[str, str | None]]:
        readme = paths.PROJECT / "README.md"
        text = readme.read_text() if readme.is_file() else ""
        groups = listing.grouped(text, listing.names_in(self.collection))
        return listing.lines(groups, shutil.get_terminal_size().columns)

    def _commands(self, lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str | None]]:
        width, found = shutil.get_terminal_size().columns, list(lines)
        column = max(len(command) for command, _ in found) + 4
        for command, why in found:
            for line in listing.entry(command, why, column, width):
                yield line, None

    def _print(self, lines: Iterable[tuple[str, str | None]]) -> None:
        for line, style in lines:
            print(painted(line, style, sys.stdout))

    # -- TAB -----------------------------------------------------------------------------------

    def _complete(self) -> None:
        """Print what the last word may become; the words are those after `--`, the program first.

        Invoke joins them with blanks, so that a last one that is empty is a blank at the end.
        """
        words = self.core.remainder.split(" ")[1:]
        offered = completion.Offered(
            self.initial_context, self._contexts(),
            list(listing.names_in(self.collection)), list(self.collection.collections),
            self._hosts, self._environments,
        )  # fmt: skip
        for word in completion.candidates(words, offered):
            print(word)

    def _hosts(self, config_file: str | None = None) -> list[str]:
        file = configured(self.config)
        sections = [file, *((file["mlflow"] or {}).get("environments") or {}).values()]
        named = [host for section in sections for host in _hosts_in(section)]
        return list(dict.fromkeys([*named, *known_hosts_of(config_file)]))

    def _environments(self) -> list[str]:
        environments = (configured(self.config)["mlflow"] or {}).get("environments") or {}
        return ["default", *map(str, environments)]


def _hosts_in(section: Any) -> list[str]:
    hosts = section.get("hosts") if isinstance(section, dict) else None
    if isinstance(hosts, str):
        return host_names(hosts)
    return [str(host) for host in hosts or []]


def version() -> str:
    """Return this project's version, from where it is declared."""
    text = (paths.PROJECT / "pyproject.toml").read_text()
    found = re.search(r'^version = "(.+)"$', text, re.M)
    return found[1] if found else "unknown"
