"""Mistakes in what was typed, in one line each: what is wrong, then what to type."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.engine.configuration import alike, closest
from tasks.engine.records import dataclass
from tasks.engine.words import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from invoke.exceptions import ParseError

NO_NAME = (
    "`use` wants the name of an environment, and what to do there: ./fab use NAME status. "
    "To see which there are: ./fab environments"
)

# What people type as if it were a task, since it is one elsewhere.
ELSEWHERE = {"help": "--help", "list": "--list", "ls": "--list", "version": "--version"}

CLOSE = 0.6  # of difflib's ratio; below it two words have little in common


@dataclass(frozen=True)
class Line:
    """A command line, and what could stand in it."""

    words: Sequence[str]
    initial: Any
    contexts: Mapping[str, Any]
    hosts: Callable[[], Iterable[str]]

    def instead(self, word: str, *words: str) -> str:
        """Spell the whole command with other words in one's place."""
        place = self.words.index(word)
        return spelt(*self.words[:place], *words, *self.words[place + 1 :])

    def end_of_values(self, task: str) -> int:
        """Return where a task's next value goes: behind those it got; 0 where it is not there."""
        reader, place = Reader(self.initial, self.contexts), 0
        for number, word in enumerate(self.words, 1):
            wanted = len(reader.missing)
            reader.read([word])
            if word == task or (place and len(reader.missing) < wanted):
                place = number
        return place


def spelt(*words: str) -> str:
    """Spell a command as it can be pasted."""
    return shlex.join(["./fab", *words])


def refuse_senseless_options(line: Line) -> None:
    """Raise Exit at --json=1 and --jsn: Invoke would take the 1, and a task's --jsn, for a name."""
    reader = Reader(line.initial, line.contexts)
    for word in line.words:
        if word == "--":
            return
        if word.startswith("--") and not reader.pending:
            refuse_senseless(word, reader, line)
        reader.read([word])


def refuse_senseless(word: str, reader: Reader, line: Line) -> None:
    """Raise Exit where a task has no such option, or where it takes no value."""
    name, equals, _ = word.partition("=")
    option = reader.option(word)
    if option is None and reader.missing:
        raise Exit(unknown_option(word, reader.context, line))
    if option and equals and not option.takes_value:
        raise Exit(f"{name} takes no value. Type: {line.instead(word, name)}")


def explained(error: ParseError, line: Line) -> str:
    """Say what Invoke could not parse, and what to type."""
    said = str(error)
    if said.startswith("'use' did not receive"):
        return NO_NAME
    if found := re.fullmatch(r"No idea what '(.*)' is!", said):
        return unknown(found[1], error.context, line)
    if found := re.match(r"'(\S+)' did not receive required positional arguments: (.*)", said):
        return incomplete(found[1], re.findall(r"'([^']+)'", found[2]), line)
    if found := re.match(r"Flag <Argument: ([\w-]+)", said):
        return without_value(found[1], error.context, line)
    return said


def unknown(word: str, context: Any, line: Line) -> str:
    """Say of a word that is neither task nor option what it should have been."""
    if word not in line.words:  # Invoke took it apart, as -xyz
        word = next((whole for whole in line.words if word.lstrip("-") in whole), word)
    if word.startswith("-"):
        return unknown_option(word, context, line)
    if word in ELSEWHERE:
        return f"{word!r} is no task. Type: {_elsewhere(word, line)}"
    if word in line.words and ("@" in word or word in line.hosts()):
        return f"{word!r} is a host, no task. Type: {line.instead(word, '-H', word)}"
    near = nearest_task(word, [*line.contexts, *getattr(line.contexts, "aliases", {})])
    if near is None and context and context.name:
        about = spelt("--help", context.name)
        return f"{context.name} takes no {word!r}, and no task is called so. What it takes: {about}"
    if near is None:
        return f"There is no task {word!r}. All there are: ./fab --list"
    again = line.instead(word, near) if word in line.words else spelt(near)
    return f"There is no task {word!r} (did you mean {near!r}?). Type: {again}"


def _elsewhere(word: str, line: Line) -> str:
    rest = list(line.words[line.words.index(word) + 1 :]) if word in line.words else []
    about = [task for task in rest[:1] if task in line.contexts and word == "help"]
    return spelt(ELSEWHERE[word], *about)


def unknown_option(word: str, context: Any, line: Line) -> str:
    """Say of an option that a task does not have which it could be."""
    name, equals, value = word.partition("=")
    task = context.name if context and context.name else None
    who = task or "./fab"
    reader = Reader(line.initial, line.contexts, context if task else None)
    valued = equals or _is_followed_by_a_value(word, context, line)
    known = [each for each in reader.options() if not valued or reader.option(each).takes_value]
    # Without their dashes, by which all are alike.
    whole = [option for option in known if option.startswith("--") or not name.startswith("--")]
    bare = {option.lstrip("-"): option for option in whole}
    plain = name.lstrip("-")
    parts = (option for option in bare if plain in option.split("-"))
    close = closest(plain, bare, CLOSE) or next(parts, None)
    if close and word in line.words:
        near = bare[close]
        again = line.instead(word, f"{near}{equals}{value}")
        return f"{who} has no option {name} (did you mean {near}?). Type: {again}"
    return f"{who} has no option {name}. Those it has: {spelt('--help', *filter(None, [task]))}"


def _is_followed_by_a_value(word: str, context: Any, line: Line) -> bool:
    """Tell whether an unknown option is followed by no option, task, or name that a task wants."""
    if word not in line.words or (context and context.missing_positional_args):
        return False
    following = [*line.words[line.words.index(word) + 1 :], "-"][0]
    return not following.startswith("-") and following not in line.contexts


def nearest_task(word: str, names: Iterable[str]) -> str | None:
    """Return the task that a misspelt word is nearest to, by its whole name or the last part."""
    scores = {name: max(alike(word, name), 0.9 * alike(word, _last(name))) for name in names}
    best = max(scores, key=lambda name: scores[name], default=None)
    return best if best and scores[best] >= CLOSE else None


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def incomplete(task: str, missing: Sequence[str], line: Line) -> str:
    """Say which values a task wants that were not given."""
    names = [name.upper() for name in missing]
    place = line.end_of_values(task)
    again = [*line.words[:place], *names, *line.words[place:]] if place else [task, *names]
    return f"{task} wants {' and '.join(names)}. Type: {spelt(*again)}"


def without_value(name: str, context: Any, line: Line) -> str:
    """Say that an option stands without what it is to be."""
    flag = f"--{name}" if len(name) > 1 else f"-{name}"
    argument = Reader(line.initial, line.contexts, context).option(flag)
    what = f" ({argument.help.rstrip('.')})" if argument and argument.help else ""
    typed = next((word for word in line.words if argument and _names(word, argument)), flag)
    again = line.instead(typed, typed, "VALUE") if typed in line.words else f"{flag} VALUE"
    return f"{typed} wants a value{what}. Type: {again}"


def _names(word: str, argument: Any) -> bool:
    return word.startswith("-") and word.lstrip("-") in argument.names


def unknown_namespace(word: str, names: Iterable[str]) -> str:
    """Say of `--list WORD` that it names no group of tasks."""
    near = closest(word, names, CLOSE)
    guess = f"Type: {spelt('--list', near)}" if near else "All there are: ./fab --list"
    return f"There is no group of tasks {word!r}. {guess}"
