"""Prove that the server is usable, not only up: login, database and bucket, through nginx.

Runs on the host. Arguments: port, and a JSON file {"username": ..., "password": ...} or "-" when
the operator has no login: then only what needs none is asked. /health alone proves neither the
database nor the bucket.
"""

import json
import sys

from tracking import Tracking, fail

port, login = sys.argv[1], sys.argv[2]


def ask(path, credentials=None):
    """Return status and body of one GET."""
    try:
        return Tracking(port, credentials).ask("GET", path)
    except OSError as error:
        fail("The server does not answer on port %s: %s. Type: ./fab logs" % (port, error))


SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
status, body = ask("/health")
if status != 200:
    fail("The server's /health says %s. Type: ./fab logs" % status)
status, body = ask(SEARCH)
if status != 401:
    fail("The server answers %s without a login, where 401 is right. Type: ./fab logs" % status)

if login != "-":
    with open(login) as stream:
        credentials = json.load(stream)
    status, body = ask(SEARCH, credentials)
    if status == 401:
        fail(
            "The server refuses the password of %(username)s. Type ./fab client to see which login "
            "is kept here, and give the right one in MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD. A lost one: ./fab users.reset-admin" % credentials
        )
    if status == 403:
        fail("The server refuses the Host header 127.0.0.1:%s. Type deploy again." % port)
    if status != 200:
        fail("The server cannot search its database (%s). Type: ./fab logs" % status)
    status, body = ask("/api/2.0/mlflow-artifacts/artifacts?path=", credentials)
    if status != 200:
        fail("The server cannot list the bucket (%s). Type configure, which names why." % status)
