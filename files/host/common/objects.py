"""List and delete the objects of a bucket, and say what is in the way.

Staged beside the programs that import it; `bucket` is a Bucket of bucket.py.
"""

import contextlib

from bucket import Denied, Trouble
from sqlalchemy.exc import SQLAlchemyError
from talk import fail

MOST = 1000  # keys in one request, the most that S3 takes


def under(bucket, place):
    """List the objects whose keys begin with a place, as S3 describes them."""
    options = {"Prefix": place}
    while True:
        page = bucket.attempt("s3:ListBucket", bucket.s3.list_objects_v2, **options)
        yield from page.get("Contents", ())
        if not page.get("IsTruncated"):
            return
        options["ContinuationToken"] = page["NextContinuationToken"]


def delete(bucket, keys):
    """Delete objects; raises Denied or Trouble where one of them stays."""
    for start in range(0, len(keys), MOST):
        wanted = {"Objects": [{"Key": key} for key in keys[start : start + MOST]], "Quiet": True}
        answer = bucket.attempt("s3:DeleteObject", bucket.s3.delete_objects, Delete=wanted)
        # S3 says "done" to the request, and of each key that it was not.
        for error in answer.get("Errors", ()):
            if error.get("Code") == "AccessDenied":
                raise Denied("s3:DeleteObject")
            raise Trouble(
                "bucket-refuses",
                f"s3://{bucket.name}/{error.get('Key')} could not be deleted "
                f"({error.get('Code')}).",
                "Run the same command again.",
            )


def may_delete(bucket):
    """Raise Denied where the credentials may not delete below the prefix."""
    delete(bucket, [f"{bucket.prefix}/.remote-mlflow-gc"])  # an object that there never is


@contextlib.contextmanager
def explained(place):
    """Turn what the bucket and the database refuse into one line for the operator."""
    try:
        yield
    except Denied as error:
        fail(
            f"{error} on s3://{place.bucket}/{place.prefix}/* is denied to the host's credentials. "
            "Allow it in their policy, then type ./fab gc again."
        )
    except Trouble as trouble:
        fail(str(trouble))
    except SQLAlchemyError as error:
        # Its text may be many lines, and hold what was asked; the database's own is one.
        reason = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
        fail(f"The tracking database cannot be used: {reason}. Type: ./fab doctor")
