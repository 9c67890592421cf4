"""Prove that a backup can be restored: fetch and check it, serve it on the side, note it there.

Runs on the host, whose server is not touched. Serves it by the release that made it, where that is
still here; else by the present one, after a migration. Reports {"id", "made", "runs": n, "users":
n, "at": ISO time, "seconds": n, "by": host}; null where a timer has nothing to verify yet. What it
fetches into the folder stays there.
"""

import dataclasses
import datetime
import os
import socket
import time

import aside
import fetch_set
import sets
import talk


def main(request):
    began, backups = time.monotonic(), sets.Sets(request.place)
    found = backups.complete(asked=request.id)
    lost = not request.id and sets.warn_of_loss(found, request.root)
    if request.timer and not sets.vouched(found):
        if lost:
            talk.fail(
                "No backup that this server's key vouches for is in the bucket. Type: ./fab doctor"
            )
        # All are from before there was a key: the next one is not.
        talk.warn("no backup is signed yet, so none was verified; the next one will be")
        talk.report(None)
        return
    manifest = sets.wanted(found, request.id)
    if not request.unsigned:
        sets.refuse_unvouched(manifest, "backup.verify")
    fetched = fetch_set.fetch(request, backups, manifest)
    release = fetch_set.serving(request, fetched["release"])
    version = release.rpartition("-")[0]
    talk.say(f"serve {fetched['id']} on the side with MLflow {version}")
    python = os.path.join(request.root, "releases", release, "bin/python")
    aside.serve(request.folder, python)
    verified = {
        "at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "seconds": int(time.monotonic() - began),
        "by": socket.gethostname(),
    }
    backups.note(fetched["id"], fetched["digest"], verified)
    talk.report(fetched | verified)


@dataclasses.dataclass(frozen=True)
class Request(fetch_set.Request):
    timer: bool = False  # whether nobody watches


# Whatever is asked for: the release that made a set may serve it.
request = dataclasses.replace(talk.request(Request), aside=True)
with fetch_set.explained(request.id):
    main(request)
