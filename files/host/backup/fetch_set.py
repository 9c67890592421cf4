"""Bring one backup from the bucket into a folder, checked whole, ready to be served.

Runs on the host and changes nothing but that folder; dumps of PostgreSQL's are put into databases
of their own, which the folder's server.env names. Arguments: root, bucket, backup prefix,
environment, endpoint or "", the set's id or "" for the newest, folder, and "aside" where the
release that made it may serve it instead of the present one. Reports {"id", "made",
"release", "runs": n, "users": n, "seconds": n}.
"""

import json
import os
import shutil
import subprocess
import sys
import time

import beside
import configuration
import databases
import postgres
import sets

root, bucket, prefix, environment, endpoint, wanted, folder, *aside = sys.argv[1:]
UNPACK = {".zst": ("zstd", "-d", "-q", "--rm"), ".gz": ("gzip", "-d", "-q")}


def refuse_unfit(manifest):
    """Refuse a set that needs more room than there is, or a newer MLflow than is installed."""
    packed = sum(entry["bytes"] for entry in manifest["files"])
    # Sets of the first kind do not say how large they become: text packs to a fifth or so.
    whole = sum(seen.get("bytes", 6 * packed) for seen in manifest["databases"].values())
    if sets.on_postgres(manifest):
        whole = 0  # what a dump becomes lies with PostgreSQL
    need, free = packed + whole + 100e6, shutil.disk_usage(root).free
    if free < need:
        sets.fail(
            "Restoring %s needs %.1f GB of room on the host, and %.1f are free. Free some, then "
            "type the same again." % (manifest["id"], need / 1e9, free / 1e9)
        )
    for name, seen in manifest["databases"].items():
        revision = seen.get("revision") or (seen.get("revisions") or [None])[0]
        known, _ = databases.revisions(serving(manifest), name)
        if revision and revision not in known:
            sets.fail(
                "The backup %s was made by MLflow %s, which is newer than the host's. Type: "
                "./fab upgrade --to %s, then the same again."
                % (manifest["id"], sets.version(manifest), sets.version(manifest))
            )


def serving(manifest):
    """Return the environment of the release that will serve the set."""
    own = os.path.join(root, "releases", manifest["release"])
    if aside and os.path.exists(os.path.join(own, ".complete")):
        return own
    return os.path.join(root, "venv")


def unpack(path):
    """Unpack a file in its place; returns the new path."""
    plain, ending = os.path.splitext(path)
    done = subprocess.run([*UNPACK[ending], path], capture_output=True, text=True)
    if done.returncode:
        sets.fail("%s cannot be unpacked: %s" % (path, done.stderr.strip().splitlines()[-1]))
    return plain


def compare(manifest, name, seen):
    """Refuse a database that holds other rows than the manifest says."""
    told = manifest["databases"][name]
    if told.get("counts", seen["counts"]) != seen["counts"]:
        differing = [t for t in told["counts"] if seen["counts"].get(t) != told["counts"][t]]
        sets.fail(
            "The backup %s is not what its manifest says: %s has other rows in %s. Choose another: "
            "./fab backup.list" % (manifest["id"], name, ", ".join(differing))
        )


def fill(manifest):
    """Put the dumps that lie in the folder into databases of their own."""
    present = databases.addresses(root)
    for name, uri in beside.new(root, folder).items():
        path = os.path.join(folder, postgres.dump_name(name))
        postgres.make(uri, present[name])
        postgres.restore(path, uri)
        compare(manifest, name, postgres.examine(uri, name))
        os.remove(path)


def main():
    began = time.monotonic()
    place = sets.Sets(bucket, prefix, environment, endpoint)
    found = place.complete()
    manifest = sets.named(found, wanted) if wanted else sets.newest(found)
    sets.refuse_other_kind(manifest, databases.on_postgres(root))
    refuse_unfit(manifest)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for entry in manifest["files"]:
        path = os.path.join(folder, entry["name"])
        place.fetch(manifest, entry["name"], path)
        if entry["name"] == configuration.NAME:
            configuration.lay(path, root, folder)
        elif not sets.on_postgres(manifest):
            plain = unpack(path)
            compare(manifest, os.path.basename(plain), databases.examine(plain))
    if sets.on_postgres(manifest):
        fill(manifest)
    report = {
        "id": manifest["id"],
        "runs": sets.count(manifest, databases.TRACKING, "runs"),
        "users": sets.count(manifest, databases.AUTH, "users"),
        "made": manifest["made"],
        "release": manifest["release"],
        "seconds": round(time.monotonic() - began, 1),
    }
    print("@report " + json.dumps(report))


with sets.explained():
    try:
        main()
    except postgres.Refused as error:
        sets.fail("The backup could not be put into PostgreSQL: %s. Nothing was changed." % error)
    except databases.Damaged as error:
        sets.fail(
            "The backup %s is of no use: %s. Choose another: ./fab backup.list"
            % (wanted or "(the newest)", error)
        )
