"""Passwords that are guessed first, and logins that nobody uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.findings.case import Remedy
from tasks.findings.database import users as administrators

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.findings.case import Case, Finding

LONG = 14  # days: as far back as the distribution's logrotate keeps nginx's logs


def users(case: Case) -> Iterator[Finding]:
    yield from administrators(case)
    audited = case.audited
    for name in audited.weak:
        if name in case.symptoms.weak:
            continue
        yield case.finding(
            "password-weak",
            f"The password of {name} is one of those that are guessed first.",
            "its hash in basic_auth.db fits a common password, or the user's own name",
            Remedy(type=(case.fab("users.passwd", "--name", name),)),
        )
    if audited.days >= LONG and audited.unseen:
        names = ", ".join(audited.unseen)
        yield case.finding(
            "users-unused",
            f"Nobody has logged in as {names} for {audited.days} days.",
            f"/var/log/nginx/{case.unit}.access.log and those before it",
            Remedy(
                "A login that nobody uses is one that nobody misses when it is stolen.",
                type=tuple(case.fab("users.remove", name) for name in audited.unseen[:3]),
            ),
            severity="note",
        )
