"""The locked lists: exact, hashed, what their sources ask for, and whole on every platform."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    [ROOT / "requirements.in", ROOT / "files/tools.in", *(ROOT / "files/releases").glob("*.in")]
)
every_list = pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)

PLATFORMS = [
    ("linux", "x86_64"),
    ("linux", "aarch64"),
    ("darwin", "arm64"),
    ("darwin", "x86_64"),
]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


@dataclass(frozen=True)
class Pin:
    name: str
    version: str
    marker: Marker | None
    hashes: tuple[str, ...]
    direct: bool  # asked for by the .in file itself

    def applies(self, python: str, platform: str, machine: str) -> bool:
        return self.marker is None or self.marker.evaluate(
            {
                "python_version": python,
                "python_full_version": f"{python}.0",
                "sys_platform": platform,
                "platform_machine": machine,
                "platform_system": platform.capitalize(),
                "os_name": "posix",
                "platform_python_implementation": "CPython",
                "implementation_name": "cpython",
            }
        )


@cache
def pins(source: Path) -> tuple[Pin, ...]:
    """What the list made from `source` holds; every line that is no pin must be a comment."""
    found = []
    text = source.with_suffix(".txt").read_text().replace("\\\n", " ")
    for block in re.split(r"\n(?=[^\s#])", text)[1:]:
        line, _, annotation = block.partition("\n")
        pin, *hashes = line.split("--hash=")
        requirement = Requirement(pin.strip())
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", line
        found.append(
            Pin(
                canonicalize_name(requirement.name),
                specifier.version,
                requirement.marker,
                tuple(hash.strip() for hash in hashes),
                f"-r {source.relative_to(ROOT)}" in annotation,
            )
        )
    return tuple(found)


def asked(source: Path) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in source.read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def versions(source: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for pin in pins(source):
        found.setdefault(pin.name, set()).add(pin.version)
    return found


@every_list
def test_every_package_is_pinned_with_hashes(source: Path) -> None:
    assert len(pins(source)) > 5
    for pin in pins(source):
        assert pin.hashes, pin.name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", hash) for hash in pin.hashes), pin.name


@every_list
def test_no_list_names_a_host(source: Path) -> None:
    for path in (source, source.with_suffix(".txt")):
        assert not re.search(
            r"://|-index|find-links|trusted-host|\b(localhost|\d+(\.\d+){3})\b",
            "\n".join(line for line in path.read_text().splitlines() if "==" not in line),
        ), path


@every_list
def test_a_list_holds_what_it_was_made_from(source: Path) -> None:
    names = {canonicalize_name(requirement.name) for requirement in asked(source)}
    assert {pin.name for pin in pins(source) if pin.direct} == names
    for requirement in asked(source):
        held = versions(source)[canonicalize_name(requirement.name)]
        assert any(requirement.specifier.contains(version) for version in held), requirement


@every_list
@pytest.mark.parametrize("python", PYTHONS)
def test_a_list_gives_one_version_of_everything_everywhere(source: Path, python: str) -> None:
    for platform, machine in PLATFORMS:
        names = [pin.name for pin in pins(source) if pin.applies(python, platform, machine)]
        assert len(names) == len(set(names)), (platform, machine)
        assert {pin.name for pin in pins(source) if pin.direct} <= set(names), (platform, machine)


def test_the_versions_that_fit_together_are_held() -> None:
    held = versions(ROOT / "requirements.in")
    assert held["fabric"] == {"3.2.3"}
    assert held["invoke"] == {"2.2.1"}  # Fabric 3.2.3 fails with Invoke 3
    assert held["patchwork"] == {"1.0.1"}
    assert held["mlflow"] == held["mlflow-skinny"] == {"3.17.2"}
    needed = "boto3 moto flask mypy pydantic pytest rich ruff scikit-learn six uv".split()
    assert held.keys() >= set(needed)


def test_patchwork_is_pinned_and_not_used_for_it_cannot_be_imported() -> None:
    # Once it can be, README's reason has to be looked at again.
    with pytest.raises(ImportError, match="six"):
        importlib.import_module("patchwork.transfers")


def test_the_install_line_without_dot_fab_stands_in_the_header() -> None:
    header = (ROOT / "requirements.txt").read_text().partition("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "pip install --no-deps -r requirements.txt" in header


def test_a_release_is_named_for_the_mlflow_it_holds() -> None:
    releases = [source for source in SOURCES if source.parent.name == "releases"]
    assert releases
    for source in releases:
        held = versions(source)
        assert held["mlflow"] == {source.stem}
        # Without these mlflow's basic-auth does not start, and PostgreSQL is out of reach.
        assert held.keys() >= {"flask-wtf", "boto3", "psycopg2-binary"}


def test_the_operators_mlflow_has_a_release_for_the_host() -> None:
    (version,) = versions(ROOT / "requirements.in")["mlflow"]
    assert (ROOT / f"files/releases/{version}.txt").exists()


def test_the_hosts_tools_are_uv_and_the_aws_command_line() -> None:
    held = versions(ROOT / "files/tools.in")
    assert held.keys() >= {"uv", "awscli"}
    assert held["uv"] == versions(ROOT / "requirements.in")["uv"]
