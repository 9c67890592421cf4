"""How confined the units are, and whether others may write what they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.shell import sh
from tasks.findings.case import Remedy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.findings.case import Case, Finding

HIGHEST = 1.5  # of systemd's own scale from 0 to 10, where it says "OK"


def units(case: Case) -> Iterator[Finding]:
    for name, exposure in case.audited.exposures.items():
        if exposure > HIGHEST:
            again = "backup.schedule" if "-backup" in name else "deploy"
            again = "backup.stream on" if name.endswith("-stream.service") else again
            yield case.finding(
                "unit-exposed",
                f"{name} is confined less than it could be: {exposure}, where {HIGHEST} is right.",
                f"systemd-analyze security {name}",
                Remedy(
                    "A file of an older version, or something under /etc/systemd/system/"
                    f"{name}.d takes it back.",
                    type=(case.ssh(f"systemctl cat {name}"), case.fab(again)),
                ),
            )
    for path in case.audited.loose:
        mine = not path.startswith("/etc/")
        yield case.finding(
            "writable-by-others",
            f"Others than its owner may change {path}."
            if mine
            else f"Others than root may change {path}, which root's programs go by.",
            "owner and mode of the file",
            Remedy(
                script=f"chmod go-w {sh(path)}"
                if mine
                else f"sudo chown root: {sh(path)}; sudo chmod 644 {sh(path)}"
            ),
        )
