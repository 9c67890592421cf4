"""Locked sets of packages: what of one a host needs, and which files fit it."""

from __future__ import annotations

from invoke import Exit

from tasks.engine.records import dataclass

# What hosts have: the systems that `install` takes, in their own Python (docs/guide.md).
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

MACHINES = ("x86_64", "aarch64")

# The oldest glibc of those systems is Ubuntu 22.04's; wheels for older ones fit as well (PEP 600).
GLIBC = 35


@dataclass(frozen=True)
class Target:
    """The Python (such as 3.12) and the machine (as `uname -m` says it) of a host."""

    python: str
    machine: str

    def __str__(self) -> str:
        return f"Python {self.python} on {self.machine}"

    @property
    def platforms(self) -> list[str]:
        """Name the platforms whose wheels run there, as wheels do."""
        names = [f"manylinux_2_{minor}" for minor in range(GLIBC, 4, -1)]
        return [f"{name}_{self.machine}" for name in (*names, "manylinux2014", "manylinux1")]

    @property
    def markers(self) -> dict[str, str]:
        """Say what the conditions of a lock are asked about (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
            "extra": "",
        }


def target(python: str, platform: str) -> Target:
    """Read what was typed; raises Exit where no host is like that."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform, platform)
    if python not in PYTHONS:
        raise Exit(f"--python {python} is none of a host's. Give one of: {', '.join(PYTHONS)}")
    if machine not in MACHINES:
        raise Exit(f"--platform {platform} is unknown. Give one of: {', '.join(MACHINES)}")
    return Target(python, machine)


@dataclass(frozen=True)
class Locked:
    """One package of a lock, as name==version, and the SHA-256 of the files that it may be."""

    pin: str
    digests: frozenset[str]


def needed(lock: str, wanted: Target) -> list[Locked]:
    """Return the packages of a lock that a host needs."""
    from packaging.requirements import Requirement

    found = []
    for line in lock.replace("\\\n", " ").splitlines():
        text, *hashes = line.partition("#")[0].split("--hash=sha256:")
        if not text.strip():
            continue
        package = Requirement(text)
        if package.marker is None or package.marker.evaluate(wanted.markers):
            digests = frozenset(digest.strip() for digest in hashes)
            found.append(Locked(f"{package.name}{package.specifier}", digests))
    return found


def spelled(packages: list[Locked]) -> str:
    """Spell packages as a lock without conditions."""
    return "".join(
        " \\\n    ".join(
            [each.pin, *(f"--hash=sha256:{digest}" for digest in sorted(each.digests))]
        )
        + "\n"
        for each in packages
    )
