"""Lay what is a server's own beside its restored databases.

Runs on the host, beside the programs that import it. A server's own are the key that sessions hang
on, and the id that says whose the artifacts are. Where the databases lie is the host's.
"""

import os
import re
import tarfile

NAME = "configuration.tar.gz"
SECRET = re.compile(r"^MLFLOW_FLASK_SERVER_SECRET_KEY=.*$", re.M)


def lay(path, root, folder):
    """Take both from the archive of a backup into a folder, and the archive away."""
    with tarfile.open(path) as archive:
        names = archive.getnames()
        old = archive.extractfile("server.env").read().decode()
        if ".server-id" in names:
            write(folder, ".server-id", archive.extractfile(".server-id").read().decode())
    with open(os.path.join(root, "server.env")) as stream:
        mine = stream.read()
    key = SECRET.search(old)
    if key:
        write(folder, "server.env", SECRET.sub(lambda _: key.group(), mine))
    os.remove(path)


def write(folder, name, text):
    with open(os.path.join(folder, name), "w") as stream:
        stream.write(text)
