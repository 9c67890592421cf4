"""Tell a mistake of the client's from a fault of the server's.

MLflow answers 500 wherever a request makes one of its handlers raise what nobody catches: a number
that is none, a name longer than a file's may be, a question that is no GraphQL. Clients try such a
request again and again, and operators look for a fault that is not there. So what the request alone
is to blame for is 400; it stands in the log with its traceback all the same.
"""

import errno
import json
import logging

from botocore.exceptions import ClientError
from graphql import GraphQLError
from sqlalchemy.exc import DataError, IntegrityError

MESSAGE = "MLflow cannot do what this request asks: {}: {}"
LONGEST = 300  # characters of what is told of an error
# What Python, a database or S3 says of a value that it cannot use.
OF_VALUES = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError,
    GraphQLError, DataError, IntegrityError,
)  # fmt: skip
OF_FILES = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EINVAL})
# S3's, of a key or an upload; not those of the server's own keys, clock and bucket.
OF_OBJECTS = frozenset({
    "400", "404", "414", "EntityTooSmall", "InvalidArgument", "InvalidPart", "InvalidPartOrder",
    "InvalidURI", "KeyTooLongError", "MalformedXML", "NoSuchKey", "NoSuchUpload",
})  # fmt: skip
KINDS = (*OF_VALUES, OSError, ClientError)


def is_mistake(error):
    """Tell whether the request is to blame, so that the same one would always fail."""
    if isinstance(error, OSError):
        return error.errno in OF_FILES
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") in OF_OBJECTS
    return isinstance(error, OF_VALUES)


def is_caused(error):
    """Tell whether a mistake is behind an error of MLflow's own."""
    seen = []
    while (error := error.__cause__ or error.__context__) is not None and error not in seen:
        if is_mistake(error):
            return True
        seen.append(error)
    return False


def told(error):
    """Return what the client is answered with 400, as JSON; raise what is no mistake of its."""
    if not is_mistake(error):
        raise error
    logging.getLogger(__name__).warning("A request that cannot be done", exc_info=error)
    message = MESSAGE.format(type(error).__name__, error)[:LONGEST]
    return json.dumps({"error_code": "BAD_REQUEST", "message": message})
