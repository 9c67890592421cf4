"""Lay what is a server's own beside its restored databases.

Runs on the host, beside the programs that import it. A server's own are the key that sessions hang
on and the one that webhooks' secrets are encrypted with, and the id that says whose the artifacts
are. Where the databases lie, and how a login to them is spelled, is the host's. What a server.env
holds is run by bash when the server starts: of one that came from a bucket these keys alone are
taken, and each as one plain word.
"""

import gzip
import io
import json
import os
import re
import tarfile
import zlib

import accounts
import shapes
import talk

KEYS = {
    # As `configure` makes it (hexadecimal), or as somebody wrote it by hand before.
    "MLFLOW_FLASK_SERVER_SECRET_KEY": re.compile(r"[A-Za-z0-9._+/=-]{1,256}"),
    # As MLflow's encryption (Fernet) takes it.
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": re.compile(r"[A-Za-z0-9_-]{43}="),
}
# A comment, or a variable and one word that bash takes as it stands.
LINE = re.compile(
    r"""\s*(\#.*|(export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)="""
    r"""(?P<value>'[^']*'|"[^"$`\\]*"|[A-Za-z0-9._+/=:@%,?&~-]*)\s*)?"""
)


def lay(manifest, path, request, keys):
    """Take them from the archive of a set into the request's folder, and the archive away.

    Where it is encrypted by a key that is not at hand, the host keeps its own. Ends with one line
    where the archive, or what is in it, is not as backup makes it.
    """
    try:
        held = opened(manifest, path, keys)
        server, secrets = own(held) if held is not None else (manifest.get("server"), {})
    except shapes.Odd as error:
        talk.fail(
            f"The backup {manifest['id']} is damaged: its {os.path.basename(path)} {error}. "
            "Choose another: ./fab backup.list"
        )
    if held is None:
        talk.warn(
            f"without the backup key {manifest.get('key')} its secrets cannot be read, so this "
            "host keeps its own keys: whoever is logged in in a browser logs in again, and secrets "
            "of webhooks that another server made have to be given again"
        )
    if server:
        write(request.folder, ".server-id", server + "\n")
    with open(os.path.join(request.root, "server.env")) as stream:
        mine = stream.read()
    if secrets:
        write(request.folder, "server.env", with_keys(mine, secrets))
    os.remove(path)


def with_keys(text, secrets):
    """Return the text of a server.env with these keys in the place of its own, or after all."""
    for name, value in secrets.items():
        line, former = f"{name}={value}", re.compile(f"^{name}=.*$", re.M)
        if former.search(text):
            text = former.sub(line, text)
        else:
            text = f"{text.rstrip(chr(10))}\n{line}\n".lstrip("\n")
    return text


def opened(manifest, path, keys):
    """Return the files of a set's archive, None where its key is not at hand; raises Odd."""
    if os.path.getsize(path) > shapes.ROOM:
        raise shapes.Odd(f"has more than {shapes.ROOM >> 20} MB")
    with open(path, "rb") as stream:
        body = stream.read()
    if os.path.basename(path) == shapes.SEALED:
        key = keys.get(manifest.get("key"))
        if key is None:
            return None
        body = key.opened(body, manifest["id"])
    return read(body)


def users_of(backups, manifest, folder):
    """Return who could log in when a set was made, or None where it does not say so."""
    path = os.path.join(folder, shapes.SEALED)
    if all(entry["name"] != shapes.SEALED for entry in manifest["files"]):
        return None
    backups.fetch(manifest, shapes.SEALED, path)
    try:
        return users(opened(manifest, path, backups.keys))
    except shapes.Odd as error:
        talk.fail(f"The backup {manifest['id']} is damaged: its {shapes.SEALED} {error}.")
    finally:
        os.remove(path)


def users(held):
    """Return who could log in, as an archive's files say, or None; raises Odd."""
    if shapes.USERS not in held:
        return None
    try:
        return accounts.read(json.loads(held[shapes.USERS]))
    except (ValueError, RecursionError):
        raise shapes.Odd("has a users.json that is none") from None


def own(held):
    """Return the id that an archive's files hold, or None, and the keys by name; raises Odd."""
    server = held.get(".server-id")
    if server is not None:
        server = server.removesuffix("\n")
        if not shapes.SERVER.fullmatch(server):
            raise shapes.Odd(f"says {shapes.quoted(server)} as the server's id")
    return server, secrets(held.get("server.env", ""))


def secrets(text):
    """Return the keys that a server.env names; raises Odd where it is not plain data."""
    found = {}
    for line in text.split("\n"):
        match = LINE.fullmatch(line)
        if not match or not line.replace("\t", " ").isprintable():
            raise shapes.Odd("has a server.env with a line that is no plain variable")
        if name := match["name"] if match["name"] in KEYS else None:
            if name in found:
                raise shapes.Odd("has a server.env with two secret keys")
            found[name] = match["value"].strip("'\"")
            if not KEYS[name].fullmatch(found[name]):
                raise shapes.Odd("has a server.env whose secret key is no plain word")
    return found


def read(body):
    """Return the text of each file of an archive; raises Odd, before it becomes large."""
    try:
        with gzip.open(io.BytesIO(body)) as packed:
            plain = packed.read(shapes.ROOM + 1)
        if len(plain) > shapes.ROOM:
            raise shapes.Odd(f"becomes larger than {shapes.ROOM >> 20} MB")
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            return {entry.name: _text(archive, entry) for entry in archive}
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError):
        raise shapes.Odd("cannot be unpacked") from None


def _text(archive, entry):
    if entry.name not in shapes.CONFIGURED:
        raise shapes.Odd(f"holds {shapes.quoted(entry.name)}, which is none of a backup's")
    # A file with holes may be larger than what it is read from.
    if not entry.isreg() or entry.issparse() or entry.size > shapes.ROOM:
        raise shapes.Odd(f"holds {entry.name} as something else than a small file")
    return archive.extractfile(entry).read().decode()


def write(folder, name, text):
    with open(os.path.join(folder, name), "w") as stream:
        stream.write(text)
