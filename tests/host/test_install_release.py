"""What install compiles of a release, with an uv that lays a few modules there."""

from __future__ import annotations

import marshal
import sys
from pathlib import Path

import pytest
from host_side import Machine

from tasks.changes.packages import wheels
from tasks.changes.releases import known, modules, named, shipped
from tasks.engine.settings import TESTED_VERSION
from tasks.engine.templates import source

RELEASE = "3.17.2-0123456789abcdef"
# One module of these is broken, and one is loaded by nothing but MLflow's own.
FILES = {
    "mlflow/__init__.py": "",
    "mlflow/cli.py": "import unlisted",
    "mlflow/server/__init__.py": "",
    "mlflow/server/auth.py": "",
    "uvicorn.py": "",
    "unlisted.py": "",
    "unloaded.py": "",
    "broken.py": "def",
    "argparse.py": "raise SystemExit",  # of a package's that is called like Python's own
}
IMPORTED = FILES.keys() - {"unloaded.py", "broken.py", "argparse.py"}
# Python 3.10 gets other packages, of which nobody saw what is loaded.
ALWAYS = IMPORTED if sys.version_info < (3, 11) else set()
LISTED = "broken.py\ngone.py\nit's.py\nmlflow/cli.py\nuvicorn.py\n"


@pytest.fixture
def release(machine: Machine) -> Path:
    """The folder of a release, which uv makes there."""
    machine.stub("sync", "")
    site = f"lib/python3.{sys.version_info.minor}/site-packages"
    made = "".join(f'echo "{text}" > "$site/{name}"; ' for name, text in FILES.items())
    uv = machine.root / "tools/bin/uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(
        f'#!/bin/bash\nfolder={RELEASE!r}; folder="{machine.root}/releases/$folder"\n'
        f'site="$folder/{site}"\n'
        'case "$1" in\n'
        f'  venv) {sys.executable} -m venv --without-pip "$folder" ;;\n'
        f'  pip) mkdir -p "$site/mlflow/server"; {made} ;;\n'
        "esac\n"
    )
    uv.chmod(0o755)
    return machine.root / "releases" / RELEASE


def compiled(release: Path) -> set[str]:
    """Name what is compiled, by its path in site-packages."""
    (site,) = release.glob("lib/python3*/site-packages")
    found = site.rglob("*.pyc")
    return {
        str(file.parent.parent.relative_to(site) / f"{file.name.split('.')[0]}.py")
        for file in found
    }


def install(machine: Machine, known: str, listed: str = LISTED) -> list[str]:
    script = f"release={RELEASE} known={known}\n{wheels()}{source('install_release.sh')}"
    return machine.change(script, **{"release.txt": "mlflow==3.17.2", "modules.txt": listed})


def test_what_a_server_was_seen_to_load_is_compiled_and_nothing_is_imported(machine, release):
    assert install(machine, "yes")[-1] == "@exit 0"
    assert compiled(release) == {"mlflow/cli.py", "uvicorn.py"} | ALWAYS
    assert (release / ".complete").exists()
    assert Path(f"{release}.txt").read_text() == "mlflow==3.17.2"


def test_an_empty_list_compiles_nothing(machine, release):
    assert install(machine, "yes", "")[-1] == "@exit 0"
    assert compiled(release) == ALWAYS


def test_on_a_full_disk_no_release_is_complete(machine, release):
    machine.stub("df", "echo Filesystem; echo /dev/x 9000000 8990000 10000 99% /")
    said = install(machine, "yes")
    assert "The disk of the host is full. Free 2 GB, then run the same command again." in said[-2]
    assert not (release / ".complete").exists()
    assert not Path(f"{release}.txt").exists()


def test_a_host_without_network_is_told_what_helps_whatever_was_typed(machine, release):
    uv = machine.root / "tools/bin/uv"
    uv.write_text(uv.read_text().replace("  pip) ", "  pip) echo dns error; exit 1; "))
    said = install(machine, "yes")
    # It may be an upgrade: to install would say that there is nothing to do.
    assert "Allow outbound HTTPS, then run the same command again; for a host without" in said[-2]
    assert not (release / ".complete").exists()


def test_where_the_disk_did_not_take_it_all_no_release_is_complete(machine, release):
    machine.stub("sync", f'[ "$*" = "-f {release}" ] && exit 1')
    assert install(machine, "yes")[-1] == "@exit 1"
    assert not (release / ".complete").exists()
    machine.stub("sync", '[ ! -e "$2/.complete" ]')
    assert install(machine, "yes")[-1] == "@exit 0"
    assert (release / ".complete").exists()


def test_of_another_release_what_its_server_imports_is_compiled_as_well(machine, release):
    assert install(machine, "no")[-1] == "@exit 0"
    assert compiled(release) == IMPORTED


def test_a_traceback_names_the_whole_path(machine, release):
    install(machine, "yes")
    (file,) = release.glob("lib/python3*/site-packages/__pycache__/uvicorn.*.pyc")
    code = marshal.loads(file.read_bytes()[16:])
    assert code.co_filename == str(file.parent.parent / "uvicorn.py")


def test_a_release_that_nobody_saw_at_work_takes_the_tested_one_s_list():
    ours = [named(version, str(shipped(version))) for version in (TESTED_VERSION, "3.16.0")]
    assert [known(release) for release in ours] == ["yes", "yes"]
    assert known("3.15.0-abc") == "no"
    assert known(f"{TESTED_VERSION}-abc") == "no", "of other packages"
    assert modules("3.15.0-abc") == modules(f"{TESTED_VERSION}-abc") != modules("3.16.0-abc")


@pytest.mark.parametrize("version", [TESTED_VERSION, "3.16.0"])
def test_a_list_names_files_below_site_packages_in_order(version):
    lines = modules(f"{version}-abc").splitlines()
    assert lines == sorted(set(lines))
    assert {"mlflow/cli/__init__.py", "mlflow/server/auth/__init__.py", "uvicorn/main.py"} <= set(
        lines
    )
    for line in lines:
        assert line.endswith(".py")
        assert not line.startswith("/")
        assert ".." not in line
        assert not set(line) & set(" '\"\\")
