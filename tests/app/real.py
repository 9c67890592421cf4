"""MLflow's own app in a process of its own: list what its requests hold, or make some.

    python real.py fields            one line for each route, message and field of this release
    python real.py routes            a JSON list of the routes, with the shape of what each takes
    python real.py requests APP      a JSON list of requests on stdin, of answers on stdout
    python real.py ways APP          the same, each with its answers by FastAPI and by Flask alone
    python real.py uploads APP       the same, each with its answers by queues and without
    python real.py statements APP    the same, each with the statements that a database got

Runs in the environment of any release that has a lock (files/releases); needs nothing else.
"""

import ast
import asyncio
import inspect
import json
import os
import re
import sys
import tempfile
import textwrap
import types
from base64 import b64encode
from urllib.parse import unquote

ADMIN, PASSWORD = "admin", "a-password-of-12"


def prepare(folder):
    """Set what `mlflow server` would hand to its worker, over SQLite and a folder."""
    database = f"sqlite:///{folder}/mlflow.db"
    with open(f"{folder}/auth.ini", "w") as file:
        file.write(
            "[mlflow]\ndefault_permission = READ\nauth_cache_ttl_seconds = 60\n"
            f"database_uri = sqlite:///{folder}/auth.db\n"
            f"admin_username = {ADMIN}\nadmin_password = {PASSWORD}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
    os.environ.update(
        MLFLOW_AUTH_CONFIG_PATH=f"{folder}/auth.ini",
        MLFLOW_FLASK_SERVER_SECRET_KEY="0" * 64,
        MLFLOW_DISABLE_TELEMETRY="true",
        MLFLOW_ENABLE_AI_GATEWAY="false",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        _MLFLOW_SGI_NAME="uvicorn",
        _MLFLOW_SERVER_FILE_STORE=database,
        _MLFLOW_SERVER_ARTIFACT_ROOT="mlflow-artifacts:/",
        _MLFLOW_SERVER_ARTIFACT_DESTINATION=f"{folder}/artifacts",
        _MLFLOW_SERVER_SERVE_ARTIFACTS="true",
        MLFLOW_BACKEND_STORE_URI=database,
    )
    try:
        import flask_wtf  # noqa: F401
    except ImportError:  # the project's own environment is no server's
        csrf = types.ModuleType("flask_wtf.csrf")
        csrf.CSRFProtect = type("CSRFProtect", (), {"init_app": lambda self, app: None})
        sys.modules.update({"flask_wtf": types.ModuleType("flask_wtf"), "flask_wtf.csrf": csrf})


# -- what requests hold --------------------------------------------------------------------------


def fields():
    """Return a line for each route, message and text field, once for api and ajax-api."""
    from mlflow.server import app, auth, handlers

    whole = auth.create_app(app)
    found = set()
    for message in handlers.HANDLERS:
        found.add(message.DESCRIPTOR.name)
        found.update(texts(message.DESCRIPTOR, message.DESCRIPTOR.name, ()))
    known = {handler.__name__ for handler in handlers.HANDLERS.values() if handler}
    for rule in app.url_map.iter_rules():
        if rule.endpoint not in known:
            methods = ",".join(sorted(rule.methods - {"HEAD", "OPTIONS"}))
            route = f"{methods} {plain(rule.rule)}"
            found.add(route)
            view = app.view_functions[rule.endpoint]
            found.update(f"{route} {name}" for name in {*rule.arguments, *literals(view)})
    found.update(native(whole))
    return sorted(found)


def plain(route):
    return route.replace("/ajax-api/", "/api/")


def texts(message, name, within):
    """Yield the fields of a message that hold text, those of its parts included."""
    for field in message.fields:
        here = f"{name}.{field.name}"
        if field.message_type is None:
            if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
                yield here
        elif field.message_type.full_name not in within:
            inner = (*within, field.message_type.full_name)
            yield from texts(field.message_type, here, inner)


def literals(view, deep=True):
    """Return the names that a handler without a message takes out of its request."""
    view = inspect.unwrap(view)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(view)))
    except (SyntaxError, OSError, TypeError):
        return set()  # a lambda, or Flask's own
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            found.add(text(node.slice))
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("get", "getlist", "pop") or "param" in name:
                found.update(text(argument) for argument in node.args[:1])
            for keyword in node.keywords:
                if keyword.arg == "schema" and isinstance(keyword.value, ast.Dict):
                    found.update(text(key) for key in keyword.value.keys)
            called = view.__globals__.get(name)
            if deep and inspect.isfunction(called) and name.endswith(("_handler", "_impl")):
                found |= literals(called, deep=False)
    return {name for name in found if name and " " not in name}


def text(node):
    value = getattr(node, "value", None)
    return value if isinstance(node, ast.Constant) and isinstance(value, str) else None


def native(app):
    """Yield the routes that FastAPI serves itself, with their parameters and bodies."""
    from fastapi.openapi.utils import get_openapi

    whole = get_openapi(title="MLflow", version="1", routes=app.routes)
    for path, methods in whole["paths"].items():
        for method, told in methods.items():
            route = f"{method.upper()} {plain(path)}"
            yield route
            for parameter in told.get("parameters", []):
                yield f"{route} {parameter['name']}"
            for body in told.get("requestBody", {}).get("content", {}).values():
                for name in parts(body["schema"], whole, "", ()):
                    yield f"{route} {name}"


def parts(schema, whole, name, within):
    """Yield the names of what a JSON schema describes."""
    if reference := schema.get("$ref"):
        if reference not in within:
            inner = whole["components"]["schemas"][reference.split("/")[-1]]
            yield from parts(inner, whole, name, (*within, reference))
        return
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from parts(choice, whole, name, within)
    for key, value in schema.get("properties", {}).items():
        here = f"{name}.{key}".lstrip(".")
        yield here
        yield from parts(value, whole, here, within)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from parts(schema[key], whole, name, within)


# -- the shape of requests -----------------------------------------------------------------------


def routes():
    """Return each route: method, path, the name that stands in decided.txt, and its shape.

    A shape is JSON whose leaves are kinds of values. That of a message is nested as its JSON is; a
    route that has none takes a flat object of names, in a query or in a body.
    """
    from mlflow.server import app, auth, handlers

    whole = auth.create_app(app)
    messages = {
        handler.__name__: message for message, handler in handlers.HANDLERS.items() if handler
    }
    found = []
    for rule in app.url_map.iter_rules():
        message = messages.get(rule.endpoint)
        if message:
            takes = shape(message.DESCRIPTOR, ())
        else:
            takes = dict.fromkeys(literals(app.view_functions[rule.endpoint]), "text")
        path = re.sub("<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", rule.rule)
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            name = message.DESCRIPTOR.name if message else f"{method} {plain(rule.rule)}"
            found.append({"method": method, "path": path, "name": name, "takes": takes})
    return [*found, *native_routes(whole)]


KINDS = {
    "google.protobuf.Timestamp": "time",
    "google.protobuf.Duration": "duration",
    "google.protobuf.Value": "text",
    "google.protobuf.Struct": {"x": "text"},
    "google.protobuf.FieldMask": "text",
}


def shape(message, within):
    """Return what a message looks like as JSON, with `text`, `number`, … for its values."""
    if message.full_name in KINDS:
        return KINDS[message.full_name]
    if message.full_name in within or len(within) > 5:
        return {}
    within = (*within, message.full_name)
    made = {}
    for field in message.fields:
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            value = inner.fields_by_name["value"]
            made[field.name] = {"key": kind(value, within)}
            continue
        value = kind(field, within)
        repeated = getattr(field, "is_repeated", None)
        if repeated is None:
            repeated = field.label == field.LABEL_REPEATED
        made[field.name] = [value] if repeated else value
    return made


def kind(field, within):
    if field.message_type is not None:
        return shape(field.message_type, within)
    if field.enum_type is not None:
        return "is " + field.enum_type.values[-1].name
    if field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        return "text"
    return "truth" if field.type == field.TYPE_BOOL else "number"


def native_routes(app):
    """Yield the routes that FastAPI serves itself, all their values as texts."""
    from fastapi.openapi.utils import get_openapi

    whole = get_openapi(title="MLflow", version="1", routes=app.routes)
    for path, methods in whole["paths"].items():
        for method, told in methods.items():
            names = {parameter["name"] for parameter in told.get("parameters", [])}
            for body in told.get("requestBody", {}).get("content", {}).values():
                names.update(parts(body["schema"], whole, "", ()))
            takes = {name: "text" for name in names if "." not in name}
            name = f"{method.upper()} {plain(path)}"
            yield {"method": method.upper(), "path": path, "name": name, "takes": takes}


# -- requests ------------------------------------------------------------------------------------


async def made(app, **request):
    """Make one request of an ASGI app; return its status and text."""
    first, text = await heard(app, **request)
    return first["status"], text


async def heard(app, method, path, body=None, login=(ADMIN, PASSWORD), headers=None, raw=None):
    """Make one request of an ASGI app; return the first message of its answer, and its text."""
    sent = {"content-type": "application/json", "host": "localhost", **(headers or {})}
    if login:
        sent.setdefault("authorization", "Basic " + b64encode(":".join(login).encode()).decode())
    content = (
        raw.encode() if raw is not None else b"" if body is None else json.dumps(body).encode()
    )
    sent["content-length"] = str(len(content))
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 80),
    }
    waiting, answers = [{"type": "http.request", "body": content}], []

    async def receive():
        return waiting.pop() if waiting else await asyncio.sleep(3600)

    async def send(message):
        answers.append(message)

    await app(scope, receive, send)
    return answers[0], b"".join(m.get("body", b"") for m in answers).decode()


def value_at(path, answers):
    """Return a part of an earlier answer: "3.run.info.run_id" is of the fourth."""
    first, *names = path.split(".")
    status, told = answers[int(first)]
    assert status == 200, (path, told)
    found = json.loads(told)
    for name in names:
        found = found[name]
    return found


async def all_made(app, requests):
    """Make requests in turn; <<4.name>> in one stands for what the fifth was answered."""
    answers = []
    for request in requests:
        spelt = json.dumps(request)
        for path in set(re.findall("<<(.*?)>>", spelt)):
            spelt = spelt.replace(f"<<{path}>>", str(value_at(path, answers)))
        answers.append(await made(app, **json.loads(spelt)))
    return answers


async def both_ways(app, requests):
    """Make each request by FastAPI's app, and by Flask alone where the server would."""
    direct = app
    while not hasattr(direct, "is_flasks"):
        direct = direct.app
    is_flasks, answers = direct.is_flasks, []
    for request in requests:
        both = await compared(app, request, direct, "is_flasks", (lambda path: False, is_flasks))
        answers.append((is_flasks(request["path"].partition("?")[0]), *both))
    return answers


async def uploads(app, requests):
    """Make each request by a queue for each middleware, and without where the server would."""
    from mlflow.server import artifact_router
    from remote_mlflow_app import unqueued

    artifact_router._get_artifact_repo = Taking
    is_upload, answers = unqueued.is_upload, []
    for request in requests:
        both = await compared(app, request, unqueued, "is_upload", (lambda scope: False, is_upload))
        scope = {"type": "http", **request}
        answers.append((is_upload(scope), *both))
    return answers


class Taking:
    """A repository that takes whatever comes."""

    def log_artifact(self, local_file, artifact_path):
        pass


async def compared(app, request, where, name, values):
    """Make a request with each of these values of an attribute; return status, headers, text."""
    found = []
    for value in values:
        setattr(where, name, value)
        first, text = await heard(app, **request)
        headers = sorted((key.decode(), told.decode()) for key, told in first["headers"])
        found.append((first["status"], headers, text))
    return found


async def with_statements(app, requests):
    """Make requests in turn; return the status of each, and the SQL that it took."""
    from sqlalchemy import Engine, event

    answers, sent = [], []
    event.listen(Engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    for request in requests:
        status, _ = await made(app, **request)
        answers.append((status, [*sent]))
        sent.clear()
    return answers


HOW = {
    "requests": all_made,
    "ways": both_ways,
    "uploads": uploads,
    "statements": with_statements,
}


def main():
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)
        if sys.argv[1] == "fields":
            print("\n".join(fields()))
            return
        if sys.argv[1] == "routes":
            print(json.dumps(routes()))
            return
        sys.path.insert(0, sys.argv[2])
        import remote_mlflow_app

        app = remote_mlflow_app.create_app()
        print(json.dumps(asyncio.run(HOW[sys.argv[1]](app, json.load(sys.stdin)))))


if __name__ == "__main__":
    main()
