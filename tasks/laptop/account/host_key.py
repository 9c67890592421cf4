"""A new host's SSH key, as it printed it on its own console: nobody in between can have put it."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from tasks.laptop.account.patience import awaited
from tasks.laptop.account.refusals import code_of

if TYPE_CHECKING:
    from tasks.laptop.account.session import Account

PATIENCE, BEAT = 300, 10  # seconds; GetConsoleOutput has the lowest rate of all calls (EC2 API)

# What cloud-init's module keys_to_console prints, at the end of the first boot.
BLOCK = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.S)

# What a logger may put before each line: "<14>Jun  3 17:07:52 ec2: ", or "ci-info: ".
PREFIX = re.compile(r"^(?:<\d+>.{0,60}?: ?|ci-info: ?)", re.M)

KIND = "ssh-ed25519"

LENGTH = 68  # characters of base64 of such a key: 51 bytes

START = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"


def learned(account: Account, id: str) -> str | None:
    """Return the host's key (kind and base64), once it is on the console; None without one."""
    return awaited(lambda: key_in(output(account, id)), PATIENCE, BEAT) or None


def output(account: Account, id: str) -> str:
    """Return what the console holds now; where only an older state can be had, that."""
    from botocore.exceptions import ClientError

    ec2 = account.client("ec2")
    try:
        found = ec2.get_console_output(InstanceId=id, Latest=True)
    except ClientError as error:
        if code_of(error) != "UnsupportedOperation":  # Nitro alone knows Latest
            raise
        found = ec2.get_console_output(InstanceId=id)
    return str(found.get("Output") or "")


def key_in(text: str) -> str:
    """Return the ed25519 key in a console's text; empty where there is no whole one.

    The console breaks long lines, so the key is put together again by its length.
    """
    found = BLOCK.findall(text.replace("\r", ""))
    if not found:
        return ""
    plain = PREFIX.sub("", found[-1])
    for start in re.finditer(rf"{KIND}\s+(?=AAAA)", plain):
        word = re.sub(r"\s", "", plain[start.end() : start.end() + 2 * LENGTH])[:LENGTH]
        if _is_key(word):
            return f"{KIND} {word}"
    return ""


def _is_key(word: str) -> bool:
    try:
        decoded = base64.b64decode(word, validate=True)
    except binascii.Error:
        return False
    return decoded.startswith(START) and len(decoded) == len(START) + 32
