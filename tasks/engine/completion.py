"""What TAB offers: tasks, options, hosts, environments, names; and the scripts that ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks.engine import seen_names
from tasks.engine.records import dataclass
from tasks.engine.words import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


# Which arguments of which tasks are names that a server knows.
NAMED = {("users", "name"): seen_names.USERS, ("registry", "model"): seen_names.MODELS}


@dataclass(frozen=True)
class Offered:
    """All that may stand in a command line; hosts are looked up for the -S that was typed."""

    initial: Any
    contexts: Mapping[str, Any]
    tasks: Sequence[str]
    namespaces: Sequence[str]
    hosts: Callable[[str | None], Iterable[str]]
    environments: Callable[[], Iterable[str]]


def candidates(words: Sequence[str], offered: Offered) -> list[str]:
    """List what the last word may become; nothing leaves it to the shell, which offers files."""
    *before, last = words or [""]
    reader = Reader(offered.initial, offered.contexts).read(before)
    return [word for word in _all(reader, last, offered) if word.startswith(last)]


def _all(reader: Reader, last: str, offered: Offered) -> Iterable[str]:
    if reader.pending:
        return _values(reader, last, offered)
    if last.startswith("-"):
        name, equals, value = last.partition("=")
        reader.pending = reader.option(last) if equals else None
        if reader.pending:
            return [f"{name}={word}" for word in _values(reader, value, offered)]
        return reader.options()
    if reader.missing:
        if reader.context.name == "use":
            return offered.environments()
        return _names(reader, reader.missing[0].name)
    return offered.tasks


def _names(reader: Reader, argument: str) -> Iterable[str]:
    """List the users or models that a task's argument may name, as they were seen last."""
    kind = NAMED.get((reader.context.name.partition(".")[0], argument))
    if kind is None or reader.context.name == "users.add":
        return []
    hosts = [host for host in reader.given.get("hosts", "").split(",") if host]
    return seen_names.known(kind, hosts)


def _values(reader: Reader, last: str, offered: Offered) -> Iterable[str]:
    """List what the value of an option may be."""
    names = reader.pending.names
    if "hosts" in names:
        # Several are given with commas between them.
        given = last.rpartition(",")[0]
        chosen = given.split(",") if given else []
        found = (host for host in offered.hosts(reader.given.get("ssh-config")))
        return [",".join([*chosen, host]) for host in found if host not in chosen]
    if "help" in names:
        return offered.tasks
    if "list" in names:
        return offered.namespaces
    if reader.context and reader.context.flags.get(f"--{reader.pending.name}"):
        return _names(reader, reader.pending.name)
    return list(SCRIPTS) if "print-completion-script" in names else []


# Each asks the very program that is typed, in whatever folder that is.
BASH = r"""
_remote_mlflow() {
  local line=${COMP_LINE:0:COMP_POINT} word
  local -a typed
  read -ra typed <<<"$line"
  [[ $line == *[[:space:]] ]] && typed+=("")
  word=${typed[${#typed[@]}-1]}
  local lead=${word%"$2"}  # bash parts words at : and = as well, and wants what is behind
  COMPREPLY=()
  while IFS= read -r candidate; do
    COMPREPLY+=("${candidate#"$lead"}")
  done < <("${1/#\~/$HOME}" --complete -- "${typed[@]}" 2>/dev/null)
}
complete -o default -F _remote_mlflow fab
"""

ZSH = r"""
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
_remote_mlflow() {
  local -a found
  found=("${(@f)$("${~words[1]}" --complete -- "${(@)words[1,CURRENT]}" 2>/dev/null)}")
  found=("${(@)found:#}")
  if (( $#found )); then compadd -a found; else _files; fi
}
compdef _remote_mlflow fab
"""

FISH = r"""
function __remote_mlflow
    set -l typed (commandline -opc)
    set -l last (commandline -ct)
    set -l found ($typed[1] --complete -- $typed "$last" 2>/dev/null)
    if test (count $found) -gt 0
        printf "%s\n" $found
    else
        __fish_complete_path $last
    end
end
complete --command fab --no-files --arguments '(__remote_mlflow)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def script(shell: str) -> str:
    """Return what a shell is to read; raises Exit that names those that are known."""
    if shell not in SCRIPTS:
        raise Exit(f"No completion for {shell!r}. Give one of: {', '.join(SCRIPTS)}")
    return SCRIPTS[shell].lstrip()
