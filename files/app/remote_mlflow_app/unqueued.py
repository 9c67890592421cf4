"""Pass an upload through FastAPI's middlewares with no queue and no task for each piece of it.

Starlette runs a middleware that is a function beside what it calls, in a task of its own, and hands
over each piece of a body and of an answer by a queue: a task more for each piece and middleware.
MLflow's three look at a request before it goes on and at the head of the answer, and never at a
body. So an upload, whose answer is short, goes to them and on in one task. All other requests, and
a middleware of any other name, have it as before.
"""

from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from . import direct

UPLOADS = tuple(f"/{api}/2.0/mlflow-artifacts/artifacts/" for api in ("api", "ajax-api"))


def stand(app):
    """Have FastAPI's app, which has answered nothing yet, take uploads so."""
    app.user_middleware = [unqueued(each) for each in app.user_middleware]


def unqueued(middleware):
    if middleware.cls is BaseHTTPMiddleware and direct.is_known(middleware):
        return Middleware(Unqueued, *middleware.args, **middleware.kwargs)
    return middleware


class Unqueued(BaseHTTPMiddleware):
    """A middleware that waits for the answer to an upload, and then has it whole."""

    async def __call__(self, scope, receive, send):
        if not is_upload(scope):
            await super().__call__(scope, receive, send)
            return

        async def call_next(request):
            answer = Whole()
            await self.app(scope, receive, answer.take)
            return answer.response()

        response = await self.dispatch_func(Request(scope, receive), call_next)
        await response(scope, receive, send)


def is_upload(scope):
    return (
        scope["type"] == "http" and scope["method"] == "PUT" and scope["path"].startswith(UPLOADS)
    )


class Whole:
    """An answer that is short, taken as ASGI's `send` takes it."""

    def __init__(self):
        self.first, self.pieces = None, []

    async def take(self, message):
        if message["type"] == "http.response.start":
            self.first = message
        elif message["type"] == "http.response.body":
            self.pieces.append(message.get("body", b""))

    def response(self):
        """Return it; TypeError where nothing was answered."""
        response = Response(b"".join(self.pieces), self.first["status"])
        response.raw_headers = list(self.first["headers"])
        return response
