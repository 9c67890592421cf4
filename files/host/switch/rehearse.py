"""Rehearse on a copy of the databases what another MLflow release will do with them.

Runs on the host in that release's environment, while the server runs. Reports {"migrated": [names],
"seconds": n}; where a database had to be migrated, it leaves the file that `migrates` names.
"""

import dataclasses
import os
import pathlib
import shutil

import aside
import databases
import talk


@dataclasses.dataclass(frozen=True)
class Request:
    root: str
    folder: str
    migrates: str


def refuse_full_disk(root):
    """End where copies have no room: one now, and at the switch one more beside the backup's."""
    names = () if databases.on_postgres(root) else databases.NAMES
    need = 3 * sum(databases.size(root, name) for name in names) + 100e6
    free = shutil.disk_usage(root).free
    if free < need:
        talk.fail(
            f"Copies of the databases need {need / 1e6:.0f} MB of room on the host, and "
            f"{free / 1e6:.0f} are free. Free some, then run the same command again."
        )


def main(request):
    refuse_full_disk(request.root)
    os.mkdir(request.folder, mode=0o700)
    talk.say("copy the databases")
    aside.copy(request.root, request.folder)
    done = aside.serve(request.folder)
    if done["migrated"]:
        pathlib.Path(request.migrates).touch()
    talk.report(done)


main(talk.request(Request))
