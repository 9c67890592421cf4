"""Which backups stay. Runs on the host, beside the program that imports it."""

import datetime

# How strftime names the hour, day, week (ISO 8601) and month that a moment lies in.
PERIODS = {"hourly": "%Y%m%d%H", "daily": "%Y%m%d", "weekly": "%G-%V", "monthly": "%Y%m"}
YOUNG = datetime.timedelta(hours=1)


def kept(moments, keep, now):
    """Return those moments whose backups stay: the newest one, and those of the last hour too.

    `keep` says of how many hours, days, weeks and months the newest backup stays. Only those count
    that have one: a server that was off for a month, or a schedule that broke, loses none by it.
    """
    stay = {moment for moment in moments if now - moment < YOUNG}
    stay.update(sorted(moments)[-1:])
    for name, spelling in PERIODS.items():
        newest = {moment.strftime(spelling): moment for moment in sorted(moments)}
        stay.update(list(newest.values())[len(newest) - min(keep[name], len(newest)) :])
    return stay
