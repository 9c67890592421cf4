"""Ask the running server, as clients do: is it up, does it take these logins and this name?

Runs on the host. Arguments: port, public name or "". Beside it lies logins.json, a list of
{"source": ..., "username": ..., "password": ...}. Prints `@report <key> <JSON>` lines.
"""

import json
import sys

from tracking import Tracking, staged

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
port, name = sys.argv[1], sys.argv[2]


def tell(key, value):
    print("@report %s\t%s" % (key, json.dumps(value)), flush=True)


def status(login=None, path=SEARCH, host=None):
    try:
        return Tracking(port, login, timeout=3).ask("GET", path, host=host)[0]
    except OSError:
        return None


tell("health", status(path="/health"))
tell("stranger", status())
if name:
    tell("name", status(host=name))
for login in staged("logins.json"):
    tell("login", {"source": login["source"], "status": status(login)})
