"""How a program on the host gets its request, and how it answers.

The request is one JSON file of the program's own name beside it: back_up.py reads back_up.json.
What only the host knows, such as its root or a scratch folder, the script that runs the program
gives as words, `root=/home/ubuntu/mlflow-server`. The answer is lines that begin with `@`, which
tasks/engine/server.py reads.
"""

import atexit
import configparser
import dataclasses
import gc
import json
import os
import secrets
import sys
import time

# Whoever waits for a program's end would wait, too, for Python to search all that it has loaded for
# garbage before it goes: with boto3, a fifth of the program's time.
atexit.register(gc.freeze)


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a server keeps what it has in the bucket; `endpoint` and `region` may be empty."""

    bucket: str
    prefix: str
    backup_prefix: str
    environment: str
    region: str = ""
    endpoint: str = ""


def request(kind):
    """Return this program's request as `kind`, a dataclass whose fields say what it may hold.

    A field of the type Place is made of an object; words for a field of the type int or bool are
    read as such. Raises TypeError for a name that `kind` lacks, or a value that it wants.
    """
    values = {}
    stem = os.path.splitext(os.path.abspath(sys.argv[0]))[0]
    if os.path.exists(stem + ".json"):
        with open(stem + ".json") as stream:
            values = json.load(stream)
    types = {field.name: field.type for field in dataclasses.fields(kind)}
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        values[name] = json.loads(value) if types.get(name) in (int, bool) else value
    if isinstance(values.get("place"), dict):
        values["place"] = Place(**values["place"])
    return kind(**values)


def say(text):
    """Tell the operator what is being done."""
    print(f"@say {_line(text)}", flush=True)


def warn(text):
    """Tell the operator what is not as it should be, and go on."""
    print(f"@warn {_line(text)}", flush=True)


def fail(text):
    """End with one line for the operator: what is wrong, and what to type."""
    print(f"@fail {_line(text)}", flush=True)
    sys.exit(1)


def _line(text):
    return printable(text, " ")


def printable(text, instead="?", longest=None):
    """Spell a text as one line that a terminal only shows: parts of it may be anybody's.

    It has at most so many characters, where a `longest` is given.
    """
    return "".join(letter if letter.isprintable() else instead for letter in str(text))[:longest]


def counted(count, thing):
    """Spell a number of things: 1 row, 2 rows, 0 rows, 1,234,567 rows."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def report(value, key=None):
    """Give the task a value: it arrives as one JSON text, after a `key` where there are several."""
    before = f"{key}\t" if key else ""
    print(f"@report {before}{json.dumps(value)}", flush=True)


def backups_client(place, **options):
    """Return an S3 client for backups: with credentials of their own where the script names some.

    See backup_secrets.sh; without, they are the server's. What is tried anew is told once: where a
    store stops answering, it takes minutes.
    """
    client = s3_client(place, keys=backup_keys(), **options)
    client.meta.events.register("needs-retry.s3", Patience())
    return client


# Of a look at backups: so long a store may be silent, in seconds. It is given up before the task
# that waits is (LOOK_TIMEOUT in tasks/backup.py), and named then.
LOOKING = {"connect_timeout": 10, "read_timeout": 30}


class Patience:
    """Tell the operator, once, that a store is asked again; botocore's event needs-retry."""

    def __init__(self):
        self.told = False

    def __call__(self, operation, response=None, caught_exception=None, **_):
        from botocore import exceptions as of

        # Others are raised by what is sent, such as that a database is damaged.
        silent = (of.ConnectTimeoutError, of.ReadTimeoutError, of.ConnectionClosedError)
        status = response[0].status_code if response else None
        if not self.told and (isinstance(caught_exception, silent) or status in FAILING):
            self.told = True
            how = f"answers {operation.name} with {status}" if status else "does not answer"
            warn(f"the store {how}; it is asked again, which may take minutes")


def backup_keys():
    """Return what boto3 takes as the keys of backups; nothing where they have none of their own."""
    path = os.environ.get("REMOTE_MLFLOW_BACKUP_AWS")
    if not path:
        return {}
    found = configparser.RawConfigParser()
    found.read(path)
    return dict(found["default"])


def s3_client(place, attempts=5, keys=None, **options):
    """Return an S3 client with the server's own credentials; `options` are botocore's Config's.

    What passes by itself, such as a 500 or 503 of the store's, is tried anew: `attempts` in all.
    """
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "total_max_attempts": attempts}
    # Without a path-style address most S3-compatible stores are not found.
    style = {"addressing_style": "path"} if place.endpoint else {}
    return boto3.client(
        "s3",
        region_name=place.region or None,
        endpoint_url=place.endpoint or None,
        config=Config(s3=style, retries=retries, **options),
        **(keys or {}),
    )


# What botocore tries anew; a 501 is a store's word that it never learnt what was asked.
FAILING = (429, 500, 502, 503, 504)


def store_trouble(error):
    """Say of a ClientError of botocore's that the store itself fails; None where it says no."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status not in FAILING:
        return None
    code = error.response.get("Error", {}).get("Code", "")
    named = f" ({code})" if code and code != str(status) else ""
    return f"The store itself fails: it answers {error.operation_name} with {status}{named}."


# What follows that, for the operator.
PASSES = (
    "No setting is the cause, and it usually passes: run the same command again in a few minutes."
)


def server_id(root):
    """Return the id of the server in this folder, or None where it has none yet."""
    try:
        with open(os.path.join(root, ".server-id")) as stream:
            return stream.read().strip() or None
    except FileNotFoundError:
        return None


def made_server_id(root):
    """Return the id of the server in this folder, made at the first need."""
    path = os.path.join(root, ".server-id")
    if not os.path.exists(path):
        with open(path + ".part", "w") as stream:
            stream.write(secrets.token_hex(4) + "\n")
        os.replace(path + ".part", path)
    return server_id(root)


def await_health(ask, seconds):
    """Call `ask` until it is true, for so many seconds; returns whether it became so."""
    deadline = time.monotonic() + seconds
    while not ask():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def without_proxy():
    """Return an opener for addresses on this host, whatever proxy the environment names."""
    import urllib.request

    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
