"""Bring one backup from the bucket into a folder, checked whole, ready to be served.

Runs on the host and changes nothing but that folder; dumps of PostgreSQL's are put into databases
of their own, which the folder's server.env names. Reports {"id", "made", "release", "runs": n,
"users": n, "seconds": n}. Its functions serve verify_set.py as well.
"""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import tempfile
import time

import beside
import configuration
import databases
import postgres
import sets
import shapes
import talk

UNPACK = {".zst": ("zstd", "-d", "-q", "-c"), ".gz": ("gzip", "-d", "-q", "-c")}
RESERVE = 100e6  # bytes of the disk that stay free


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place
    root: str
    folder: str
    id: str = ""  # of the set; the newest where there is none
    aside: bool = False  # whether the release that made it may serve it, not the present one alone
    key: str = ""  # another backup key than the server's own, which vouches for the set as well
    unsigned: bool = False  # whether it was agreed that nobody vouches for it


def refuse_unfit(request, manifest):
    """Refuse a set that lacks a part, or needs more room or a newer MLflow than there is."""
    if lacking := shapes.missing(manifest):
        talk.fail(
            f"The backup {manifest['id']} is damaged: it holds no {lacking}. Choose another: "
            "./fab backup.list"
        )
    packed = sum(entry["bytes"] for entry in manifest["files"])
    # Sets of the first kind do not say how large they become: text packs to a fifth or so.
    whole = sum(seen.get("bytes", 6 * packed) for seen in manifest["databases"].values())
    if sets.on_postgres(manifest):
        whole = 0  # what a dump becomes lies with PostgreSQL
    need, free = packed + whole + RESERVE, shutil.disk_usage(request.root).free
    if free < need:
        talk.fail(
            f"Restoring {manifest['id']} needs {need / 1e9:.1f} GB of room on the host, and "
            f"{free / 1e9:.1f} are free. Free some, then run the same command again."
        )
    environment = os.path.join(request.root, "releases", serving(request, manifest["release"]))
    for name, seen in manifest["databases"].items():
        revision = seen.get("revision") or (seen.get("revisions") or [None])[0]
        known, _ = databases.revisions(environment, name)
        if revision and revision not in known:
            version = sets.version(manifest)
            talk.fail(
                f"The backup {manifest['id']} was made by MLflow {version}, which is newer than "
                f"the host's. Type: ./fab upgrade --to {version}, then run the same command again."
            )


def serving(request, release):
    """Name the release that will serve a set that this release made."""
    complete = os.path.join(request.root, "releases", release, ".complete")
    return (
        release if request.aside and os.path.exists(complete) else databases.release(request.root)
    )


def unpack(id, path, most):
    """Unpack a set's file in its place, to so many bytes at most; returns the new path."""
    plain, ending = os.path.splitext(path)
    useless = f"The backup {id} is damaged: {os.path.basename(path)} cannot be unpacked: "
    with (
        tempfile.TemporaryFile() as errors,
        open(plain, "wb") as target,
        subprocess.Popen([*UNPACK[ending], path], stdout=subprocess.PIPE, stderr=errors) as program,
    ):
        while block := program.stdout.read(sets.BLOCK):
            if target.tell() + len(block) > most:
                program.kill()
                os.remove(plain)
                talk.fail(
                    f"{useless}it becomes larger than {most} bytes. Choose another: "
                    "./fab backup.list"
                )
            target.write(block)
        program.wait()
        errors.seek(0)
        said = errors.read(4096).decode(errors="replace").strip().splitlines()
    if program.returncode:
        said = (said or ["it said nothing"])[-1].rstrip(".")
        talk.fail(f"{useless}{said}. Choose another: ./fab backup.list")
    os.remove(path)
    return plain


def largest(request, manifest, name):
    """Return how many bytes a database of a set may become: the first kind says nothing of it."""
    free = int(shutil.disk_usage(request.root).free - RESERVE)
    return manifest["databases"][name].get("bytes", free)


def compare(manifest, name, seen):
    """Refuse a database that holds other rows than the manifest says."""
    told = manifest["databases"][name]
    if told.get("counts", seen["counts"]) != seen["counts"]:
        differing = [t for t in told["counts"] if seen["counts"].get(t) != told["counts"][t]]
        talk.fail(
            f"The backup {manifest['id']} is not what its manifest says: {name} has other rows in "
            f"{', '.join(differing)}. Choose another: ./fab backup.list"
        )


def fill(request, manifest):
    """Put the dumps that lie in the folder into databases of their own."""
    present = databases.addresses(request.root)
    for name, uri in beside.new(request.root, request.folder).items():
        path = os.path.join(request.folder, postgres.dump_name(name))
        postgres.make(uri, present[name])
        postgres.restore(path, uri)
        compare(manifest, name, postgres.examine(uri, name))
        os.remove(path)


def chosen(request, backups):
    """Return the set that is asked for; ends with one line where nobody vouches for it."""
    manifest = sets.wanted(backups.complete(asked=request.id), request.id)
    if not request.unsigned:
        sets.refuse_unvouched(manifest, "restore")
    return manifest


def fetch(request, backups, manifest):
    """Bring the set; return what the operator is told of it."""
    began = time.monotonic()
    sets.refuse_other_kind(manifest, databases.on_postgres(request.root))
    refuse_unfit(request, manifest)
    os.makedirs(request.folder, mode=0o700, exist_ok=True)
    for entry in manifest["files"]:
        path = os.path.join(request.folder, entry["name"])
        backups.fetch(manifest, entry["name"], path)
        if entry["name"] in (shapes.CONFIGURATION, shapes.SEALED):
            configuration.lay(manifest, path, request, backups.keys)
        elif not sets.on_postgres(manifest):
            name = os.path.splitext(entry["name"])[0]
            plain = unpack(manifest["id"], path, largest(request, manifest, name))
            compare(manifest, name, databases.examine(plain))
    if sets.on_postgres(manifest):
        fill(request, manifest)
    return {
        "id": manifest["id"],
        "digest": manifest["digest"],
        "runs": sets.count(manifest, databases.TRACKING, "runs"),
        "users": sets.count(manifest, databases.AUTH, "users"),
        "made": manifest["made"],
        "release": manifest["release"],
        "seconds": round(time.monotonic() - began, 1),
    }


@contextlib.contextmanager
def explained(id):
    """Turn what the bucket, the disk and the databases refuse into one line."""
    with sets.explained():
        try:
            yield
        except postgres.Refused as error:
            talk.fail(f"The backup could not be put into PostgreSQL: {error}. Nothing was changed.")
        except databases.Damaged as error:
            talk.fail(
                f"The backup {id or '(the newest)'} is of no use: {error}. Choose another: "
                "./fab backup.list"
            )


if __name__ == "__main__":
    request = talk.request(Request)
    with explained(request.id):
        backups = sets.Sets(request.place, request.key)
        talk.report(fetch(request, backups, chosen(request, backups)))
