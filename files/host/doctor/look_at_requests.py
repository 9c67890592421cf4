"""Ask the running server, as clients do: is it up, does it take these logins and this name?

Runs on the host. Reports the status of each answer, None where there was none: `health`,
`stranger` (somebody without a login), `name`, and a `login` each.
"""

import dataclasses

import talk
from talk import report
from tracking import NOBODY, Tracking

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


@dataclasses.dataclass(frozen=True)
class Request:
    """The server's port and public name, and logins that say where they come from."""

    port: int
    logins: list  # {"source", "username", "password"}
    name: str = ""


asked = talk.request(Request)


def status(login=None, path=SEARCH, host=None):
    """Return the status of one answer."""
    try:
        return Tracking(asked.port, login, timeout=3).ask("GET", path, host=host)[0]
    except OSError:
        return None


report(status(path="/health"), key="health")
report(status(NOBODY), key="stranger")
if asked.name:
    report(status(NOBODY, host=asked.name), key="name")
for login in asked.logins:
    report({"source": login["source"], "status": status(login)}, key="login")
