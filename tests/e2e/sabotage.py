"""MLflow releases that fail at one certain step of an upgrade.

Each is the newer release under a version of its own, laid on the host as `upgrade` would install
it, with one of its files changed. It fails as it is rehearsed, or only later, in earnest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab import ROOT, UNIT
from older import NEWER, PROGRAMS, Older

from tasks.engine.change import digest

VERSION = "3.99.0"
LACKING = f"mlflow=={VERSION} \\\n    --hash=sha256:{'0' * 64}\n"  # a lock that cannot be installed
# Appended to a module: the rehearsal makes the first call, the upgrade in earnest the second.
COUNTED = """

def _made_to_fail():
    import os, sys
    with open(os.path.join(sys.prefix, "calls"), "a") as stream:
        stream.write(".")
        return stream.tell() >= CALL
"""
FAULTS = {
    "migration": (
        "store/db/utils.py",
        """
_released = _upgrade_db
def _upgrade_db(engine):
    if _made_to_fail():
        raise RuntimeError("made to fail")
    _released(engine)
""",
    ),
    "check": (
        "store/tracking/sqlalchemy_store.py",
        """
_released = SqlAlchemyStore.get_run
def _get_run(self, run_id):
    if _made_to_fail():
        raise RuntimeError("made to fail")
    return _released(self, run_id)
SqlAlchemyStore.get_run = _get_run
""",
    ),
    "disk": (
        "store/db/utils.py",
        f"""
_released = _upgrade_db
def _upgrade_db(engine):
    if _made_to_fail():
        import os
        disk = os.statvfs("{ROOT}")
        with open("{ROOT}/ballast", "w") as stream:
            os.posix_fallocate(stream.fileno(), 0, disk.f_bavail * disk.f_bsize)
    _released(engine)
""",
    ),
}
APPEND = """
import glob, os, sys
(path,) = glob.glob(sys.argv[1])
text = open(path).read()
os.remove(path)  # uv links the files of all environments to those in its cache
open(path, "w").write(text + sys.stdin.read())
"""
# In the place of the release's Python, which the server is started by, and which takes itself for
# this: the trial on the side starts one more of what it runs in.
START = """#!/bin/bash
case "$*" in
  *"mlflow server"*) if {when}; then echo "Error: made to fail" >&2; exit 1; fi ;;
esac
exec -a "$0" "$0.released" "$@"
"""


@contextmanager
def release(older: Older, fault: str, rehearsed: bool) -> Iterator[str]:
    """Lay out a release that fails; gives its version, for `upgrade --to`."""
    locks = older.host.lab.clone / "files/releases"
    lock = LACKING
    if fault != "install":
        lock = (locks / f"{NEWER}.txt").read_text() + f"# fails: {fault}, {rehearsed}\n"
    (locks / f"{VERSION}.txt").write_text(lock)
    name = f"{VERSION}-{digest(lock)}"
    try:
        if fault != "install":
            install(older, name, lock)
            spoil(older, f"{ROOT}/releases/{name}", fault, rehearsed)
        yield VERSION
    finally:
        (locks / f"{VERSION}.txt").unlink()
        older.host.run(f"rm -rf {ROOT}/releases/{name}")


def install(older: Older, name: str, lock: str) -> None:
    """Make an environment by the project's own means."""
    older.as_user(
        "bash",
        "-c",
        f"mkdir -p /tmp/lock; cp {PROGRAMS}/variables.sh /tmp/lock; cat > /tmp/lock/release.txt; "
        "touch /tmp/lock/modules.txt",
        stdin=lock,
    )
    # By SSH: only a login's environment says how the package index is reached.
    steps = "; ".join(f". {PROGRAMS}/{word}.sh" for word in ("words", "wheels", "install_release"))
    older.host.ssh(f"here=/tmp/lock root={ROOT} release={name} known=no sent=no; {steps}")


def spoil(older: Older, folder: str, fault: str, rehearsed: bool) -> None:
    """Change one file of an environment."""
    if fault == "start":
        # On the side it listens at a socket of its own; in earnest its standard input is one.
        when = "true" if rehearsed else "[ -S /dev/stdin ]"
        program = f"{folder}/bin/python"
        script = f"mv {program} {program}.released; cat > {program}; chmod 0755 {program}"
        older.as_user("bash", "-c", script, stdin=START.format(when=when))
        return
    module, code = FAULTS[fault]
    path = f"{folder}/lib/python3*/site-packages/mlflow/{module}"
    counted = COUNTED.replace("CALL", "1" if rehearsed else "2")
    older.as_user("python3", "-c", APPEND, path, stdin=counted + code)


@contextmanager
def small_disk(older: Older, megabytes: int) -> Iterator[None]:
    """Have all of the server's folder but its environments on a small disk of its own."""
    run = older.host.run
    try:
        run(
            f"systemctl stop {UNIT}.socket {UNIT}.service; mount --bind {ROOT} /mnt; "
            # Or the small disk would lie over it as well.
            "mount --make-private /mnt; "
            f"mount -t tmpfs -o size={megabytes}m,mode=0700,uid=$(id -u ubuntu),"
            f"gid=$(id -g ubuntu) small {ROOT}; "
            f"cd /mnt; cp -a $(ls -A | grep -vxE 'releases|tools') {ROOT}/; "
            f"for name in releases tools; do install -d -o ubuntu -g ubuntu {ROOT}/$name; "
            f"mount --bind /mnt/$name {ROOT}/$name; done; "
            f"systemctl start {UNIT}.socket {UNIT}.service"
        )
        older.serves()
        yield
    finally:
        run(
            f"systemctl stop {UNIT}.socket {UNIT}.service; "
            f"umount {ROOT}/releases {ROOT}/tools {ROOT} /mnt"
        )
