"""Make the base image that rehearsal hosts are copied from: a Debian as a cloud would ship it."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from invoke.exceptions import Exit

from tasks.rehearsal import borrowed, processes
from tasks.rehearsal.trees import alone, clear, room

Say = Callable[[str], None]

SUITES = ("bookworm", "trixie")

# What the image of a cloud surely has. Not nginx, git or python3-venv: `install` has to bring them.
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "sudo",
    "python3",
    "iproute2",
    "ca-certificates",
    "curl",
)

# Timers would take the apt lock at random; the rest has no meaning without hardware or a console.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
)

FINISH = """\
useradd --uid 1000 --shell /bin/bash --create-home --groups adm,sudo ubuntu
chmod 0750 /home/ubuntu
install -d -m 0700 -o ubuntu -g ubuntu /home/ubuntu/.ssh
echo 'ubuntu ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/90-cloud-init-users
chmod 0440 /etc/sudoers.d/90-cloud-init-users
echo LANG=C.UTF-8 >/etc/default/locale
systemctl --quiet enable systemd-networkd.service ssh.service
update-ca-certificates >/dev/null 2>&1
apt-get clean
# Documentation is half of the files that each host costs to copy.
rm -rf /usr/share/doc/* /usr/share/info/* /usr/share/locale/* /usr/share/man/*
rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* /var/log/bootstrap.log
: >/etc/machine-id
"""

NEEDED = 3 * 1024**3

CERTIFICATES = "usr/local/share/ca-certificates"


def base(images: Path, suite: str, say: Say) -> Path:
    """Tell where the base image of a suite is; make it first when it is not there.

    It gets its name only when it is whole, so an interrupted one is never taken for a good one.
    Raises Exit when debootstrap fails or the disk is too full.
    """
    private = private_certificates()
    whole = images / f"{suite}-{recipe(private)}"
    if whole.is_dir():
        return whole
    with alone(images, say):
        if not whole.is_dir():
            _refuse_a_full_disk(images)
            started = time.monotonic()
            say(f"making the base image of {suite}: about a minute, once on this machine")
            for interrupted in images.glob(f"{suite}-*.partial"):
                processes.end(str(interrupted))
                clear(interrupted)
            partial = images / f"{whole.name}.partial"
            _debootstrap(partial, suite, images / f"{whole.name}.log")
            _finish(partial, private)
            partial.rename(whole)
            say(f"made the base image of {suite} in {time.monotonic() - started:.0f} s")
    return whole


def recipe(private: list[str]) -> str:
    """Name all that goes into a base image: another recipe, another name."""
    parts = (*PACKAGES, *MASKED, FINISH, *private)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def machine_sources(suite: str) -> list[str]:
    """Read the Debian archive's entries from this machine's apt sources, for another suite."""
    places = [Path("/etc/apt/sources.list")]
    for kind in ("*.list", "*.sources"):
        places += sorted(Path("/etc/apt/sources.list.d").glob(kind))
    return borrowed.debian_sources((p.read_text() for p in places if p.is_file()), suite)


def private_certificates() -> list[str]:
    """Read the certificates that this machine trusts beyond its distribution's own."""
    bundle = Path(borrowed.BUNDLE)
    public = Path("/usr/share/ca-certificates").rglob("*.crt")
    if not bundle.is_file():
        return []
    known = "\n".join(certificate.read_text(errors="replace") for certificate in public)
    return borrowed.private_certificates(bundle.read_text(errors="replace"), known)


def _debootstrap(root: Path, suite: str, log: Path) -> None:
    mirror = borrowed.mirror(machine_sources(suite), suite)
    script = Path("/usr/share/debootstrap/scripts") / suite
    words = [
        "debootstrap",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        suite,
        str(root),
    ]
    if not script.exists():  # a debootstrap older than the suite: Debian's recipe is the same
        mirror, script = mirror or _default_mirror(), script.with_name("sid")
        words += [mirror, str(script)]
    elif mirror:
        words += [mirror]
    # In a mount namespace of its own, so that an interruption leaves nothing mounted.
    # DPKG_FORCE (dpkg(1)): an image that is half done is thrown away, so nothing need be synced.
    with log.open("w") as output:
        done = subprocess.run(
            ["unshare", "--mount", *words],
            env=processes.environment(str(root), DPKG_FORCE="unsafe-io", LC_ALL="C.UTF-8"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        last = log.read_text(errors="replace").strip().rpartition("\n")[2]
        raise Exit(
            f"debootstrap could not make the base image of {suite}: {last}. "
            f"Look at {log}, then try again."
        )
    log.unlink()


def _default_mirror() -> str:
    text = Path("/usr/share/debootstrap/functions").read_text()
    return text.partition('DEF_MIRROR="')[2].partition('"')[0]


def _finish(root: Path, private: list[str]) -> None:
    for number, certificate in enumerate(private, 1):
        (root / CERTIFICATES / f"machine-{number}.crt").write_text(f"{certificate}\n")
    for unit in MASKED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    done = subprocess.run(
        ["chroot", str(root), "sh", "-euc", FINISH],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        text=True,
        capture_output=True,
    )
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise Exit(f"The base image could not be finished: {last}. Report this as a bug.")


def _refuse_a_full_disk(images: Path) -> None:
    if room(images) < NEEDED:
        raise Exit(
            f"A rehearsal needs 3 GB of disk and {images} has "
            f"{room(images) / 1024**3:.1f} GB left. Make room, or name another place with "
            "XDG_CACHE_HOME."
        )
