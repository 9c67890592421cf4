"""Prove that a backup can be restored: fetch and check it, serve it on the side, note it there.

Runs on the host, whose server is not touched. Serves it by the release that made it, where that is
still here; else by the present one, after a migration. Reports {"id", "made", "runs": n, "users":
n, "at": ISO time, "seconds": n, "by": host}. What it fetches into the folder stays there.
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
    began = time.monotonic()
    fetched = fetch_set.fetch(request)
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
    sets.Sets(request.place).put(fetched["id"], sets.VERIFIED, verified)
    talk.report(fetched | verified)


# Whatever is asked for: the release that made a set may serve it.
request = dataclasses.replace(talk.request(fetch_set.Request), aside=True)
with fetch_set.explained(request.id):
    main(request)
