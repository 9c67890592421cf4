"""Which backups stay: a table of moments, and never the last one."""

from __future__ import annotations

import runpy
from datetime import datetime, timedelta, timezone

import pytest

from tasks.engine import templates

kept = runpy.run_path(str(templates.programs()["retention.py"]))["kept"]

NOW = datetime(2026, 11, 22, 12, 30, tzinfo=timezone.utc)  # a Sunday
NONE = {"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def on(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("moments", "keep", "wanted"),
    [
        ([], {"daily": 7}, []),
        # The newest stays although nothing is asked for, and however old it is.
        ([on("2020-01-01"), on("2020-01-02")], {}, [on("2020-01-02")]),
        # What was just made stays.
        ([ago(minutes=5), ago(minutes=20), ago(minutes=59), ago(minutes=61)], {},
         [ago(minutes=5), ago(minutes=20), ago(minutes=59)]),
        # A clock that went wrong makes none old.
        ([ago(days=-3), ago(days=-2)], {}, [ago(days=-3), ago(days=-2)]),
        # The newest of each hour.
        ([on("2026-11-22 09:10"), on("2026-11-22 09:50"), on("2026-11-22 10:10"),
          on("2026-11-22 11:00")], {"hourly": 3},
         [on("2026-11-22 09:50"), on("2026-11-22 10:10"), on("2026-11-22 11:00")]),
        # Of each day, and no more days than asked for.
        ([on("2026-11-19 03:00"), on("2026-11-20 03:00"), on("2026-11-20 23:00"),
          on("2026-11-21 03:00")], {"daily": 2}, [on("2026-11-20 23:00"), on("2026-11-21 03:00")]),
        # Days without one do not count.
        ([on("2026-03-01"), on("2026-07-01"), on("2026-11-01")], {"daily": 2},
         [on("2026-07-01"), on("2026-11-01")]),
        # A week begins on Monday, and the year's last days may be in the next year's first week.
        ([on("2026-11-15 23:00"), on("2026-11-16 01:00"), on("2026-11-21")], {"weekly": 2},
         [on("2026-11-15 23:00"), on("2026-11-21")]),
        ([on("2025-12-28"), on("2025-12-30"), on("2026-01-02")], {"weekly": 2},
         [on("2025-12-28"), on("2026-01-02")]),
        ([on("2026-09-30"), on("2026-10-01"), on("2026-10-31")], {"monthly": 5},
         [on("2026-09-30"), on("2026-10-31")]),
        # One may stay for several reasons, and the reasons add up.
        ([on("2026-09-30"), on("2026-11-20"), on("2026-11-21 08:00"), on("2026-11-21 09:00")],
         {"hourly": 1, "daily": 2, "monthly": 2},
         [on("2026-09-30"), on("2026-11-20"), on("2026-11-21 09:00")]),
    ],
)  # fmt: skip
def test_what_is_kept(moments, keep, wanted):
    assert sorted(kept(moments, NONE | keep, NOW)) == sorted(wanted)
    assert kept(moments[::-1], NONE | keep, NOW) == set(wanted), "in whatever order they are listed"


def test_hourly_backups_of_two_years_become_what_the_settings_say():
    moments = [ago(hours=n) for n in range(2 * 365 * 24)]
    stay = sorted(
        kept(moments, {"hourly": 24, "daily": 7, "weekly": 5, "monthly": 12}, NOW), reverse=True
    )
    assert stay[:24] == moments[:24]
    # Some days are also the newest of their week or month.
    assert 24 + 5 <= len(stay) <= 24 + 7 + 5 + 12
    assert stay[-1] == on("2025-12-31 23:30"), "the last of the twelfth month"


def test_thinning_out_twice_takes_no_more():
    moments = [ago(hours=7 * n) for n in range(500)]
    keep = {"hourly": 24, "daily": 7, "weekly": 5, "monthly": 12}
    once = kept(moments, keep, NOW)
    assert kept(list(once), keep, NOW) == once
