"""Lay what is a server's own beside its restored databases.

Runs on the host, beside the programs that import it. A server's own are the key that sessions hang
on, and the id that says whose the artifacts are. Where the databases lie, and how a login to them
is spelled, is the host's. What a server.env holds is run by bash when the server starts: of one
that came from a bucket the key alone is taken, and that as one plain word.
"""

import gzip
import io
import os
import re
import tarfile
import zlib

import shapes
import talk

KEY = "MLFLOW_FLASK_SERVER_SECRET_KEY"
SECRET = re.compile(f"^{KEY}=.*$", re.M)
# A key as `configure` makes it (hexadecimal), or as somebody wrote it by hand before.
WORD = re.compile(r"[A-Za-z0-9._+/=-]{1,256}")
# A comment, or a variable and one word that bash takes as it stands.
LINE = re.compile(
    r"""\s*(\#.*|(export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)="""
    r"""(?P<value>'[^']*'|"[^"$`\\]*"|[A-Za-z0-9._+/=:@%,?&~-]*)\s*)?"""
)


def lay(id, path, root, folder):
    """Take both from the archive of a backup into a folder, and the archive away.

    Ends with one line where the archive, or what is in it, is not as backup makes it.
    """
    try:
        held = read(path)
        server, key = own(held)
    except shapes.Odd as error:
        talk.fail(
            f"The backup {id} is damaged: its {shapes.CONFIGURATION} {error}. Choose another: "
            "./fab backup.list"
        )
    if server:
        write(folder, ".server-id", server + "\n")
    with open(os.path.join(root, "server.env")) as stream:
        mine = stream.read()
    if key:
        write(folder, "server.env", SECRET.sub(f"{KEY}={key}", mine))
    os.remove(path)


def own(held):
    """Return the id and the key that an archive's files hold, or None for each; raises Odd."""
    server = held.get(".server-id")
    if server is not None:
        server = server.removesuffix("\n")
        if not shapes.SERVER.fullmatch(server):
            raise shapes.Odd(f"says {shapes.quoted(server)} as the server's id")
    return server, secret(held.get("server.env", ""))


def secret(text):
    """Return the key that a server.env names, or None; raises Odd where it is not plain data."""
    found = None
    for line in text.split("\n"):
        match = LINE.fullmatch(line)
        if not match or not line.replace("\t", " ").isprintable():
            raise shapes.Odd("has a server.env with a line that is no plain variable")
        if match["name"] == KEY:
            if found is not None:
                raise shapes.Odd("has a server.env with two secret keys")
            found = match["value"].strip("'\"")
            if not WORD.fullmatch(found):
                raise shapes.Odd("has a server.env whose secret key is no plain word")
    return found


def read(path):
    """Return the text of each file of an archive; raises Odd, before it becomes large."""
    try:
        with gzip.open(path) as packed:
            plain = packed.read(shapes.LARGEST + 1)
        if len(plain) > shapes.LARGEST:
            raise shapes.Odd(f"becomes larger than {shapes.LARGEST >> 20} MB")
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            return {entry.name: _text(archive, entry) for entry in archive}
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError):
        raise shapes.Odd("cannot be unpacked") from None


def _text(archive, entry):
    if entry.name not in shapes.CONFIGURED:
        raise shapes.Odd(f"holds {shapes.quoted(entry.name)}, which is none of a backup's")
    # A file with holes may be larger than what it is read from.
    if not entry.isreg() or entry.issparse() or entry.size > shapes.LARGEST:
        raise shapes.Odd(f"holds {entry.name} as something else than a small file")
    return archive.extractfile(entry).read().decode()


def write(folder, name, text):
    with open(os.path.join(folder, name), "w") as stream:
        stream.write(text)
