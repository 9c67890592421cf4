"""./fab, run with stand-ins for Python and uv on a PATH of its own: no network, no real install."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from fabric.main import program

ROOT = Path(__file__).resolve().parent.parent

# All that ./fab may call beside Python and uv: there on every Linux and on macOS.
TOOLS = "awk bash cat cmp cp dirname env grep ln mkdir mv readlink rm sleep tail touch".split()

# A Python, an environment's Python, or uv, by the name it is called by. What it was asked to
# install stands in $CALLS; FAKE_… variables say what is wrong with it.
STAND_IN = f"""#!/usr/bin/env bash
set -eu
make_environment() {{
  mkdir -p "$1/bin"
  cp "$0" "$1/bin/python"
}}
case "${{0##*/}} $*" in
  *uv\\ venv*)
    make_environment "${{!#}}"
    ;;
  *uv\\ pip*)
    printf 'uv: %s\\n' "$*" >>"$CALLS"
    printf 'PIP_TARGET=%s\\n' "${{PIP_TARGET-none}}" >>"$CALLS"
    touch "$CALLS.started"
    sleep "${{FAKE_SLEEP:-0}}"
    if [[ -n ${{FAKE_UV_ERROR:-}} ]]; then echo "$FAKE_UV_ERROR" >&2; exit 2; fi
    ;;
  *uv\\ *) exit 2 ;;
  *"import os, sys"*)
    version=FAKE_VERSION_${{0##*[!0-9.]}}
    version=${{version//./_}}
    version=${{!version:-${{FAKE_VERSION:-3.11}}}}
    if [[ $version == none ]]; then exit 127; fi
    printf '%s %s\\n' "$version" "$0"
    ;;
  *"import ensurepip, venv"*)
    if [[ -n ${{FAKE_NO_VENV:-}} ]]; then exit 1; fi
    ;;
  *-m\\ venv*)
    printf 'venv by %s\\n' "${{0##*/}}" >>"$CALLS"
    make_environment "$3"
    ;;
  *-m\\ pip*)
    printf 'pip: %s\\n' "$*" >>"$CALLS"
    if [[ -n ${{FAKE_PIP_ERROR:-}} ]]; then echo "$FAKE_PIP_ERROR" >&2; exit 1; fi
    case "$*" in
      *uv.txt) cp "$0" "${{0%/*}}/uv" ;;
    esac
    ;;
  *import\\ fcntl*) exec {sys.executable} "$@" ;;
  *)
    printf 'cwd %s\\n' "$PWD"
    printf 'PYTHONPATH %s\\n' "${{PYTHONPATH-none}}"
    printf 'VALUE %s\\n' "${{PIP_TARGET-none}}"
    printf '<%s>\\n' "$@"
    ;;
esac
"""


@dataclass
class Checkout:
    """A clone with nothing installed, and the little that its machine has."""

    place: Path
    path: Path  # the only folder on PATH
    calls: Path

    @property
    def stamp(self) -> Path:
        return self.place / ".venv/requirements.txt"

    def has(self, *names: str) -> None:
        for name in names:
            (self.path / name).write_text(STAND_IN)
            (self.path / name).chmod(0o755)

    def environ(self, **variables: str) -> dict[str, str]:
        base = {"PATH": str(self.path), "HOME": str(self.place.parent), "CALLS": str(self.calls)}
        return {**base, **variables}

    def start(
        self,
        *arguments: str,
        command: str | Path | None = None,
        cwd: Path | None = None,
        **variables: str,
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [command or self.place / "fab", *arguments],
            cwd=cwd or self.place.parent,
            env=self.environ(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def fab(
        self,
        *arguments: str,
        command: str | Path | None = None,
        cwd: Path | None = None,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, command=command, cwd=cwd, **variables)
        stdout, stderr = process.communicate(timeout=20)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def installs(self) -> int:
        """How often an installer was asked for the whole list."""
        if not self.calls.exists():
            return 0
        return sum(
            line.endswith("requirements.new") for line in self.calls.read_text().splitlines()
        )


def clone(folder: Path) -> Checkout:
    """Make one in a folder with a space in its name, as is the home folder above it."""
    place = folder / "a home" / "a checkout"
    place.mkdir(parents=True)
    shutil.copy(ROOT / "fab", place / "fab")
    (place / "requirements.txt").write_text(
        "# header\nfabric==3.2.3 \\\n    --hash=sha256:f\nuv==1.0 \\\n    --hash=sha256:1\n"
        "    # via -r requirements.in\nwrapt==2.0 \\\n    --hash=sha256:2\n"
    )
    path = folder / "bin"
    path.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (path / tool).symlink_to(found)
    return Checkout(place, path, folder / "calls")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return clone(tmp_path)


@pytest.fixture
def ready(checkout: Checkout) -> Checkout:
    checkout.has("python3", "uv")
    assert checkout.fab().returncode == 0
    return checkout


def words(stdout: str) -> list[str]:
    """What Fabric was given after the script's own name and the search root."""
    given = [line[1:-1] for line in stdout.splitlines() if line.startswith("<")]
    assert given[0].endswith(("/fabfile.py", "/.venv/bin/fab"))
    return given[1:]


def test_every_argument_reaches_fabric_as_it_was_typed(ready: Checkout) -> None:
    typed = ["-H", "a,b", "status", "", "two words", "*", "--json", "$HOME", '"', "--", "x"]
    result = ready.fab(*typed)
    assert words(result.stdout) == ["--search-root", str(ready.place), *typed]


def test_the_callers_working_directory_is_kept(ready: Checkout, tmp_path: Path) -> None:
    for cwd in (tmp_path, ready.place, Path("/")):
        assert f"cwd {cwd}\n" in ready.fab("status", cwd=cwd).stdout


def test_a_relative_call_finds_its_checkout(ready: Checkout) -> None:
    calls = (
        (ready.place, "./fab"),
        (ready.place / ".venv", "../fab"),
        (ready.place.parent, "a checkout/fab"),
    )
    for cwd, command in calls:
        result = ready.fab(command=command, cwd=cwd, CDPATH="/tmp:/")
        assert words(result.stdout) == ["--search-root", str(ready.place)]


def test_a_link_to_fab_finds_its_checkout(ready: Checkout, tmp_path: Path) -> None:
    absolute, relative = tmp_path / "absolute", tmp_path / "a home" / "relative"
    absolute.symlink_to(ready.place / "fab")
    relative.symlink_to("a checkout/fab")
    (tmp_path / "chain").symlink_to("a home/relative")
    for link in (absolute, relative, tmp_path / "chain"):
        result = ready.fab(command=link, cwd=Path("/"))
        assert words(result.stdout) == ["--search-root", str(ready.place)]


def test_only_the_first_call_prepares_and_says_so_in_one_line(checkout: Checkout) -> None:
    checkout.has("python3", "uv")
    first, second = checkout.fab("--list"), checkout.fab("--list")
    assert first.stderr.startswith("Preparing the environment (first use, about a minute)… done in")
    assert first.stderr.count("\n") == 1
    assert second.stderr == ""
    assert first.stdout == second.stdout
    assert checkout.installs() == 1


def test_what_is_installed_is_the_list_alone_and_checked_by_hash(ready: Checkout) -> None:
    call = ready.calls.read_text().splitlines()[0]
    assert call.startswith("uv: pip install")
    assert "--no-deps --require-hashes" in call
    assert ready.stamp.read_bytes() == (ready.place / "requirements.txt").read_bytes()


def test_a_changed_list_makes_the_environment_anew(ready: Checkout) -> None:
    (ready.place / ".venv/left over").touch()
    with (ready.place / "requirements.txt").open("a") as file:
        file.write("# another line\n")
    result = ready.fab()
    assert "anew (requirements.txt has changed)" in result.stderr
    assert ready.installs() == 2
    assert not (ready.place / ".venv/left over").exists()
    assert ready.fab().stderr == ""


def test_a_moved_or_copied_checkout_gets_its_own_environment(ready: Checkout) -> None:
    copy = ready.place.with_name("a copy")
    shutil.copytree(ready.place, copy, symlinks=True)
    result = ready.fab(command=copy / "fab")
    assert "anew (this folder was moved or copied)" in result.stderr
    assert words(result.stdout) == ["--search-root", str(copy)]


def test_an_environment_whose_python_has_gone_is_made_anew(ready: Checkout) -> None:
    python = ready.place / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    result = ready.fab()
    assert (result.returncode, "anew (its Python is gone)" in result.stderr) == (0, True)
    assert ready.installs() == 2


def test_the_former_environments_uv_makes_the_next(ready: Checkout) -> None:
    shutil.move(ready.path / "uv", ready.place / ".venv/bin/uv")
    ready.stamp.write_text("an older list")
    assert ready.fab(FAKE_NO_VENV="1").returncode == 0
    assert ready.installs() == 2
    assert sorted(path.name for path in ready.place.iterdir()) == [
        ".venv",
        "fab",
        "requirements.txt",
    ]


def test_without_uv_pip_fetches_the_pinned_one(checkout: Checkout) -> None:
    checkout.has("python3")
    assert checkout.fab().returncode == 0
    calls = checkout.calls.read_text()
    assert "pip: -m pip install" in calls
    assert "uv: pip install" in calls
    assert checkout.installs() == 1
    assert (checkout.place / ".venv/uv.txt").read_text() == (
        "uv==1.0 \\\n    --hash=sha256:1\n    # via -r requirements.in\n"
    )


def test_pip_does_what_uv_cannot(checkout: Checkout) -> None:
    checkout.has("python3", "uv")
    assert checkout.fab(FAKE_UV_ERROR="invalid peer certificate").returncode == 0
    last = checkout.calls.read_text().splitlines()[-1]
    assert last.startswith("pip: ")
    assert "--no-deps --require-hashes" in last
    assert last.endswith("requirements.new")


def test_a_failed_install_is_shown_and_never_taken_for_a_good_one(checkout: Checkout) -> None:
    checkout.has("python3", "uv")
    broken = {"FAKE_UV_ERROR": "No space left on device", "FAKE_PIP_ERROR": "hashes differ"}
    for _ in range(2):
        result = checkout.fab(**broken)
        assert result.returncode == 1
        assert result.stdout == ""
        assert "No space left on device\n" in result.stderr
        assert "hashes differ\n" in result.stderr
        last = result.stderr.splitlines()[-1]
        assert last.startswith("fab: fix what the lines above name, then run ./fab again")
        assert str(checkout.place / ".venv.log") in last
        assert not checkout.stamp.exists()
    assert checkout.fab().returncode == 0
    assert not (checkout.place / ".venv.log").exists()


@pytest.mark.parametrize(
    "error",
    [
        "  cause: dns error",
        "Failed to establish a new connection: [Errno 111]",
        "Temporary failure in name resolution",
        "invalid peer certificate: UnknownIssuer",
    ],
)
def test_a_network_that_fails_is_named(checkout: Checkout, error: str) -> None:
    checkout.has("python3", "uv")
    result = checkout.fab(FAKE_UV_ERROR=error, FAKE_PIP_ERROR="WARNING: Retrying\nno uv found")
    assert result.returncode == 1
    assert "Retrying" not in result.stderr
    assert "the package index could not be reached" in result.stderr.splitlines()[-1]


def test_an_interrupted_install_is_begun_again(checkout: Checkout) -> None:
    checkout.has("python3", "uv")
    process = checkout.start(FAKE_SLEEP="30")
    started = Path(f"{checkout.calls}.started")
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not checkout.stamp.exists()
    result = checkout.fab()
    assert result.returncode == 0
    assert "first use" in result.stderr
    assert checkout.installs() == 2


def test_of_two_first_calls_at_once_one_installs_and_one_waits(checkout: Checkout) -> None:
    checkout.has("python3", "uv")
    both = [checkout.start("--list", FAKE_SLEEP="0.2") for _ in range(2)]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert outputs[0][0] == outputs[1][0]
    assert sorted(stderr.split()[0] for _, stderr in outputs) == ["Preparing", "Waiting"]
    assert checkout.installs() == 1


def test_a_python_that_is_too_old_is_named_with_the_way_out(checkout: Checkout) -> None:
    checkout.has("python3")
    result = checkout.fab(FAKE_VERSION="3.9")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "needs Python 3.10 or newer and found Python 3.9 (python3)" in result.stderr
    assert "apt-get install python3 python3-venv" in result.stderr


def test_no_python_at_all_is_said(checkout: Checkout) -> None:
    result = checkout.fab()
    assert result.returncode == 1
    assert "found no python3 on PATH" in result.stderr


def test_a_newer_python_beside_an_old_python3_is_used(checkout: Checkout) -> None:
    # 3.13 is a stand-in without a Python behind it, as pyenv leaves them.
    checkout.has("python3", "python3.13", "python3.12", "python3.10")
    versions = {"FAKE_VERSION_3": "3.9", "FAKE_VERSION_3_13": "none", "FAKE_VERSION_3_12": "3.12"}
    assert checkout.fab(**versions).returncode == 0
    assert "venv by python3.12\n" in checkout.calls.read_text()


def test_a_missing_venv_module_is_named_with_its_package(checkout: Checkout) -> None:
    checkout.has("python3")
    result = checkout.fab(FAKE_NO_VENV="1")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "has no venv module" in result.stderr
    assert "apt-get install python3-venv" in result.stderr


def test_uv_needs_no_venv_module(checkout: Checkout) -> None:
    checkout.has("python3", "uv")
    assert checkout.fab(FAKE_NO_VENV="1").returncode == 0


def test_a_folder_that_cannot_be_written_is_named() -> None:
    # Not below pytest's own folder, which is closed to other users; root becomes one here.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        checkout = clone(Path(folder))
        checkout.has("python3", "uv")
        checkout.place.chmod(0o555)
        result = subprocess.run(
            [checkout.place / "fab"],
            env=checkout.environ(),
            user="nobody" if os.geteuid() == 0 else None,
            capture_output=True,
            text=True,
        )
        checkout.place.chmod(0o755)
    assert result.returncode == 1
    assert "cannot write to" in result.stderr


def test_foreign_modules_and_settings_stay_out(checkout: Checkout) -> None:
    checkout.has("python3", "uv")
    result = checkout.fab(PYTHONPATH="/other", PYTHONHOME="/nowhere", PIP_TARGET="/elsewhere")
    assert "PYTHONPATH none\n" in result.stdout
    assert "PIP_TARGET=none\n" in checkout.calls.read_text()
    # The operator's own programs, started by a task, see what the operator set.
    assert "VALUE /elsewhere\n" in result.stdout


def test_the_callers_search_root_wins(ready: Checkout) -> None:
    theirs = [
        "-r elsewhere status",
        "-relsewhere status",
        "-er elsewhere status",
        "--search-root elsewhere --list",
        "--search-root=elsewhere --list",
        "-H ec2 -r elsewhere status",
        "--hosts=ec2 -e --search-root elsewhere",
    ]
    # Words that only look like it: a task's own option, and another option's value.
    ours = [
        "restore -r x",
        "-H ec2 restore --search-root x",
        "--hosts -r status",
        "-H -r status",
    ]
    for line in theirs + ours:
        expected = [] if line in theirs else ["--search-root", str(ready.place)]
        shown = ready.fab(*line.split()).stdout
        assert words(shown) == [*expected, *line.split()], line
        # Another's tasks are run by Fabric's own program.
        program = "/fabfile.py" if expected else "/.venv/bin/fab"
        assert f"{program}>\n" in shown, line


def test_every_option_of_fabric_that_takes_a_value_is_known() -> None:
    script = (ROOT / "fab").read_text()
    short = script.split("-[cD", 1)[1].split("]", 1)[0]
    for argument in program.core_args():
        if not argument.takes_value or argument.optional or "search-root" in argument.names:
            continue
        for name in argument.names:
            if len(name) == 1:
                assert name in f"cD{short}", name
            else:
                assert f"--{name}" in script, name


def test_a_later_call_adds_less_than_50_ms(ready: Checkout) -> None:
    """Measured: 6 ms. The least of several calls, as other tests run at the same time."""

    def fastest(*command: str | Path) -> float:
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(command, env=ready.environ(), stdout=subprocess.DEVNULL, check=True)
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    python, fab = ready.place / ".venv/bin/python", ready.place / ".venv/bin/fab"
    assert fastest(ready.place / "fab", "x") - fastest(python, fab, "x") < 0.050


def test_plain_fab_and_dot_fab_print_the_same(tmp_path: Path) -> None:
    """With the real Fabric, of the environment that runs the tests, and the real tasks."""
    for name in (
        "fab",
        "fabfile.py",
        "fabric.yaml",
        "tasks",
        "files",
        "requirements.txt",
        "README.md",
    ):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    # A copy: ./fab looks for .venv beside itself, beyond links.
    (tmp_path / "fab").unlink()
    shutil.copy(ROOT / "fab", tmp_path / "fab")
    scripts = tmp_path / ".venv/bin"
    scripts.mkdir(parents=True)
    (scripts / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (scripts / "python").chmod(0o755)
    plain = Path(sys.executable).with_name("fab")
    (scripts / "fab").symlink_to(plain)
    shutil.copy(ROOT / "requirements.txt", tmp_path / ".venv/requirements.txt")
    (tmp_path / ".venv/made-in").write_text(f"{tmp_path.resolve()}\n")

    def run(*command: str | Path, cwd: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    by_itself = run(sys.executable, plain, "--list", cwd=tmp_path)
    by_script = run(tmp_path / "fab", "--list", cwd=Path("/"))
    expected, given = by_itself.communicate(), by_script.communicate()
    assert by_itself.returncode == 0, expected[1]
    assert given == expected
    assert "install" in expected[0]
