"""All that was seen of a server's instance or bucket in the account, and what is found there."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from tasks.engine.console import printable
from tasks.engine.records import dataclass
from tasks.engine.typed import typed
from tasks.findings.case import NO_REMEDY, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from tasks.engine.settings import Settings
    from tasks.findings.case import Remedy


@dataclass(frozen=True)
class AccountFinding(Finding):
    """A finding in the account: on which resource, and as what prowler knows it.

    Where it is `safe`, `aws.audit --fix` mends it by its key, see laptop/account/mend.py.
    """

    resource: str = ""
    check: str = ""


@dataclass(frozen=True)
class AccountCase:
    """What AWS answered, by part; `unseen` says why others were not seen.

    `name` is the host or the bucket; `fixing` is what has the safe repairs done. `on_host` says
    whether that reaches the host itself, too.
    """

    name: str
    settings: Settings
    parts: Mapping[str, Any]
    unseen: Mapping[str, str]
    now: float
    fixing: str = "./fab aws.audit --fix"
    on_host: bool = False
    area: str = field(default="", compare=False)

    @property
    def looked(self) -> frozenset[str]:
        """Name the parts that were seen."""
        return frozenset(self.parts)

    def blind(self, part: str) -> str:
        """Say why a part was not seen."""
        return self.unseen.get(part, "")

    def fab(self, *words: str) -> str:
        """Spell what an operator types to have tasks run on this host."""
        return typed(self.name, self.settings.environment, *words)

    @property
    def mends(self) -> str:
        """Say what does something about a finding that is safe to mend."""
        return f"{self.fixing} does it, after asking."

    @property
    def instance_id(self) -> str:
        return str(self.parts["instance"]["InstanceId"])

    def finding(
        self,
        key: str,
        what: str,
        seen: str,
        remedy: Remedy = NO_REMEDY,
        **about: Any,
    ) -> AccountFinding:
        """Return a finding of this area; `about` may give severity, resource and check.

        It is one that --fix mends unless there is something to type, or the remedy is not safe.
        """
        severity: Literal["problem", "note", "blind"] = about.pop("severity", "problem")
        # What others have called their rules and principals is shown, and is no line of its own.
        return AccountFinding(
            key, self.area, severity, printable(what), printable(seen), remedy.words, remedy.type,
            safe=key in MENDED and remedy.safe and not remedy.type, **about,
        )  # fmt: skip


# What `--fix` does something about: laptop/account/mend.py has a function for each.
MENDED = frozenset(
    "ssh-open imds-v1 protection-off versioning-off encryption-off public-access tls-not-required "
    "lifecycle-parts".split()
)
