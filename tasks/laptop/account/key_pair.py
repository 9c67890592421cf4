"""The operator's key for a server: made on this machine, of which AWS gets the public half."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine import paths
from tasks.engine.account_parts import KeyPair
from tasks.laptop.account.refusals import code_of

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.engine.account_parts import Names
    from tasks.laptop.account.session import Account

FOREIGN = (
    "There is a key pair {name} in {region} that is none of ours: it lacks the tag remote-mlflow. "
    "Rename or delete that one, or use another environment (./fab use NAME …)."
)


def file_of(names: Names) -> Path:
    """Name the private half, which is in no clone: every clone of the operator's can use it."""
    return paths.config() / "keys" / f"{names.unit}-{names.account}-{names.region}"


def public_half(names: Names) -> str | None:
    """Return the public half of the key on this machine (kind and base64); None without one."""
    file = file_of(names)
    if not file.is_file():
        return None
    try:
        return words(file.with_name(f"{file.name}.pub").read_text())
    except OSError:
        done = subprocess.run(
            ["ssh-keygen", "-y", "-f", str(file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return words(done.stdout) if done.returncode == 0 else None


def words(text: str) -> str:
    """Return a public key without its comment."""
    return " ".join(text.split()[:2])


def make_here(names: Names) -> str:
    """Make the key on this machine where there is none, and return its public half."""
    if found := public_half(names):
        return found
    file = file_of(names)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", names.unit, "-f", str(part)],
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise Exit("OpenSSH's ssh-keygen is missing. Install OpenSSH's client first.") from None
    part.with_name(f"{part.name}.pub").replace(file.with_name(f"{file.name}.pub"))
    part.replace(file)
    return public_half(names) or ""


def look(account: Account, names: Names) -> KeyPair | None:
    """Return the key pair of a server's name; None where there is none.

    Raises Exit where that is somebody else's, and botocore's exceptions.
    """
    filters = [{"Name": "key-name", "Values": [names.unit]}]
    found = account.client("ec2").describe_key_pairs(Filters=filters, IncludePublicKey=True)
    for one in found["KeyPairs"]:
        if not names.owns(one.get("Tags")):
            raise Exit(FOREIGN.format(name=names.unit, region=names.region))
        return KeyPair(names.unit, words(one.get("PublicKey", "")))
    return None


def settle(account: Account, names: Names) -> None:
    """Have the key be here, and its public half at AWS, whatever is there under our name."""
    from botocore.exceptions import ClientError

    public = make_here(names)
    there = look(account, names)
    if there and there.public == public:
        return
    if there:
        remove(account, names)
    try:
        account.client("ec2").import_key_pair(
            KeyName=names.unit,
            PublicKeyMaterial=f"{public} {names.unit}\n".encode(),
            TagSpecifications=names.tagging("key-pair"),
        )
    except ClientError as error:
        if code_of(error) != "InvalidKeyPair.Duplicate" or look(account, names) is None:
            raise


def remove(account: Account, names: Names) -> None:
    """Remove the key pair at AWS; that it is gone already is fine."""
    account.client("ec2").delete_key_pair(KeyName=names.unit)


def forget(names: Names) -> None:
    """Remove both halves from this machine."""
    file = file_of(names)
    for half in (file, file.with_name(f"{file.name}.pub")):
        half.unlink(missing_ok=True)
