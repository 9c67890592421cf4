"""What the words of a command line are: tasks, options, their values; as Invoke would take them."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from tasks.engine.records import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass
class Reader:
    """Reads words one by one, and says what the next one may be.

    `initial` holds the options that stand before any task, `contexts` those of each task by name;
    both are Invoke's.
    """

    initial: Any
    contexts: Mapping[str, Any]
    context: Any = None  # the last task's; None before the first
    pending: Any = None  # the option that waits for its value
    missing: list[Any] = field(default_factory=list)  # values that the task wants without an option
    given: dict[str, str] = field(default_factory=dict)  # what options got, by all of their names

    def read(self, words: Iterable[str]) -> Reader:
        """Read words; return itself."""
        for word in words:
            self._take(word)
        return self

    def option(self, word: str) -> Any:
        """Return the option that a word names here, such as --since or --since=1h; or None."""
        name = word.partition("=")[0]
        for context in filter(None, (self.context, self.initial)):
            name = context.inverse_flags.get(name, name)  # --no-x
            if name in context.flags:  # its get() knows no aliases
                return context.flags[name]
        return None

    def options(self) -> list[str]:
        """List all options that may stand here, the task's own first."""
        contexts = [self.context, self.initial] if self.context else [self.initial]
        return [name for context in contexts for name in context.flag_names()]

    def _note(self, argument: Any, value: str) -> None:
        self.given |= dict.fromkeys(argument.names, value)

    def _take(self, word: str) -> None:
        waiting, self.pending = self.pending, None
        if waiting and not (waiting.optional and (word[:1] == "-" or word in self.contexts)):
            self._note(waiting, word)
        elif word.startswith("-"):
            argument = self.option(word)
            if argument and argument.takes_value and "=" not in word:
                self.pending = argument
            elif argument:
                self._note(argument, word.partition("=")[2])
        elif self.missing:
            del self.missing[0]
        elif word in self.contexts:
            self.context = self.contexts[word]
            self.missing = list(self.context.missing_positional_args)
