"""What can be wrong with the bucket, the way to it, and the backups in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.changes import elsewhere, owner, schedule
from tasks.changes.service import failed_by_timer
from tasks.engine.facts import is_deployed
from tasks.engine.tables import clock
from tasks.findings.case import Remedy
from tasks.findings.stream import stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from tasks.findings.case import Case, Finding, Severity
    from tasks.findings.symptoms import Symptoms

UNSCHEDULED = 7 * 86400  # seconds after which a backup that is made by hand is an old one


def bucket(case: Case) -> Iterator[Finding]:
    yield from artifacts(case)
    settings, trouble = case.settings, case.symptoms.bucket
    if not settings.bucket:
        yield case.finding(
            "bucket-unnamed",
            "No bucket is configured.",
            "fabric.yaml",
            Remedy("Set `bucket:` under `mlflow:` in fabric.yaml."),
        )
        return
    if not case.symptoms.profile:
        yield case.finding(
            "profile-absent",
            f"The profile {settings.profile} is named in the settings and stands in no file of the "
            "host's ~/.aws.",
            f"no [{settings.profile}] in ~/.aws/credentials and no [profile {settings.profile}] in "
            "~/.aws/config",
            Remedy(
                "Fix `profile:` in fabric.yaml; or set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, then:",
                type=(case.fab("configure", "deploy"),),
            ),
        )
    if trouble and trouble["kind"] != "clock":
        again = trouble["kind"].startswith("credentials")
        yield case.finding(
            trouble["kind"],
            trouble["what"],
            f"the host asked s3://{settings.bucket} as the server would",
            Remedy(trouble["remedy"], type=(case.fab("configure"),) if again else ()),
        )


def artifacts(case: Case) -> Iterator[Finding]:
    """Find what keeps files of runs from being found, or from being this server's alone."""
    settings, facts = case.settings, case.facts
    if settings.bucket and elsewhere.is_changing(settings, facts):
        yield case.finding(
            "place-changes",
            f"The settings name {elsewhere.spelt(owner.place_text(settings))} for artifacts, and "
            f"the server uses {elsewhere.spelt(elsewhere.until_now(facts))}.",
            "the note of the last deploy on the host",
            Remedy("Put that back into fabric.yaml, or see what would come of it:",
                   type=(case.fab("plan"), case.fab("deploy"))),
        )  # fmt: skip
        return
    if settings.bucket and (former := elsewhere.former(settings, facts)):
        left = ", ".join(map(elsewhere.spelt, former))
        yield case.finding(
            "files-elsewhere",
            f"Files of runs are left under {left}, where MLflow does not look.",
            f"the host's note {facts.root}/.elsewhere",
            Remedy(
                "Have them copied; what lies there stays.",
                type=(case.fab("deploy", "--move-artifacts"),),
            ),
        )
    if case.symptoms.owner is not None and is_deployed(settings, facts):
        yield _taken_over(case, case.symptoms.owner)


def _taken_over(case: Case, mark: Mapping[str, str]) -> Finding:
    where = f"s3://{case.settings.bucket}/{case.settings.artifact_prefix}/"
    if not mark:
        return case.finding(
            "mark-gone",
            f"{where} no longer bears this server's mark.",
            "there is no object .remote-mlflow-owner.json",
            Remedy("Others may take it for theirs. Mark it again:",
                   type=(case.fab("verify", "deploy"),)),
        )  # fmt: skip
    return case.finding(
        "taken-over",
        f"{where} was taken over by the server {mark['server']} on {mark['host']}, at "
        f"{mark['since']}.",
        "its mark is that server's: the object .remote-mlflow-owner.json",
        Remedy(
            "Both write there, and gc --orphans of each would take the other's files for "
            "nobody's. Give one of them another `prefix:`, and have its files copied by "
            "deploy --move-artifacts. If that server is gone, take it back:",
            type=(case.fab("verify", "deploy"),),
        ),
    )


def backup(case: Case) -> Iterator[Finding]:
    symptoms, facts = case.symptoms, case.facts
    yield from stream(case)
    yield from _timers(case)
    if symptoms.backup_error:
        yield case.finding(
            "backup-hidden",
            f"The backups under {case.settings.backup_prefix}/ cannot be listed "
            f"({symptoms.backup_error}).",
            "the host asked as its backup would",
            Remedy("Allow s3:ListBucket and s3:GetObject there in the policy."),
        )
        return
    if symptoms.schedule is None:
        # What is missing can be told only of what was looked at.
        if "service" in symptoms.looked:
            yield _unscheduled(case)
    elif symptoms.schedule != "active":
        yield case.finding(
            "backup-schedule-off",
            "The backups' schedule is switched off.",
            f"systemctl: {case.unit}-backup.timer {symptoms.schedule}",
            Remedy(script=f"sudo systemctl enable --now {case.unit}-backup.timer"),
        )
    yield from _zone(case)
    if "bucket" not in symptoms.looked or symptoms.bucket:
        return
    newest = symptoms.backup
    if newest is None:
        yield case.finding(
            "backup-none",
            "There is no backup yet.",
            f"nothing under {case.settings.backup_prefix}/{case.settings.label}/ in the bucket",
            Remedy(tasks=("backup",)),
            severity=_of_none(case),
        )
        return
    age = facts.now - newest["made"]
    if age > _allowed_age(symptoms):
        yield case.finding(
            "backup-old",
            f"The newest backup is {_days(age)} old.",
            f"{newest['id']} in the bucket"
            + (f"; journalctl -u {case.unit}-backup says why" if symptoms.schedule else ""),
            Remedy(tasks=("backup",)),
        )
    yield from _doubtful(case, newest)
    if newest["damage"]:
        yield case.finding(
            "backup-damaged",
            f"The newest backup fails its check: {newest['damage']}.",
            f"{newest['id']}: its manifest against what the bucket holds",
            Remedy("Do not rely on it; make another one now.", tasks=("backup",)),
        )


def _of_none(case: Case) -> Severity:
    """Return how bad it is that there is no backup: a new server needs none yet."""
    needed = case.symptoms.schedule or (case.facts.runs or 0) > 0
    return "problem" if needed else "note"


def _doubtful(case: Case, newest: Mapping[str, Any]) -> Iterator[Finding]:
    """Name what lies among the backups and is none of this server's."""
    if newest.get("doubt"):
        yield case.finding(
            "backup-unvouched",
            f"No backup is signed with the server's backup key. {newest['doubt']}",
            f"{newest['id']}: its manifest against the host's key",
            Remedy("Make one that is:", tasks=("backup",)),
            severity=_of_none(case),
        )
    if newer := newest.get("newer"):
        yield case.finding(
            "backup-forged",
            f"The backup {newer['id']} is not as this server made it: {newer['why']}.",
            f"it is newer than {newest['id']}, the newest that this server vouches for",
            Remedy(
                "It is left alone. It was changed, or somebody put it there: see who may write "
                f"under {case.settings.backup_prefix}/ in the bucket, and delete it."
            ),
        )


def _unscheduled(case: Case) -> Finding:
    return case.finding(
        "backup-unscheduled",
        "Automatic backups are off.",
        f"there is no {case.unit}-backup.timer",
        Remedy(type=(case.fab("backup.schedule"),)),
        severity="note",
    )


def _timers(case: Case) -> Iterator[Finding]:
    failed = failed_by_timer(case.settings, case.facts)
    again = "Fix that, then have it done again:"
    if "backup" in failed:
        yield case.finding(
            "backup-failed",
            f"The last scheduled backup failed: {_why(case, 'backup')}",
            f"systemctl is-failed {case.unit}-backup.service, and its journal",
            Remedy(again, type=(case.ssh(f"sudo systemctl start {case.unit}-backup.service"),)),
        )
    if "backup.verify" in failed:
        yield case.finding(
            "backup-verify-failed",
            f"The last scheduled verification failed: {_why(case, 'backup-verify')}",
            f"systemctl is-failed {case.unit}-backup-verify.service, and its journal",
            Remedy(
                again, type=(case.ssh(f"sudo systemctl start {case.unit}-backup-verify.service"),)
            ),
        )
    plan = schedule.planned(case.facts)
    if plan and case.settings.bucket and not schedule.is_current(case.settings, case.facts, plan):
        yield case.finding(
            "backup-schedule-due",
            "The schedule of backups and the settings differ.",
            "what backup.schedule would lay down",
            Remedy(
                "Changed settings, a newer version of this project, or a change made by hand on "
                "the host.",
                type=(case.fab("backup.schedule"),),
            ),
            severity="note",
        )


def _why(case: Case, name: str) -> str:
    return case.symptoms.timer_failed.get(name) or "its journal does not say why."


def _allowed_age(symptoms: Symptoms) -> float:
    """Return how many seconds old the newest backup may be: one and a half of the schedule's."""
    if symptoms.schedule is None:
        return UNSCHEDULED
    return 1.5 * (symptoms.period or 86400) + 900


def _zone(case: Case) -> Iterator[Finding]:
    """Say that timers go by another clock than anybody here has in mind."""
    offset, _, name = case.symptoms.zone.partition(" ")
    when = case.symptoms.next_backup
    if offset in ("", "+0000", case.here.zone) or when is None:
        return
    yield case.finding(
        "time-zone",
        f"The schedule goes by the host's time zone, {name} ({offset}): neither UTC's nor yours.",
        f"the next backup runs at {clock(when, offset)} there, {clock(when, case.here.zone)} here",
        Remedy(
            "If its night is the one that is meant, all is well. If not:",
            type=(
                case.ssh("sudo timedatectl set-timezone UTC"),
                case.ssh(f"sudo systemctl restart {case.unit}-backup.timer"),
            ),
        ),
        severity="note",
    )


def _days(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
