"""Answer what MLflow would answer with an error of its own, before it gets to see it.

An ASGI app around MLflow's. It looks at the path and two headers of a request and never at its
body, which streams through; of a request that is refused it is read to its end, and let go.
"""

import base64
import json
import re

from . import places

BASIC = re.compile(rb"basic +([A-Za-z0-9+/]+={0,2}) *", re.IGNORECASE)
# The Assistant runs programs on its host for whoever it takes for a person there.
ASSISTANT = "/ajax-api/3.0/mlflow/assistant"
# The AI gateway would pass any path on to the provider, with the server's key.
PASSING = "/gateway/proxy/"
# A path of the artifact proxy, from its root.
ARTIFACT = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/(?:artifacts|presigned|mpu/\w+)/(.*)")
BODY = (b"content-length", b"transfer-encoding")  # headers of a request that has one
LOGIN = (
    "You are not authenticated. Please see "
    "https://www.mlflow.org/docs/latest/auth/index.html#authenticating-to-mlflow "
    "on how to authenticate."
)


class Door:
    """MLflow's app behind a look at each request's path and headers."""

    def __init__(self, app, workspaces):
        self.app, self.workspaces = app, workspaces

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if any(name in BODY for name, _ in scope["headers"]):
            receive = Body(receive)
            send = receive.before(send)
        logins = [value for name, value in scope["headers"] if name == b"authorization"]
        if logins and not is_login(logins):
            await answer(send, 401, LOGIN.encode(), b"text/plain", CHALLENGE)
        elif message := self.refusal(scope):
            error = {"error_code": "INVALID_PARAMETER_VALUE", "message": message}
            await answer(send, 400, json.dumps(error).encode(), b"application/json")
        elif scope["path"].startswith((ASSISTANT, PASSING)):
            error = {"error_code": "PERMISSION_DENIED", "message": "This is closed here."}
            await answer(send, 403, json.dumps(error).encode(), b"application/json")
        else:
            await self.app(scope, receive, send)

    def refusal(self, scope):
        """Return why a request is refused, or nothing."""
        path = scope["path"]
        if ("%" in path or ".." in path or "\0" in path) and places.leads_out(path):
            return "A path has no '..' in it."
        if (found := ARTIFACT.fullmatch(path)) and found[1].lstrip("/").startswith("."):
            return "An artifact's path begins with its experiment, not with a dot."
        if self.workspaces or path.endswith("/mlflow/server-info"):
            return ""
        if any(name == b"x-mlflow-workspace" and value.strip() for name, value in scope["headers"]):
            return "Workspaces are not enabled on this server. Unset MLFLOW_WORKSPACE."
        return ""


class Body:
    """The body of a request, as ASGI's `receive`; `more` until its end has been read."""

    def __init__(self, receive):
        self.receive, self.more = receive, True

    async def __call__(self):
        message = await self.receive()
        self.more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    def before(self, send):
        """Return a `send` that reads the rest before it sends an error.

        uvicorn closes a connection whose request it has not read, and nginx, still sending it,
        then answers 502: a client would try again and again what it may not do.
        """

        async def read_first(message):
            if message["type"] == "http.response.start" and message["status"] >= 400:
                while self.more:
                    await self()
            await send(message)

        return read_first


CHALLENGE = (b"www-authenticate", b'Basic realm="mlflow"')


def is_login(values):
    """Tell whether this is one name and password as RFC 7617 spells them."""
    if len(values) != 1 or not (found := BASIC.fullmatch(values[0])):
        return False
    try:
        login = base64.b64decode(found[1], validate=True).decode()
    except ValueError:
        return False
    return ":" in login and login.isprintable()


async def answer(send, status, body, kind, *headers):
    length = (b"content-length", str(len(body)).encode())
    headers = [(b"content-type", kind), length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
