"""What of a lock a host needs: by its Python and machine, never by those of this machine."""

from __future__ import annotations

import pytest
from invoke import Exit

from tasks.changes.wheelhouse import locks
from tasks.engine.locks import MACHINES, PYTHONS, Locked, Target, needed, spelled, target
from tasks.engine.settings import Settings

LOCK = """# made from a.in
always==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via x
old==2.0 ; python_full_version < '3.11' \\
    --hash=sha256:cc
windows==1.0 ; sys_platform == 'win32' \\
    --hash=sha256:dd
arm==1.0 ; platform_machine == 'aarch64' \\
    --hash=sha256:ee
"""


@pytest.mark.parametrize(
    ("python", "machine", "pins"),
    [
        ("3.10", "x86_64", ["always==1.0", "old==2.0"]),
        ("3.12", "x86_64", ["always==1.0"]),
        ("3.12", "aarch64", ["always==1.0", "arm==1.0"]),
    ],
)
def test_a_host_needs_what_the_conditions_of_a_lock_say(python, machine, pins):
    assert [package.pin for package in needed(LOCK, Target(python, machine))] == pins


def test_a_package_keeps_the_hashes_of_all_its_files():
    package = needed(LOCK, Target("3.12", "x86_64"))[0]
    assert package == Locked("always==1.0", frozenset({"aa", "bb"}))
    assert spelled([package]) == "always==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_package_that_is_needed_has_one_version_and_hashes(python, machine):
    for lock in locks(Settings()):
        packages = needed(lock, Target(python, machine))
        names = [package.pin.partition("==")[0] for package in packages]
        assert len(names) == len(set(names))
        assert all(package.digests for package in packages)


def test_what_is_typed_is_a_host_that_there_is():
    assert target("3.12", "arm64") == Target("3.12", "aarch64")
    with pytest.raises(Exit, match=r"--python 3\.9 is none of a host's"):
        target("3.9", "x86_64")
    with pytest.raises(Exit, match="--platform sparc is unknown"):
        target("3.12", "sparc")
