"""Boot a folder as a host with systemd-nspawn, find its first process, cut its power."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

from tasks.rehearsal import processes
from tasks.rehearsal.trees import alone, clear, filesystem, mounted_in, mountinfo

RUN = Path("/run/systemd/nspawn")

# Names the mount as ours, so that no other is ever unmounted.
OUR_MOUNT = "remote-mlflow"

PATIENCE = 5.0

# systemd-nspawn(1): with --keep-unit it leaves with 133 when the host wants to reboot.
KEEP_BOOTING = """\
groups=$1; shift
while
  (
    while [ "$groups" -gt 0 ]; do echo 0 >"$1/cgroup.procs"; shift; groups=$((groups - 1)); done
    while [ "$1" != -- ]; do shift; done; shift
    exec "$@"
  )
  [ $? -eq 133 ]
do :; done
"""


def boot(root: Path, name: str, bridge: str, mark: str, log: Path) -> None:
    """Start the host in a session of its own, and again each time that it reboots.

    Where systemd runs the machine, it gives the host a scope. Elsewhere the host gets control
    groups made here: two of systemd in one group would end each other's services.
    """
    managed = Path("/run/systemd/system").is_dir()
    groups = [] if managed else [group / name for group in own_groups()]
    for group in groups:
        group.mkdir(exist_ok=True)
    words = [
        str(len(groups)),
        *map(str, groups),
        "--",
        *nspawn(root, name, bridge, mark, managed),
    ]
    processes.detach(
        ["sh", "-c", KEEP_BOOTING, name, *words],
        mark,
        log,
        # A host's /tmp lies on its disk; the default here is a tenth of the memory.
        SYSTEMD_NSPAWN_TMPFS_TMP="0",
    )


def nspawn(root: Path, name: str, bridge: str, mark: str, managed: bool) -> list[str]:
    """Spell the command line that boots a folder as a host on a bridge."""
    return [
        "systemd-nspawn",
        f"--directory={root}",
        f"--machine={name}",
        "--boot",
        f"--network-bridge={bridge}",
        "--register=no",
        *([] if managed else ["--keep-unit"]),
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        # For the host's systemd itself, which does not hand it on to its services.
        f"--setenv={processes.MARK}={mark}",
    ]


def leader(mark: str) -> int | None:
    """Find the host's first process, its systemd, as the machine numbers it.

    None also when nspawn is gone: what it leaves then has no way to reboot.
    """
    marked = processes.marked(mark)
    attended = any(process.argv[:1] == ("systemd-nspawn",) for process in marked)
    # What outlives it for a moment, while the host goes down, is not it.
    first = [pid for pid in _inside(marked) if _is_first(pid)]
    return first[0] if first and attended else None


def _is_first(pid: int) -> bool:
    """Tell whether the process has number 1 in its own namespace."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    numbers = re.search(r"^NSpid:(.*)$", status, re.MULTILINE)
    return numbers is not None and numbers[1].split()[-1] == "1"


def cut_power(mark: str) -> None:
    """Stop the host as a power failure would: nothing in it is asked or told."""
    inside = _inside(processes.marked(mark))
    for pid in inside:
        processes.kill(pid)
    # nspawn, and then the shell around it, tidy up and leave by themselves: give them the time.
    processes.end(mark, patience=3 if inside else 0)


def tidy(name: str) -> None:
    """Remove what nspawn, had it been killed, would leave behind for a host."""
    for mount in mounted_in(RUN, mountinfo()):
        if name in mount.parts:
            clear(mount)
    for folder in (RUN / "propagate" / name, RUN / "unix-export" / name):
        clear(folder)
    for top, _ in _hierarchies():
        # Not rglob: it raises where another host's groups vanish under it.
        found = [Path(place) / name for place, groups, _ in os.walk(top) if name in groups]
        for group in found:
            for inner, _, _ in os.walk(group, topdown=False):
                _remove_group(inner)


def prepare() -> None:
    """Give nspawn the tmpfs that it insists on where /run is none."""
    with alone(Path("/run")):
        RUN.mkdir(parents=True, exist_ok=True)
        if filesystem(RUN, mountinfo()) not in ("tmpfs", "ramfs"):
            options = ["-t", "tmpfs", "-o", "mode=0755,nosuid,nodev"]
            subprocess.run(["mount", *options, OUR_MOUNT, str(RUN)], check=True)


def restore() -> None:
    """Take away the tmpfs, if it is the one that was mounted here."""
    for line in mountinfo().splitlines():
        if f" {RUN} " in line and line.partition(" - ")[2].split()[1] == OUR_MOUNT:
            subprocess.run(["umount", "--lazy", str(RUN)], check=True)
            RUN.rmdir()


def own_groups() -> list[Path]:
    """List this process's control groups in the hierarchies that systemd keeps its units in."""
    found = [(top, top / path.lstrip("/")) for top, path in _hierarchies()]
    return [group if group.is_dir() else top for top, group in found]


def group_paths(cgroup: str, mountinfo: str) -> list[tuple[Path, str]]:
    """Pair the mount points of systemd's hierarchies (v2, or v1's named one) with our path there.

    `cgroup` is /proc/self/cgroup, whose lines read ID:CONTROLLERS:PATH.
    """
    paths = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(maxsplit=2)
        if kind == "cgroup2" and "" in paths:
            found.append((Path(left.split()[4]), paths[""]))
        if kind == "cgroup" and "name=systemd" in options.split(","):
            found.append((Path(left.split()[4]), paths["name=systemd"]))
    return found


def _hierarchies() -> list[tuple[Path, str]]:
    return group_paths(Path("/proc/self/cgroup").read_text(), mountinfo())


def _inside(marked: list[processes.Process]) -> list[int]:
    """Return those that live in a host, as the machine numbers them."""
    here = processes.namespace(os.getpid())
    found = [(process.pid, processes.namespace(process.pid)) for process in marked]
    return [pid for pid, namespace in found if namespace not in (None, here)]


def _remove_group(group: str) -> None:
    # A host's first process is gone for others before its children are: wait for those.
    deadline = time.monotonic() + PATIENCE
    while Path(group).is_dir():
        try:
            os.rmdir(group)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
