"""What can be wrong with the bucket, the way to it, and the backups in it."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.findings.case import Case, Finding
from tasks.findings.stream import stream
from tasks.symptoms import Symptoms

UNSCHEDULED = 7 * 86400  # seconds after which a backup that is made by hand is an old one


def bucket(case: Case) -> Iterator[Finding]:
    settings, trouble = case.settings, case.symptoms.bucket
    if not settings.bucket:
        yield case.finding("bucket-unnamed", "No bucket is configured.", "fabric.yaml",
                           "Set `bucket:` under `mlflow:` in fabric.yaml.")  # fmt: skip
        return
    if not case.symptoms.profile:
        yield case.finding(
            "profile-absent",
            f"The profile {settings.profile} is named in the settings and stands in no file of the "
            "host's ~/.aws.",
            f"no [{settings.profile}] in ~/.aws/credentials and no [profile {settings.profile}] in "
            "~/.aws/config",
            "Mend `profile:` in fabric.yaml; or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "then:",
            type=(case.fab("configure", "deploy"),),
        )
    if trouble and trouble["kind"] != "clock":
        again = trouble["kind"].startswith("credentials")
        yield case.finding(
            trouble["kind"],
            trouble["what"],
            f"the host asked s3://{settings.bucket} as the server would",
            trouble["remedy"],
            type=(case.fab("configure"),) if again else (),
        )


def backup(case: Case) -> Iterator[Finding]:
    symptoms, facts = case.symptoms, case.facts
    yield from stream(case)
    if symptoms.backup_error:
        yield case.finding(
            "backup-hidden",
            f"The backups under {case.settings.backup_prefix}/ cannot be listed "
            f"({symptoms.backup_error}).",
            "the host asked as its backup would",
            "Allow s3:ListBucket and s3:GetObject there in the policy.",
        )
        return
    if symptoms.schedule is None:
        yield case.finding(
            "backup-unscheduled",
            "No schedule makes backups.",
            f"there is no {case.unit}-backup.timer",
            "Until you have one, have your machine's cron type it: docs/backup.md",
            severity="note",
            type=(case.fab("backup"),),
        )
    elif symptoms.schedule != "active":
        yield case.finding(
            "backup-schedule-off",
            "The backups' schedule is switched off.",
            f"systemctl: {case.unit}-backup.timer {symptoms.schedule}",
            script=f"sudo systemctl enable --now {case.unit}-backup.timer",
        )
    if "bucket" not in symptoms.looked or symptoms.bucket:
        return
    newest = symptoms.backup
    if newest is None:
        yield case.finding(
            "backup-none",
            "There is no backup yet.",
            f"nothing under {case.settings.backup_prefix}/{case.settings.label}/ in the bucket",
            severity="problem" if symptoms.schedule or (facts.runs or 0) > 0 else "note",
            tasks=("backup",),
        )
        return
    age = facts.now - newest["made"]
    if age > _allowed_age(symptoms):
        yield case.finding(
            "backup-old",
            f"The newest backup is {_days(age)} old.",
            f"{newest['id']} in the bucket"
            + (f"; journalctl -u {case.unit}-backup says why" if symptoms.schedule else ""),
            tasks=("backup",),
        )
    if newest["damage"]:
        yield case.finding(
            "backup-damaged",
            f"The newest backup fails its check: {newest['damage']}.",
            f"{newest['id']}: its manifest against what the bucket holds",
            "Do not rely on it; make another one now.",
            tasks=("backup",),
        )


def _allowed_age(symptoms: Symptoms) -> float:
    """Return how many seconds old the newest backup may be: one and a half of the schedule's."""
    if symptoms.schedule is None:
        return UNSCHEDULED
    return 1.5 * (symptoms.period or 86400) + 900


def _days(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"
