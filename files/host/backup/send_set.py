"""Send one backup set to the operator's machine, as a tar on file descriptor 3.

Runs on the host and changes nothing. Its manifest comes first; nothing is kept on the host.
"""

import dataclasses
import os
import tarfile

import sets
import shapes
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
    manifest = sets.wanted(backups.complete(asked=request.id), request.id)
    id = manifest["id"]
    sizes = {entry["name"]: entry["bytes"] for entry in manifest["files"]}
    with os.fdopen(3, "wb") as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for name in (sets.MANIFEST, *sizes):
            answer = backups.opened(id, name)
            size = answer["ContentLength"]
            if size != sizes.get(name, size) or (name == sets.MANIFEST and size > shapes.LARGEST):
                talk.fail(
                    f"The backup {id} is damaged: {name} has {size} bytes, which is not what was "
                    "sent. Choose another: ./fab backup.list"
                )
            send(archive, f"{id}/{name}", size, answer["Body"])


with sets.explained():
    main(talk.request(Request))
