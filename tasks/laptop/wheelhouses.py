"""A folder of wheels for a host without a network: made here, looked through, and sent."""

from __future__ import annotations

import hashlib
import json as serialised
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.change import packed
from tasks.engine.locks import Locked, Target, needed, spelled
from tasks.engine.paths import shown
from tasks.engine.records import dataclass
from tasks.engine.shell import sh
from tasks.engine.templates import source
from tasks.engine.typed import here

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tasks.engine.server import Server

MANIFEST = "manifest.json"

SENT = 32 << 20  # bytes that are sent at once, and held in memory

SEND_TIMEOUT = 1800  # seconds for these; a slow line takes half a minute for a megabyte


@dataclass(frozen=True)
class Wheelhouse:
    """A folder of wheels: for which release and host, and the SHA-256 of each file.

    `environment` is the one that it was made for, whose settings name the release.
    """

    folder: Path
    release: str
    target: Target
    digests: Mapping[str, str]
    environment: str | None = None

    @property
    def remake(self) -> str:
        """Spell what makes it anew."""
        return self.making(self.target)

    def making(self, target: Target) -> str:
        """Spell what makes one in its folder for a host."""
        words = ("--python", target.python, "--platform", target.machine)
        return here(self.environment, "wheelhouse", "--to", sh(str(self.folder)), *words)


# -- making one --------------------------------------------------------------------------------


def fetch(wanted: Wheelhouse, locks: Sequence[str]) -> Wheelhouse:
    """Fetch what locks name for a wheelhouse's host; whatever else is a wheel in the folder goes.

    Files that are there already are kept. Raises Exit where one cannot be had.
    """
    folder, target = wanted.folder, wanted.target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    packages = [needed(lock, target) for lock in locks]
    known = {digest for each in packages for package in each for digest in package.digests}
    # pip trusts a file that bears the right name, and fetches none that bears another.
    forget_others(folder, known)
    for each in packages:
        download(folder, target, each)
    forget_others(folder, known)
    digests = {path.name: digest_of(path) for path in sorted(folder.glob("*.whl"))}
    made = replace(wanted, digests=digests)
    refuse_lacking(made, [package for each in packages for package in each])
    (folder / f"{MANIFEST}.part").write_text(manifest(made))
    (folder / f"{MANIFEST}.part").rename(folder / MANIFEST)
    return made


def forget_others(folder: Path, known: set[str]) -> None:
    """Remove the wheels whose SHA-256 is not known."""
    for path in folder.glob("*.whl"):
        if digest_of(path) not in known:
            path.unlink()


def manifest(wheels: Wheelhouse) -> str:
    """Spell what a wheelhouse is."""
    about = {
        "release": wheels.release,
        "environment": wheels.environment,
        "python": wheels.target.python,
        "machine": wheels.target.machine,
        "files": wheels.digests,
    }
    return serialised.dumps(about, indent=1) + "\n"


def download(folder: Path, target: Target, packages: list[Locked]) -> None:
    """Have pip fetch the wheels that fit a host; it compares each with its hash."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as lock:
        lock.write(spelled(packages))
        lock.flush()
        platforms = [word for name in target.platforms for word in ("--platform", name)]
        done = subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet",
                "--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(folder),
                "--implementation", "cp", "--python-version", target.python, *platforms,
                "--requirement", lock.name,
            ],
            capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        why = (lines or done.stderr.splitlines() or ["pip said nothing"])[-1]
        raise Exit(f"The wheels cannot be fetched: {why.removeprefix('ERROR: ').rstrip('.')}.")


# -- looking one through -----------------------------------------------------------------------


def read(folder: Path) -> Wheelhouse:
    """Return a wheelhouse whose files are what its manifest says; raises Exit for any other."""
    try:
        about = serialised.loads((folder / MANIFEST).read_bytes())
        target = Target(str(about["python"]), str(about["machine"]))
        digests = {str(name): str(digest) for name, digest in about["files"].items()}
        environment = about["environment"] and str(about["environment"])
        found = Wheelhouse(folder, str(about["release"]), target, digests, environment)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise Exit(
            f"There is no whole wheelhouse in {shown(folder)}. "
            f"Make one: ./fab wheelhouse --to {sh(str(folder))}"
        ) from None
    for name, digest in digests.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise Exit(f"{shown(folder)} lacks {name}. Make it anew: {found.remake}")
        if digest_of(path) != digest:
            raise Exit(
                f"{shown(path)} is not the file that was fetched (SHA-256). "
                f"Make it anew: {found.remake}"
            )
    return found


def refuse_other(wheels: Wheelhouse, release: str, locks: Sequence[str]) -> None:
    """Raise Exit where a wheelhouse is another release's, or holds what no lock names."""
    if wheels.release != release:
        raise Exit(
            f"{shown(wheels.folder)} is for MLflow {wheels.release}, and the settings say "
            f"{release}. Make it anew: {wheels.remake}"
        )
    packages = [package for lock in locks for package in needed(lock, wheels.target)]
    refuse_lacking(wheels, packages)
    known = {digest for package in packages for digest in package.digests}
    for name, digest in wheels.digests.items():
        if digest not in known:
            raise Exit(f"{name} is in no lock of MLflow {release}. Make it anew: {wheels.remake}")


def refuse_lacking(wheels: Wheelhouse, packages: Sequence[Locked]) -> None:
    """Raise Exit where a wheelhouse lacks a package."""
    there = frozenset(wheels.digests.values())
    lacking = [package.pin for package in packages if not package.digests & there]
    if lacking:
        raise Exit(
            f"{shown(wheels.folder)} lacks {', '.join(lacking[:3])}. Make it anew: {wheels.remake}"
        )


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


# -- sending one -------------------------------------------------------------------------------


def send(server: Server, wheels: Wheelhouse) -> int:
    """Send the files that a host lacks, by their hashes; return how many.

    The host compares each before it gets its name.
    """
    there = set(server.read(sh("bash", "-c", source("list_wheels.sh"))).split())
    missing = [name for name, digest in wheels.digests.items() if digest not in there]
    if missing:
        size = sum((wheels.folder / name).stat().st_size for name in missing)
        server.say(f"send {len(missing)} wheels ({size / 1e6:.0f} MB)")
    take = sh("bash", "-c", source("take_wheels.sh"))
    for names in portions(wheels.folder, missing):
        sums = "".join(f"{wheels.digests[name]}  {name}\n" for name in names)
        files = {name: (wheels.folder / name).read_bytes() for name in names}
        server.run(take, input=packed({**files, "SHA256SUMS": sums}), timeout=SEND_TIMEOUT)
    return len(missing)


def portions(folder: Path, names: Sequence[str]) -> Iterator[list[str]]:
    """Split files into portions that are sent at once; the largest may be one alone."""
    portion: list[str] = []
    size = 0
    for name in names:
        bytes = (folder / name).stat().st_size
        if portion and size + bytes > SENT:
            yield portion
            portion, size = [], 0
        portion.append(name)
        size += bytes
    if portion:
        yield portion
