"""Bring both databases as they were at a moment from the stream into a folder, and check them.

Runs on the host and changes nothing but that folder. Reports {"stream": ..., "at": ISO time of the
last change that is in it, "runs": n, "users": n, "newest_run": ms or null, "databases": {name: what
databases.examine says}, "seconds": n}.
"""

import contextlib
import dataclasses
import datetime
import os
import resource
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing

import accounts
import configuration
import databases
import sets
import shapes
import streams
import talk

OTHER = "Choose another moment, or the newest backup: ./fab restore"
RESERVE = 100e6  # bytes of the disk that stay free
QUIET = datetime.timedelta(hours=1)
UNVOUCHED = "no backup in the bucket is vouched for, so nobody vouches for who may log in"


@dataclasses.dataclass(frozen=True)
class Request:
    place: talk.Place
    root: str
    folder: str
    at: str  # a moment: latest, or ISO 8601 with its offset
    # To take it from: <server id>/<begin>, present, or "" for the last that was whole by then and
    # has runs.
    stream: str = ""
    own: bool = False  # whether the server's key and id shall lie beside the databases
    key: str = ""  # another backup key than the server's own, which vouches for sets as well
    # Whether to refuse users that differ from the newest vouched backup's in other ways than these,
    # which compare_stream.py told and somebody agreed to.
    checked: bool = False
    agreed: list = dataclasses.field(default_factory=list)

    @property
    def litestream(self):
        return os.path.join(self.root, "stream/bin/litestream")


def refuse_unfit(request, sizes):
    if not os.access(request.litestream, os.X_OK):
        talk.fail("Litestream is not on the host. Type: ./fab backup.stream on")
    need = sum(sizes.values()) + RESERVE
    free = shutil.disk_usage(request.root).free
    if free < need:
        talk.fail(
            f"Restoring the stream needs {need / 1e9:.1f} GB of room on the host, and "
            f"{free / 1e9:.1f} are free. Free some, then run the same command again."
        )


def bring(request, place, candidate, names=databases.NAMES):
    """Restore these databases from what `Streams.candidates` gives.

    Returns what databases.examine says of each, by name, and when the last change was sent.
    """
    stream, changes, points = candidate
    points = {name: points[name] for name in names}
    ends = {name: streams.end(changes[name], last) for name, last in points.items()}
    sizes = {name: place.size(stream, name, each) for name, each in ends.items()}
    refuse_unfit(request, sizes)
    shutil.rmtree(request.folder, ignore_errors=True)
    os.makedirs(request.folder, mode=0o700)
    region, seen = place.region(), {}
    for name, last in points.items():
        url = place.url(stream, name, region)
        seen[name] = database(request, name, last, url, sizes[name])
    return seen, max(each.sent for each in ends.values())


def whole(request, place, candidate):
    """Restore both databases; return what the operator is told of them."""
    seen, sent = bring(request, place, candidate)
    return {
        "stream": "/".join(candidate[0]),
        "at": streams.spelt(sent),
        "runs": seen[databases.TRACKING]["counts"].get("runs", 0),
        "users": seen[databases.AUTH]["counts"].get("users", 0),
        "newest_run": seen[databases.TRACKING]["newest_run"],
        "databases": seen,
    }


def database(request, name, last, url, size):
    """Have Litestream restore one, and lay it down as one file without Litestream's own tables.

    No file that it writes may become larger than what the changes say, and what stays free.
    """
    path = os.path.join(request.folder, name)
    surroundings = dict(os.environ)
    keys = talk.backup_keys()
    surroundings |= {name.upper(): value for name, value in keys.items()}
    # With this variable it does not start (0.5.17); Go's own name for the same is the other one.
    bundle = surroundings.pop("AWS_CA_BUNDLE", None)
    if bundle:
        surroundings["SSL_CERT_FILE"] = bundle
    words = ["restore", "-txid", f"{last:016x}", "-o", path, url]
    most = size + int(RESERVE)
    done = subprocess.run(
        [request.litestream, *words], env=surroundings, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )  # fmt: skip
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        talk.fail(f"Litestream cannot restore {name}: {said[-1]}. {OTHER}")
    try:
        with closing(databases.opened(path, "rw", isolation_level=None)) as base:
            base.execute("pragma journal_mode=delete")
            for table in ("_litestream_seq", "_litestream_lock"):
                base.execute("drop table if exists " + table)
    except sqlite3.Error as error:
        raise databases.Damaged(f"the database {name} cannot be read: {error}") from error
    databases.sync(path)
    return databases.examine(path)


def lay_own(request, server):
    """Lay the key and id of the stream's server beside its databases, where it is another one."""
    if server == talk.server_id(request.root):
        return
    configuration.write(request.folder, ".server-id", server + "\n")
    place = sets.Sets(request.place, request.key)
    theirs = {id: parts for id, parts in place.folders().items() if shapes.server_of(id) == server}
    for manifest in sets.vouched(place.complete(theirs))[:1] if theirs else ():
        path = os.path.join(request.folder, shapes.SEALED)
        place.fetch(manifest, shapes.SEALED, path)
        configuration.lay(manifest, path, request, place.keys)
        return
    talk.warn(
        "no backup of that server that is vouched for holds its keys, so this host keeps its own: "
        "whoever is logged in in a browser logs in again, and secrets of webhooks that the other "
        "server made have to be given again"
    )


def doubts(request):
    """Say in lines what speaks against the database of users that was brought into the folder."""
    backups = sets.Sets(request.place, request.key)
    every = backups.complete()
    vouched = sets.vouched(every)
    path = os.path.join(request.folder, databases.AUTH)
    odd = accounts.oddities(path)
    users = configuration.users_of(backups, vouched[0], request.folder) if vouched else None
    if users is None:
        return [*odd, UNVOUCHED]
    # Whoever was an admin once is one in an old backup: it must not be the newest by its deletion.
    if lost := sets.loss(every, request.root):
        odd.append(lost)
    return [*odd, *accounts.differences(accounts.of_sqlite(path), users, vouched[0]["id"])]


def refuse_others(request):
    """End with one line where users differ from a vouched backup's as nobody agreed to."""
    new = [line for line in doubts(request) if line not in request.agreed]
    if new:
        talk.fail(
            f"Nothing was restored: {'; '.join(new)}. All the same: ./fab restore --at "
            f"{request.at} --unsigned"
        )


def main(request):
    began = time.monotonic()
    when = streams.moment(request.at)
    place = streams.Streams(request.place)
    first = brought = None
    for candidate in place.candidates(when, request.stream, request.root):
        first = first or candidate
        brought = whole(request, place, candidate)
        if brought["runs"]:
            break
    else:
        # One without a run was begun by a new host, and must not hide those that have some.
        if first is None and request.stream == "present":
            talk.fail(
                f"What this host streams has not come to s3://{place.bucket}/{place.folder} whole. "
                "See what it ran into: ./fab backup.stream status"
            )
        if first is None:
            place.refuse(request.at)
        brought = whole(request, place, first)
    if request.checked:
        refuse_others(request)
    if request.own:
        lay_own(request, brought["stream"].partition("/")[0])
    for name, found in brought["databases"].items():
        if found["dangling"]:
            rows = talk.counted(found["dangling"], "row")
            talk.warn(f"{name}: {rows} with a reference to what is gone")
    if when and when - streams.moment(brought["at"]) > QUIET:
        talk.warn(
            f"the last change before {request.at} that the stream holds is of {brought['at']}: "
            "nothing was written in between, or nothing was streamed"
        )
    talk.report(brought | {"seconds": round(time.monotonic() - began, 1)})


@contextlib.contextmanager
def explained():
    """Turn what the bucket, the disk and the databases refuse into one line."""
    with sets.explained():
        try:
            yield
        except databases.Damaged as error:
            talk.fail(f"What the stream gives back is of no use: {error}. {OTHER}")
        except sqlite3.Error as error:
            talk.fail(f"The stream's database of users cannot be read: {error}. {OTHER}")


if __name__ == "__main__":
    request = talk.request(Request)
    with explained():
        try:
            main(request)
        except databases.Damaged:
            shutil.rmtree(request.folder, ignore_errors=True)
            raise
