"""Make PostgreSQL databases beside those that the server uses, and drop those that no state names.

Runs on the host, in a release's environment. Where SQLite's new databases are files in a folder,
PostgreSQL's have names of their own, <database>_<UTC time>, which the folder's server.env holds:
so a state is switched to and given back by its files alone, whatever it is kept in.

Databases at an address, rather than on this very host, may be other hosts' as well: while one is
being replaced it is closed to all of them, and stays so once it was.

Its actions:
tidy       drops what a former, failed or killed task left
close      closes those that serve; noted, so that they can be opened again
hand-over  closes those that serve, and opens those of next.part
"""

import dataclasses
import glob
import os
import re
import time

import databases
import postgres
import talk

NOTE = ".databases"  # the addresses of all that were made here, one a line
CLOSED = ".closed"  # the same of what is closed until the state changes (settle.sh)
MADE = re.compile(r"_\d{8}t\d{6}z$")
LONGEST = 63 - len("_20261125t170000z_auth")  # bytes that PostgreSQL leaves to the name before it
STATES = ("", "next", "next.part", "former/*")  # the folders that name databases


@dataclasses.dataclass(frozen=True)
class Request:
    action: str
    root: str


def copy(root, folder):
    """Copy both databases as they are, and name the copies in the folder."""
    present = databases.addresses(root)
    uris = new(root, folder)
    for name, uri in uris.items():
        if not postgres.make(uri, present[name], like=present[name]):
            if os.path.exists(os.path.join(root, CLOSED)):
                raise postgres.Refused(
                    "another role than the server's uses the database "
                    f"{database(present[name])}. End its sessions, then run the same command again"
                )
            postgres.make(uri, present[name])
            postgres.copy(present[name], uri)


def new(root, folder):
    """Choose addresses for two databases of a new state, and name them in its folder."""
    present = databases.addresses(root)
    base = MADE.sub("", database(present[databases.TRACKING]))[:LONGEST]
    base += time.strftime("_%Y%m%dt%H%M%Sz", time.gmtime())
    names = {databases.TRACKING: base, databases.AUTH: base + "_auth"}
    uris = {name: spelled(present[name], names[name]) for name in names}
    # Before they are made: what is killed in between leaves nothing that nobody knows.
    note(root, NOTE, [*noted(root), *uris.values()])
    lay(root, folder, uris)
    return uris


def lay(root, folder, uris):
    """Have a folder's server.env and login's file name these databases."""
    kept = next(f for f in (folder, root) if os.path.exists(os.path.join(f, "server.env")))
    text = read(kept, "server.env")
    for name, uri in uris.items():
        variable = databases.VARIABLES[name]
        text = replaced(text, variable, f"{variable}='{uri}'")
    databases.write_whole(os.path.join(folder, "server.env"), text)
    login = read(root, ".mlflow_auth_config")
    users = uris[databases.AUTH].replace("%", "%%")  # the file is read with interpolation
    databases.write_whole(
        os.path.join(folder, ".mlflow_auth_config"),
        replaced(login, "database_uri", "database_uri = " + users),
    )


def replaced(text, key, line):
    """Put a line in the place of the one that begins with a key."""
    return re.sub(f"^{key} *=.*$", lambda _: line, text, flags=re.M)


def tidy(root):
    """Drop what was made here and no state names any more; what cannot go now stays noted."""
    used = {
        uri
        for state in STATES
        for folder in glob.glob(os.path.join(root, state))
        for uri in databases.addresses(folder).values()
    }
    left = []
    for uri in noted(root):
        if uri in used:
            left.append(uri)
            continue
        try:
            postgres.drop(uri)
        except postgres.Refused as error:
            talk.warn(f"The database {database(uri)} is left for later: {error}")
            left.append(uri)
    note(root, NOTE, left)


def close(root):
    """Close both databases to every host where others may use them, until they are opened again."""
    going = list(databases.addresses(root).values())
    if all(map(postgres.is_apart, going)):
        note(root, CLOSED, going)
        for uri in going:
            postgres.close(uri)


def hand_over(root):
    """Close the present databases, and open those of the state that comes."""
    going = list(databases.addresses(root).values())
    coming = list(databases.addresses(os.path.join(root, "next.part")).values())
    if coming != going and all(map(postgres.is_apart, coming)):
        for uri in coming:
            postgres.open_again(uri)
        close(root)


def noted(root):
    return read(root, NOTE).split() if os.path.exists(os.path.join(root, NOTE)) else []


def database(uri):
    """Return the name of an address' database."""
    return uri.partition("?")[0].rpartition("/")[2]


def spelled(uri, name):
    """Return an address with another database, and everything else as it was written."""
    place, mark, options = uri.partition("?")
    return f"{place.rpartition('/')[0]}/{name}{mark}{options}"


def read(folder, name):
    with open(os.path.join(folder, name)) as stream:
        return stream.read()


def note(root, name, uris):
    databases.write_whole(os.path.join(root, name), "".join(uri + "\n" for uri in uris))


if __name__ == "__main__":
    try:
        request = talk.request(Request)
        {"tidy": tidy, "close": close, "hand-over": hand_over}[request.action](request.root)
    except postgres.Refused as error:
        talk.fail(f"{str(error).rstrip('.')}. Nothing was changed.")
