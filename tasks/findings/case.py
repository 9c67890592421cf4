"""All that was seen of one server, and the form of what is found wrong with it."""

from __future__ import annotations

import shlex
from dataclasses import field
from typing import TYPE_CHECKING, Literal

from tasks.engine.records import dataclass
from tasks.engine.typed import completed, ssh, typed
from tasks.findings.advisories import Advisories
from tasks.findings.safety import Audited

if TYPE_CHECKING:
    from tasks.engine.facts import Facts
    from tasks.engine.settings import Settings
    from tasks.findings.symptoms import Symptoms

Severity = Literal["problem", "note", "blind"]

# Seconds that a start may take; await_health of files/host/deploy/health.sh waits as long.
STARTING = 120


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `type` is what to type, each a whole command for a shell.

    `script` (bash for the host) and `tasks` are the same for `doctor --fix`, where it is `safe`:
    repeated or interrupted it does no harm, and it ends nothing that somebody may want. `blind` is
    no fault: the area was not looked at, and may have any.
    """

    key: str
    area: str
    severity: Severity
    what: str
    seen: str
    remedy: str
    type: tuple[str, ...] = ()
    script: str = ""
    tasks: tuple[str, ...] = ()
    safe: bool = False


@dataclass(frozen=True)
class Remedy:
    """What is done about a finding: in words, and as what to type, in the order of these fields.

    `script` is bash for the host and `tasks` are ours; `doctor --fix` may do both, unless there is
    something else to `type` or they are not `safe`.
    """

    words: str = ""
    script: str = ""
    tasks: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    safe: bool = True


NO_REMEDY = Remedy()


@dataclass(frozen=True)
class Here:
    """The operator's machine: its clock, its tunnel, and what MLflow clients find there.

    `shell` says whether this shell's variables concern the server at all: a rehearsal host never
    sees them. `sources` are the logins that were tried on the host: variables, copy, file;
    `file_is_anothers` says that the last one is kept here as that of another server.
    `tunnel` is the condition of the tunnel, as tunnel.status says it; `zone` is how far its clock
    is from UTC's. `by_session` says whether the host is reached through Session Manager.
    """

    now: float
    uri: str | None = None
    sources: frozenset[str] = frozenset()
    half: bool = False
    file_is_anothers: bool = False
    shell: bool = True
    tunnel_port: int | None = None
    tunnel: str = ""
    tunnel_answers: bool = False
    by_session: bool = False
    zone: str = "+0000"


@dataclass(frozen=True)
class Case:
    """All that was seen of one server, and how its operator would name it.

    `audited` and `advisories` are what the audit's own look adds: nothing for doctor.
    """

    host: str
    settings: Settings
    facts: Facts
    symptoms: Symptoms
    here: Here
    audited: Audited = field(default_factory=Audited)
    advisories: Advisories = field(default_factory=Advisories)
    area: str = field(default="", compare=False)

    def fab(self, *words: str) -> str:
        return typed(self.host, self.settings.environment, *words)

    def ssh(self, script: str, terminal: bool = False) -> str:
        """Spell what has a script run on the host, with a `terminal` where it asks something."""
        spelt = ssh(self.host, shlex.quote(script))
        return spelt.replace("ssh ", "ssh -t ", 1) if terminal else spelt

    def finding(
        self,
        key: str,
        what: str,
        seen: str,
        remedy: Remedy = NO_REMEDY,
        severity: Severity = "problem",
    ) -> Finding:
        """Return what is wrong, how it was `seen`, and what to do about it in commands to type."""
        script, tasks = remedy.script, remedy.tasks
        typed = ((self.ssh(script),) if script else ()) + tuple(map(self.fab, tasks)) + remedy.type
        safe = remedy.safe and bool(script or tasks) and not remedy.type
        what, seen, words = map(self.completed, (what, seen, remedy.words))
        return Finding(key, self.area, severity, what, seen, words, typed, script, tasks, safe)

    def completed(self, text: str) -> str:
        """Have the commands in a text be such as can be typed, for this server."""
        return completed(text, self.host, self.settings.environment)

    @property
    def looked(self) -> frozenset[str]:
        """Name the parts of the look that gave an answer.

        `store` is the tracking database, wherever it is: of PostgreSQL the facts tell.
        """
        facts, parts = self.facts, self.symptoms.looked
        elsewhere = facts.schema is not None or facts.schema_error is not None
        there = "databases" in parts if self.sqlite else elsewhere
        return parts | {"store"} if there else parts

    def blind(self, part: str) -> str:
        """Say why a part of the look gave no answer; nothing where nobody knows."""
        return self.symptoms.blind.get("databases" if part == "store" else part, "")

    @property
    def unit(self) -> str:
        return self.settings.unit

    @property
    def sqlite(self) -> bool:
        uri = self.facts.store or self.settings.backend_store_uri or "sqlite:"
        return uri.startswith("sqlite:")

    @property
    def crashing(self) -> bool:
        """Tell whether systemd starts the server again and again; our tasks reset its count."""
        service = self.facts.unit(f"{self.unit}.service")
        if service.active in ("activating", "failed"):
            return service.restarts > 0
        fresh = self.facts.now - service.since < STARTING
        return service.restarts >= 2 and fresh and self.symptoms.health != 200
