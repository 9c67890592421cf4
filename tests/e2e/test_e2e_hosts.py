"""Several hosts at once."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack

import pytest
from lab import CHAIN, Lab
from waiting import until


@pytest.mark.costly
def test_two_hosts_are_served_side_by_side_while_a_third_is_unreachable(lab: Lab) -> None:
    with lab.another_bucket() as bucket, lab.blank() as one, lab.blank() as two:
        two.home = one.home  # one operator for both
        aim = _aim(lab, one.alias, two.alias, "nowhere")
        shared = {"FABRIC_MLFLOW_BUCKET": bucket}
        # Both are told the same prefix, so the second has to be told that this is meant.
        done = one.fab(*CHAIN, "--yes", "verify", aim=aim, code=1, timeout=600, **shared)
        lines = done.out.splitlines()
        tags = [re.match(r"\[([\w-]+)\] ", line) for line in lines]
        assert all(tags), lines
        seen = [tag[1] for tag in tags if tag]
        assert set(seen) == {one.alias, two.alias}
        # Side by side: each began before the other was done.
        assert seen.index(two.alias) < len(seen) - 1 - seen[::-1].index(one.alias)
        assert seen.index(one.alias) < len(seen) - 1 - seen[::-1].index(two.alias)
        away = r"^\[nowhere\] (nowhere does not answer|Cannot reach nowhere) at \d"
        assert re.search(away, done.err, re.MULTILINE), done.err
        assert done.last_line.startswith("1 of 3 hosts failed: nowhere. Done on: "), str(done)
        assert done.last_line.endswith("-H nowhere")
        for host in (one, two):
            host.healthy()
            assert f"[{host.alias}] ✓ verified" in done.out
        # Whose prefix the other took over is told by whom, though all of it works.
        said = one.fab("doctor", "--json", aim=_aim(lab, one.alias, two.alias), code=1, **shared)
        (found,) = (each for each in json.loads(said.out) if each["key"] == "taken-over")
        other = two if found["host"] == one.alias else one
        assert f"on {other.run('hostname')}, at 2" in found["what"]
        # Each took its own objects away: the other's experiment has the same number.
        left = lab.s3().list_objects_v2(Bucket=bucket).get("Contents", [])
        assert [entry["Key"].split("/")[1] for entry in left] == [".remote-mlflow-owner.json"]

        # What waits rather than computes takes as long for two as for one.
        for host in (one, two):
            host.lacks_a_package()
        with ExitStack() as stack:
            holders = [(host, stack.enter_context(host.busy_apt())) for host in (one, two)]
            with one.start("install", aim=_aim(lab, one.alias, two.alias)) as working:
                until(lambda: working.so_far.count("apt is busy") == 2, "both wait at once")
                for host, holder in holders:
                    host.run(f"kill {holder}")
                both = working.done()
        assert both.code == 0, str(both)
        assert one.login() != two.login()


def _aim(lab: Lab, *names: str) -> tuple[str, ...]:
    """Spell -S and -H for these hosts; `nowhere` is an address that nobody has."""
    subnet = lab.endpoint.split("//")[1].rpartition(".")[0]
    config = lab.home / "three_hosts"
    theirs = lab.ssh_config.read_text()
    config.write_text(f"{theirs}\nHost nowhere\n    HostName {subnet}.99\n    User ubuntu\n")
    return ("-S", str(config), "-H", ",".join(names))
