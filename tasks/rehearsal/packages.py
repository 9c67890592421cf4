"""The Debian packages that this machine needs to make and run a rehearsal host."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from invoke.exceptions import Exit

from tasks.rehearsal.processes import last_line

# The program that is looked for, and the Debian package that brings it.
PROGRAMS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh-keygen": "openssh-client",
}

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def missing() -> list[str]:
    """List the Debian packages that this machine still needs to make and run a host."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin"
    missing = [package for name, package in PROGRAMS.items() if not shutil.which(name, path=path)]
    return missing if KEYRING.exists() else [*missing, KEYRING.stem]


def install(packages: list[str]) -> None:
    """Install Debian packages on this machine; refresh the package lists only if that fails."""
    words = [
        "apt-get",
        "--yes",
        "--no-install-recommends",
        "-o",
        "DPkg::Lock::Timeout=300",
    ]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for step in (["install", *packages], ["update"], ["install", *packages]):
        done = subprocess.run([*words, *step], env=environment, text=True, capture_output=True)
        if step[0] == "install" and done.returncode == 0:
            return
    raise Exit(
        f"apt-get could not install {' '.join(packages)}: {last_line(done.stderr)}. "
        "Install them yourself, then try again."
    )
