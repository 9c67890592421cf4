"""Waiting for AWS: what was just made is not to be seen everywhere at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from tasks.laptop.account.refusals import code_of

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

BEAT = 3.0  # seconds between two looks

# What EC2, IAM and S3 say of something that they have made a moment ago ("eventual consistency").
UNSEEN = {
    "InvalidInstanceID.NotFound",
    "InvalidGroup.NotFound",
    "InvalidGroupId.NotFound",
    "InvalidAllocationID.NotFound",
    "InvalidKeyPair.NotFound",
    "NoSuchEntity",
    "NoSuchBucket",
    "OperationAborted",
}


def is_unseen(error: Exception) -> bool:
    """Tell whether an error is only that something is too new."""
    return code_of(error) in UNSEEN


def patiently(
    call: Callable[[], T], seconds: float = 60, ends: Callable[[Exception], bool] = is_unseen
) -> T:
    """Return a call's answer, called again while its error is one that ends by itself.

    Raises the last error where it does not end in that time.
    """
    from botocore.exceptions import ClientError

    until = time.monotonic() + seconds
    while True:
        try:
            return call()
        except ClientError as error:
            if not ends(error) or time.monotonic() > until:
                raise
        time.sleep(BEAT)


def awaited(look: Callable[[], T], seconds: float, beat: float = BEAT) -> T:
    """Return the first answer that is one, or the last (None, False, empty) when time is up."""
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until:
        time.sleep(beat)
    return found
