"""Make a copy of the base image one certain host: name, keys, address, way to the network."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

from tasks.rehearsal import borrowed, image

PIP_FILES = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")

RESOLVERS = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")

HOST_KEY = Path("etc/ssh/ssh_host_ed25519_key")


def furnish(root: Path, name: str, near: str) -> None:
    """Write once what makes a copy this host; `near` is the network that needs no proxy."""
    (root / "etc/hostname").write_text(f"{name}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n")
    make_key(root / HOST_KEY, f"root@{name}")
    sources = image.machine_sources(suite(root))
    if sources:
        (root / "etc/apt/sources.list").write_text("".join(f"{line}\n" for line in sources))
    (root / "etc/apt/apt.conf.d/01machine").write_text(borrowed.apt_settings(_apt_dump()))
    private = bool(image.private_certificates())
    pip = borrowed.pip_settings(_texts(*PIP_FILES), os.environ)
    (root / "etc/pip.conf").write_text(borrowed.pip_conf(pip, private))
    environment = borrowed.environment(os.environ, pip, private, near)
    (root / "etc/environment").write_text(environment)
    kept = root / "etc/sudoers.d/91-machine"
    kept.write_text(borrowed.kept_by_sudo(environment))
    kept.chmod(0o440)


def connect(root: Path, address: str, gateway: str) -> None:
    """Give the host its address (with prefix length), its way out and its name servers."""
    (root / "etc/systemd/network/10-host0.network").write_text(network(address, gateway))
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text(borrowed.nameservers(*_texts(*RESOLVERS)))


def network(address: str, gateway: str) -> str:
    """Spell the configuration of the one interface that systemd-nspawn makes."""
    return (
        "[Match]\nName=host0\n\n"
        f"[Network]\nAddress={address}\nGateway={gateway}\n"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )


def admit(root: Path, public_key: str) -> None:
    """Let the holder of a key log in as `ubuntu`."""
    authorized = root / "home/ubuntu/.ssh/authorized_keys"
    keys = authorized.read_text() if authorized.exists() else ""
    if public_key not in keys:
        authorized.write_text(f"{keys}{public_key}\n")
        authorized.chmod(0o600)
        owner = authorized.parent.stat()
        os.chown(authorized, owner.st_uid, owner.st_gid)


def make_key(key: Path, comment: str) -> None:
    """Make an ed25519 key pair without a passphrase."""
    for half in (key, key.with_suffix(".pub")):
        half.unlink(missing_ok=True)
    words = [
        "ssh-keygen",
        "-q",
        "-t",
        "ed25519",
        "-N",
        "",
        "-C",
        comment,
        "-f",
        str(key),
    ]
    subprocess.run(words, check=True)


def public_key(root: Path) -> str:
    """Read the key by which the host is known: type and key, without the comment."""
    return " ".join((root / HOST_KEY.with_suffix(".pub")).read_text().split()[:2])


def suite(root: Path) -> str:
    """Read which release a host is of."""
    for line in (root / "etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    return ""


def answers(address: str) -> bool:
    """Tell whether an SSH server greets at an address."""
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _apt_dump() -> str:
    if not shutil.which("apt-config"):
        return ""
    return subprocess.run(["apt-config", "dump"], text=True, capture_output=True).stdout


def _texts(*names: str) -> list[str]:
    files = (Path(name).expanduser() for name in names)
    return [file.read_text() for file in files if file.is_file()]
