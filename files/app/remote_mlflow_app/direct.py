"""Hand Flask what Flask answers: FastAPI would look at it, and pass it on.

MLflow has its handlers in Flask, and before that an app of FastAPI's for what came later. Three of
this app's middlewares concern its own routes and leave Flask's alone; yet each has a task and a
queue for every request and its answer, and what calls Flask wakes the event loop for every part of
an answer. That was a quarter of what a writer's request takes (docs/performance.md).

Which paths are Flask's, MLflow is asked: those without a variable part, that no other route takes
and that its own check of logins for FastAPI leaves to Flask's. All others, and all of them in a
release that cannot be asked so, go the whole way.
"""

import functools

import anyio.from_thread
import anyio.to_thread
from mlflow.server import fastapi_app
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.routing import Match, Mount

# What does nothing to a request that is Flask's; a middleware of any other name is kept.
NEEDLESS = {
    "fastapi_permission_middleware",
    "gateway_timing_middleware",
    "workspace_context_middleware",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
HELD = 1 << 20  # bytes of an answer that are kept until it is whole


def before(app, flask, failed, find_validator):
    """Return `app` behind what gives Flask its requests; alone where nobody knows which those are.

    `failed` answers for what is raised; `find_validator` is MLflow's, or None.
    """
    *others, last = app.routes
    build_environ = getattr(fastapi_app, "build_environ", None)
    # FastAPI would count a limited body itself.
    limit = getattr(app, "max_body_size", None)
    if not (find_validator and build_environ and limit is None and is_root(last, flask)):
        return app
    straight = Wsgi(flask, build_environ)
    for middleware in reversed(kept(app.user_middleware)):
        straight = middleware.cls(straight, *middleware.args, **middleware.kwargs)
    fixed = {rule.rule for rule in flask.url_map.iter_rules() if not rule.arguments}
    is_flasks = alone(others, find_validator)
    return Direct(
        app,
        ServerErrorMiddleware(straight, failed),
        lambda path: path in fixed and is_flasks(path),
    )


def is_root(route, flask):
    """Tell whether this is where Flask answers whatever no other route takes."""
    return (
        isinstance(route, Mount) and route.path == "" and getattr(route.app, "app", None) is flask
    )


class Direct:
    """An ASGI app that gives Flask's requests to Flask, and all others to FastAPI's app."""

    def __init__(self, app, straight, is_flasks):
        self.app, self.straight, self.is_flasks = app, straight, is_flasks

    async def __call__(self, scope, receive, send):
        straight = scope["type"] == "http" and self.is_flasks(scope["path"])
        await (self.straight if straight else self.app)(scope, receive, send)


def alone(routes, find_validator):
    """Return what tells whether neither a route nor a check of logins of FastAPI's has a path."""

    @functools.cache
    def is_flasks(path):
        scope = {"type": "http", "path": path, "method": "GET", "root_path": "", "headers": []}
        return all(route.matches(scope)[0] is Match.NONE for route in routes) and not any(
            find_validator(path, method) for method in METHODS
        )

    return is_flasks


def kept(middlewares):
    """Return those that do something to Flask's requests, the first outermost."""
    return [each for each in middlewares if not is_known(each)]


def is_known(middleware):
    """Tell whether this is one that we know: they leave Flask's requests, and bodies, alone."""
    return getattr(middleware.kwargs.get("dispatch"), "__name__", None) in NEEDLESS


class Wsgi:
    """Flask's app as an ASGI app; answers run in threads, as many as those of FastAPI's."""

    def __init__(self, flask, build_environ):
        self.flask, self.build_environ = flask, build_environ

    async def __call__(self, scope, receive, send):
        body = await whole(receive)
        if body is None:
            return
        answer, environ = Answer(send), self.build_environ(scope, body)
        await anyio.to_thread.run_sync(answer.read, self.flask, environ)
        await answer.send_held()


async def whole(receive):
    """Return a request's body, or None where whoever sent it is gone before its end."""
    pieces, more = [], True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(pieces)


class Answer:
    """What Flask answers: sent once it is whole, or in parts where it is long."""

    def __init__(self, send):
        self.send, self.first, self.held, self.size = send, None, [], 0

    def read(self, flask, environ):
        pieces = flask(environ, self.start)
        try:
            for piece in pieces:
                self.held.append(piece)
                self.size += len(piece)
                if self.size > HELD:
                    anyio.from_thread.run(self.send_held, True)
        finally:
            getattr(pieces, "close", bool)()

    def start(self, status, headers, error=None):
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        status = int(status.split(" ", 1)[0])
        self.first = {"type": "http.response.start", "status": status, "headers": headers}

    async def send_held(self, more=False):
        if self.first:
            await self.send(self.first)
        body = b"".join(self.held)
        self.first, self.held, self.size = None, [], 0
        await self.send({"type": "http.response.body", "body": body, "more_body": more})
