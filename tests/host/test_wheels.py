"""Where a host has its wheels from: its own cache, what was sent, the index; in this order."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import zipfile
from pathlib import Path

import pytest
from host_side import Machine

from tasks.changes.packages import wheels
from tasks.engine.templates import source

FORGET = source("switch.sh")
INSTALL = 'find_uv; install_wheels "$root/tools" "$here/lock.txt" 2>&1 || wheels_failed "nothing"'


@pytest.fixture
def uv(machine: Machine) -> Path:
    """An uv that notes how it is called, and fails but for what it is told to."""
    program = machine.root / "tools/bin/uv"
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/bash\n"
        '[ "$1" = --version ] && exit\n'
        f'echo "$UV_CACHE_DIR $*" >> {shlex.quote(str(machine.folder))}/asked\n'
        f'grep -q -- "$(cat {shlex.quote(str(machine.folder))}/works)" <<< "$*"\n'
    )
    program.chmod(0o755)
    return program


def asked(machine: Machine, works: str, sent: bool = False) -> tuple[list[str], list[str]]:
    """Install while uv works as told; returns which of three ways it was asked to go, and lines."""
    (machine.folder / "works").write_text(works)
    said = machine.change(f"{wheels(sent)}{INSTALL}", **{"lock.txt": "a==1"})
    calls = (machine.folder / "asked").read_text().splitlines()
    cache = machine.home / ".cache/remote-mlflow"
    assert all(call.startswith(f"{cache}/uv pip install ") for call in calls)
    assert all("--require-hashes" in call and "--no-deps" in call for call in calls)
    ways = {"--offline": "cache", f"--no-index --find-links {cache}/wheels": "sent"}
    return [next((ways[way] for way in ways if way in call), "index") for call in calls], said


@pytest.mark.parametrize(
    ("works", "ways"),
    [
        ("--offline", ["cache"]),
        ("--no-index", ["cache", "sent"]),
        ("pip", ["cache"]),
        ("never", ["cache", "sent", "index"]),
    ],
)
def test_what_the_host_has_is_not_fetched_again(machine, uv, works, ways):
    assert asked(machine, works)[0] == ways


@pytest.mark.parametrize("works", ["--no-index", "never"])
def test_where_wheels_were_sent_no_others_are_looked_for(machine, uv, works):
    ways, said = asked(machine, works, sent=True)
    assert ways == ["sent"]
    assert (said[-1] == "@exit 0") == (works != "never")
    if works == "never":
        assert any("Make the wheelhouse anew: ./fab wheelhouse" in line for line in said)


def test_the_cache_is_this_login_s_alone(machine, uv):
    asked(machine, "pip")
    folder = machine.home / ".cache/remote-mlflow"
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "wheels").stat().st_mode & 0o077 == 0


def archives(machine: Machine) -> Path:
    """A cache of two wheels, one of which a release holds."""
    cache = machine.home / ".cache/remote-mlflow/uv/archive-v0"
    for name in ("held", "left"):
        (cache / name).mkdir(parents=True)
        (cache / name / "a.py").write_text(name)
    machine.root.mkdir(exist_ok=True)
    os.link(cache / "held/a.py", machine.root / "a.py")
    (machine.home / ".cache/remote-mlflow/wheels.lock").touch()
    return cache


def test_wheels_that_no_release_holds_go_with_it(machine):
    cache = archives(machine)
    assert machine.change(f"{FORGET}\nforget_wheels")[-1] == "@exit 0"
    assert os.listdir(cache) == ["held"]


def test_wheels_stay_while_another_server_of_the_host_installs(machine):
    cache = archives(machine)
    script = 'flock -s "$HOME/.cache/remote-mlflow/wheels.lock" sleep 5 &\nsleep 0.5\n'
    lines = machine.change(f"{FORGET}\n{script}forget_wheels; kill %1; wait || true")
    assert lines[-1] == "@exit 0"
    assert sorted(os.listdir(cache)) == ["held", "left"]


def test_a_host_without_a_cache_has_nothing_to_forget(machine):
    assert machine.change(f"{FORGET}\nforget_wheels")[-1] == "@exit 0"


def checked(machine: Machine, sums: str) -> list[str]:
    return machine.change(source("check_wheels.sh"), SHA256SUMS=sums)


@pytest.fixture
def sent(machine: Machine) -> Path:
    """Two wheels on the host."""
    wheels = machine.home / ".cache/remote-mlflow/wheels"
    wheels.mkdir(parents=True)
    for name in ("a", "b"):
        (wheels / f"{name}.whl").write_text(name)
    return wheels


def sums_of(**content: str) -> str:
    return "".join(
        f"{hashlib.sha256(text.encode()).hexdigest()}  {name}.whl\n"
        for name, text in content.items()
    )


def test_of_several_wheelhouses_the_host_keeps_the_last(machine, sent):
    assert checked(machine, sums_of(a="a"))[-1] == "@exit 0"
    assert os.listdir(sent) == ["a.whl"]


@pytest.mark.parametrize("wanted", [{"a": "A", "b": "b"}, {"a": "a", "c": "c"}])
def test_wheels_that_are_not_those_that_were_sent_are_not_installed(machine, sent, wanted):
    lines = checked(machine, sums_of(**wanted))
    assert lines[-1] == "@exit 1"
    assert any("are not those that were sent" in line for line in lines)


# -- install_tools.sh: the first uv of a host --------------------------------------------------

# It notes how it is called; to install itself is to put itself in the environment.
UV = """#!/bin/bash
[ "$1" = --version ] && exit
echo "$*" >> "$HOME/asked"
case "$*" in *--no-index*/uv.txt) cp "$0" "$(dirname "$5")/uv" ;; esac
"""


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """The folder that pip takes for its index: in it lies uv's wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    offer(folder, UV)
    return folder


def offer(folder: Path, program: str) -> None:
    """Lay a wheel of uv in a folder."""
    with zipfile.ZipFile(folder / "uv-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("uv-1.data/scripts/uv", program)
        wheel.writestr("uv-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: uv\nVersion: 1\n")
        wheel.writestr("uv-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("uv-1.dist-info/RECORD", "")


def made(machine: Machine, index: Path, sent: bool = False) -> list[str]:
    """Make the tools of a host whose pip knows that index."""
    (machine.home / ".config/pip").mkdir(parents=True, exist_ok=True)
    (machine.home / ".config/pip/pip.conf").write_text(
        f"[global]\nno-index = true\nfind-links = {index}\n"
    )
    digest = hashlib.sha256((index / "uv-1-py3-none-any.whl").read_bytes()).hexdigest()
    lock = f"awscli==1 \\\n    --hash=sha256:{'0' * 64}\nuv==1 \\\n    --hash=sha256:{digest}\n"
    script = f"{wheels(sent)}folder=tools digest=d1\n{source('install_tools.sh')}"
    return machine.change(script, **{"tools.txt": lock})


def kept(machine: Machine) -> Path:
    return machine.home / ".cache/remote-mlflow/wheels/uv-1-py3-none-any.whl"


def test_the_first_uv_of_a_host_is_fetched_by_its_pip_and_installs_itself_and_the_rest(
    machine, index
):
    assert made(machine, index)[-1] == "@exit 0"
    itself, rest = (machine.home / "asked").read_text().splitlines()
    assert "--require-hashes" in itself
    assert itself.endswith("/uv.txt")
    assert rest.endswith("/tools.txt --offline")
    assert (machine.root / "tools/.complete").read_text() == "d1\n"
    assert kept(machine).exists()
    assert not (machine.root / "tools/unpacked").exists()


def test_where_the_disk_did_not_take_it_all_the_tools_are_not_complete(machine, index):
    machine.stub("sync", f'[ "$*" = "-f {machine.root}/tools" ] && exit 1')
    assert made(machine, index)[-1] == "@exit 1"
    assert not (machine.root / "tools/.complete").exists()
    machine.stub("sync", '[ ! -e "$2/.complete" ]')
    assert made(machine, index)[-1] == "@exit 0"


def test_an_uv_that_was_sent_needs_no_pip(machine, index):
    kept(machine).parent.mkdir(parents=True)
    shutil.copy(index / kept(machine).name, kept(machine))
    assert made(machine, index, sent=True)[-1] == "@exit 0"
    assert (machine.root / "tools/bin/uv").exists()


def test_an_uv_that_the_lock_does_not_name_is_never_run(machine, index):
    kept(machine).parent.mkdir(parents=True)
    offer(kept(machine).parent, '#!/bin/bash\ntouch "$HOME/ran"\n')
    lines = made(machine, index, sent=True)
    assert lines[-1] == "@exit 1"
    assert any("Make the wheelhouse anew: ./fab wheelhouse" in line for line in lines)
    assert made(machine, index)[-1] == "@exit 0", "the right one is fetched in its place"
    assert not (machine.home / "ran").exists()


def test_where_uv_does_not_run_the_environment_gets_a_pip(machine, index):
    offer(index, "#!/bin/bash\nexit 1\n")
    lines = made(machine, index)
    assert lines[-1] == "@exit 1", "for no AWS CLI is in that index"
    assert (machine.root / "tools/bin/pip").exists()
