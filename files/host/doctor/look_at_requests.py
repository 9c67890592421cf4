"""Ask the running server, as clients do: is it up, does it take these logins and this name?

Runs on the host. Reports the status of each answer: `health`, `stranger` (somebody without a
login), `name`, and a `login` each; or `silent`, for how many seconds /health was not answered.
Fails at the first request that nobody answers, with why as the last line of its errors.
"""

import dataclasses
import sys

import talk
from talk import report
from tracking import NOBODY, Tracking

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's port and public name, logins that say where they come from, and patience.

    `patience` is how many seconds one answer may take.
    """

    port: int
    patience: float
    logins: list  # {"source", "username", "password"}
    name: str = ""


asked = talk.request(Request)


def status(login=None, path=SEARCH, host=None):
    """Return the status of one answer; raises OSError where there is none."""
    return Tracking(asked.port, login, timeout=asked.patience).ask("GET", path, host=host)[0]


def health():
    try:
        return status(path="/health")
    except OSError as error:
        if "timed out" in str(error):
            report(asked.patience, key="silent")
        raise


try:
    report(health(), key="health")
    report(status(NOBODY), key="stranger")
    if asked.name:
        report(status(NOBODY, host=asked.name), key="name")
    for login in asked.logins:
        report({"source": login["source"], "status": status(login)}, key="login")
except OSError as error:
    why = f"within {asked.patience:g} s" if "timed out" in str(error) else f"({error})"
    sys.exit(f"the server did not answer {why}")
