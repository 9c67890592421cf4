"""Backups that were taken while writers wrote hold every run that was acknowledged before."""

from __future__ import annotations

from datetime import datetime

from load import writers
from older import Older, set_id


def test_each_of_many_backups_under_load_restores_with_every_acknowledged_run(
    older: Older, full: bool
) -> None:
    host = older.host
    with writers(host, older.login) as load:
        made = [set_id(host.fab("backup").out) for _ in range(50 if full else 4)]
        load.goes_on()
    assert load.failures() == []
    assert len(set(made)) == len(made)
    began = {id: datetime.fromisoformat(older.sets()[id]["made"]).timestamp() for id in made}
    for id in made:
        before, held = load.acknowledged(before=began[id]), older.fetched(id)
        assert before - held == set()
        # Of those that were acknowledged later it has some at most: writers wrote all the time.
        assert load.acknowledged() - held
        print(f"{id}: {len(before)} were acknowledged before, {len(held)} are held")
    host.fab("restore", "--yes", "--id", made[-1])
    older.serves()
    wanted = load.acknowledged(before=began[made[-1]])
    assert wanted - older.state(wanted).served == set()
