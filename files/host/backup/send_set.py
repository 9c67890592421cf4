"""Send one backup set to the operator's machine, as a tar on file descriptor 3.

Runs on the host and changes nothing. Its manifest comes first; nothing is kept on the host.
"""

import dataclasses
import os
import tarfile

import sets
import talk


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place
    id: str = ""  # of the set; the newest where there is none


def send(archive, name, size, body):
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o600
    archive.addfile(entry, body)


def main(request):
    backups = sets.Sets(request.place)
    manifest = sets.wanted(backups.complete(), request.id)
    id = manifest["id"]
    with os.fdopen(3, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for name in (sets.MANIFEST, *(entry["name"] for entry in manifest["files"])):
            answer = backups.opened(id, name)
            send(archive, f"{id}/{name}", answer["ContentLength"], answer["Body"])


with sets.explained():
    main(talk.request(Request))
