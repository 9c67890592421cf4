"""See which files a server left at a former place, and copy them to the one that it has now.

Runs on the host in the server's own environment. `count` reports how many are missing at the
present place, and whose they are, and `leave` the same of those places that can still be looked at;
`copy` copies these, within the store where both places are in
one, and compares; `finish` does so too, and forgets the former place. What lies there stays.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import re
import threading
import time

from bucket import Bucket, Denied, Trouble, troubled
from objects import under
from talk import Place, counted, fail, report, request, say, warn

PLACE = re.compile(r"s3://([a-z0-9.-]+)/(\S+) at (\S+)")
RUN = re.compile(r"[0-9a-f]{32}")
AT_ONCE = 8  # copies
LARGEST = 5 * 1024**3  # bytes that S3 copies in one request
SIGN_OF_LIFE = 10  # seconds
AGAIN = "What was copied stays; type ./fab deploy --move-artifacts again."
NEEDED = "s3:GetObject at the former place or s3:PutObject at the present one"


@dataclasses.dataclass(frozen=True)
class Request:
    place: Place
    root: str
    action: str  # count, leave, copy or finish
    former: list  # as owner.py spells places


def opened(text, present):
    """Return the bucket that a former place is in."""
    name, prefix, endpoint = PLACE.fullmatch(text).groups()
    endpoint = "" if endpoint == "AWS" else endpoint
    same = (name, endpoint) == (present.bucket, present.endpoint)
    there = dataclasses.replace(
        present, bucket=name, prefix=prefix, endpoint=endpoint,
        region=present.region if same else "",
    )  # fmt: skip
    with ignoring_profile_s_endpoint(not endpoint and bool(present.endpoint)):
        return Bucket(there)


@contextlib.contextmanager
def ignoring_profile_s_endpoint(ignored):
    """The profile names the endpoint of the present place: AWS is elsewhere."""
    if ignored:
        os.environ["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "true"
    try:
        yield
    finally:
        if ignored:
            del os.environ["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"]


def listed(bucket, but=None):
    """Map what lies below the prefix, but our own marks, to size and time."""
    start = bucket.prefix + "/"
    return {
        entry["Key"][len(start) :]: (entry["Size"], entry["LastModified"])
        for entry in under(bucket, start)
        if not entry["Key"].startswith((start + ".remote-mlflow", but or "\0"))
    }


def missing(former, present):
    """Map the files that the present place lacks, or has as they were before, to their sizes."""
    # One place may lie below the other, although nobody should have it so.
    old = listed(former, f"{present.prefix}/" if former.name == present.name else None)
    new = listed(present)
    return {
        key: size
        for key, (size, written) in old.items()
        if key not in new or new[key][0] != size or new[key][1] < written
    }


def looked_at(former, present, text, action):
    """Do the same where nothing is copied yet; a bucket that is gone has nothing to lose."""
    first = {"Prefix": former.prefix + "/", "MaxKeys": 1}
    try:
        troubled(lambda: former.attempt("s3:ListBucket", former.s3.list_objects_v2, **first))
    except (Denied, Trouble) as error:
        if action == "leave" or getattr(error, "kind", "") == "bucket-missing":
            warn(f"{text}, where files were until now, cannot be looked at: {reason(error)}")
            return {}
        raise Trouble(
            "former-unseen",
            f"{text}, where files were until now, cannot be looked at: {reason(error)}",
            "See to it that the host's credentials reach it, or leave what lies there: "
            "./fab deploy --leave-artifacts",
        ) from error
    return missing(former, present)


def reason(error):
    return error.what if isinstance(error, Trouble) else f"{error} is denied."


def copy(former, present, files):
    """Copy files, several at once; raises Denied or Trouble where one cannot be."""
    within = former.endpoint == present.endpoint
    one = copy_within if within else copy_across
    done, told, lock = [0], [time.monotonic()], threading.Lock()

    def copied(key):
        one(former, present, key, files[key])
        with lock:
            done[0] += 1
            if time.monotonic() - told[0] > SIGN_OF_LIFE:
                told[0] = time.monotonic()
                say(f"copied {done[0]:,} of {counted(len(files), 'file')}")

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(copied, key) for key in files]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def copy_within(former, present, key, size):
    source = {"Bucket": former.name, "Key": f"{former.prefix}/{key}"}
    target = f"{present.prefix}/{key}"
    if size < LARGEST:
        present.attempt(NEEDED, present.s3.copy_object, CopySource=source, Key=target)
    else:
        present.attempt(
            NEEDED,
            lambda Bucket: present.s3.copy(source, Bucket, target, SourceClient=former.s3),
        )


def copy_across(former, present, key, _):
    body = former.attempt(NEEDED, former.s3.get_object, Key=f"{former.prefix}/{key}")["Body"]
    present.attempt(
        NEEDED, lambda Bucket: present.s3.upload_fileobj(body, Bucket, f"{present.prefix}/{key}")
    )


def about(text, files):
    """Describe files: how many, their bytes, and the runs that they belong to."""
    runs = {part for key in files for part in key.split("/")[:-1] if RUN.fullmatch(part)}
    return {"place": text, "files": len(files), "bytes": sum(files.values()), "runs": len(runs)}


def forget(root):
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(root, ".elsewhere"))


def work(asked):
    present = Bucket(asked.place)
    for text in asked.former:
        former = opened(text, asked.place)
        if asked.action in ("count", "leave"):
            report(about(text, looked_at(former, present, text, asked.action)))
            continue
        files = missing(former, present)
        if files:
            size = sum(files.values()) / 1e6
            say(f"copy {counted(len(files), 'file')} ({size:.1f} MB) from {text}")
            copy(former, present, files)
            if left := missing(former, present):
                what = counted(len(left), "file")
                fail(f"Not yet as under {text}: {what}. {AGAIN}")
        report(about(text, files))
    if asked.action == "finish":
        forget(asked.root)


def main(asked):
    try:
        troubled(lambda: work(asked))
    except Denied as error:
        fail(f"{error} is denied to the host's credentials. Allow it in their policy. {AGAIN}")
    except Trouble as trouble:
        fail(f"{trouble} {AGAIN if asked.action in ('copy', 'finish') else ''}".strip())


if __name__ == "__main__":
    main(request(Request))
