"""Look at and change users and their grants, through the server's own interface.

Runs on the host. Reports one JSON value. Every action can be repeated: what is as it should be
stays.
"""

import dataclasses
import difflib

import talk
from talk import fail
from tracking import Refused, Tracking

API, API3 = "/api/2.0/mlflow", "/api/3.0/mlflow"
KINDS = {"experiment": "experiment", "registered_model": "model"}


@dataclasses.dataclass(frozen=True)
class Request:
    """One of ACTIONS, of the server at this port, as the user with this login."""

    port: int
    login: dict
    action: str
    name: str = ""  # whose login, or grant
    password: str = ""
    admin: bool = False
    on: str = ""  # the experiment's name or number, or the model's name
    model: bool = False
    permission: str = ""
    users: list = ()  # a team's: {"name", "password", "admin"}
    grants: list = ()  # and its grants: {"name", "on", "model", "permission"}


asked = talk.request(Request)
login = asked.login
server = Tracking(asked.port, login)
_names = {}  # of experiments, by id: each is asked for once


def users():
    """Return all users by name."""
    return {user["username"]: user for user in server.call("GET", API + "/users/list")["users"]}


def user_of(name):
    there = users()
    if name not in there:
        near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        fail(f"There is no user '{name}'{hint}. Type ./fab users.list to see those there are.")
    return there[name]


def grants_of(name):
    """List the grants that were made to this user, in the order they were made."""
    query = {"username": name}
    rows = server.call("GET", API3 + "/users/permissions/list", query)["permissions"]
    return [
        {"on": KINDS[row["resource_type"]], "id": row["resource_pattern"],
         "permission": row["permission"]}
        for row in rows
        if row["resource_type"] in KINDS and row["role_name"].startswith("__user_")
    ]  # fmt: skip


def name_of(kind, resource):
    """Name an experiment to people; a model's id is its name."""
    if kind == "model":
        return resource
    if resource not in _names:
        try:
            query = {"experiment_id": resource}
            found = server.call("GET", API + "/experiments/get", query)
            _names[resource] = found["experiment"]["name"]
        except Refused:
            _names[resource] = None  # deleted for good
    return _names[resource]


def resource_of(request):
    """Return kind and id of what a grant is for; an experiment is given by name or id."""
    wanted = request.on
    if request.model:
        try:
            server.call("GET", API + "/registered-models/get", {"name": wanted})
        except Refused as no:
            if no.code != "RESOURCE_DOES_NOT_EXIST":
                raise
            fail(f"There is no model '{wanted}'. Type ./fab registry.list to see those there are.")
        return "registered_model", wanted
    for path, query in (("get-by-name", {"experiment_name": wanted}),
                        ("get", {"experiment_id": wanted})):  # fmt: skip
        try:
            found = server.call("GET", API + "/experiments/" + path, query)
            return "experiment", found["experiment"]["experiment_id"]
        except Refused as no:
            if no.code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
    body = {"max_results": 1000}
    there = server.call("POST", API + "/experiments/search", body=body).get("experiments", [])
    near = difflib.get_close_matches(wanted, [one["name"] for one in there], n=1, cutoff=0.5)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    fail(f"There is no experiment '{wanted}'{hint}. Give its name or its number.")


def takes(name, password):
    """Tell whether the server takes this login."""
    there = Tracking(asked.port, {"username": name, "password": password})
    return there.ask("GET", API + "/users/current")[0] == 200


def listed(_):
    return [
        {
            "user": name,
            "admin": user["is_admin"],
            "grants": [
                grant | {"name": name_of(grant["on"], grant["id"])} for grant in grants_of(name)
            ],
        }
        for name, user in sorted(users().items())
    ]


def made(request, there):
    """Make a user; True where it is new, or was made with this password before."""
    name, password = request.name, request.password
    if name in there:
        return takes(name, password)
    body = {"username": name, "password": password}
    server.call("POST", API + "/users/create", body=body)
    return True


def raised(request, there):
    """Make a user an admin who is to be one."""
    if request.admin and not there.get(request.name, {}).get("is_admin"):
        body = {"username": request.name, "is_admin": True}
        server.call("PATCH", API + "/users/update-admin", body=body)


def add(request):
    there = users()
    if not made(request, there):
        fail(
            f"There is a user '{request.name}' already. For a new password type: "
            f"./fab users.passwd --name {request.name}"
        )
    raised(request, there)
    return {}


def remove(request):
    user = user_of(request.name)
    if request.name == login["username"]:
        fail(f"You are logged in as {request.name}: another admin has to remove it.")
    admins = [name for name, one in users().items() if one["is_admin"]]
    if user["is_admin"] and len(admins) == 1:
        fail(f"{request.name} is the last admin. Make another one first.")
    server.call("DELETE", API + "/users/delete", body={"username": request.name})
    return {}


def passwd(request):
    name, password = request.name, request.password
    if takes(name, password):
        return {}  # an earlier attempt was cut short after this step
    body = {"username": name, "password": password}
    if name == login["username"]:
        body["current_password"] = login["password"]
    else:
        user_of(name)
    server.call("PATCH", API + "/users/update-password", body=body)
    return {}


def forget(request):
    """Have the server forget what it remembers of a user's password, by changing nothing."""
    body = {"username": request.name, "is_admin": True}
    server.call("PATCH", API + "/users/update-admin", body=body)
    return {}


def grant(request):
    """Give a permission; what was given before for the same is replaced."""
    user_of(request.name)
    kind, resource = resource_of(request)
    former = [
        one["permission"]
        for one in grants_of(request.name)
        if (one["on"], one["id"]) == (KINDS[kind], resource)
    ]
    answer = {"former": former[0] if former else None, "on": name_of(KINDS[kind], resource)}
    if former == [request.permission]:
        return answer
    body = {"username": request.name, "resource_type": kind, "resource_id": resource}
    if former:
        server.call("POST", API3 + "/users/permissions/revoke", body=body)
    wanted = body | {"permission": request.permission}
    server.call("POST", API3 + "/users/permissions/grant", body=wanted)
    return answer


def revoke(request):
    user_of(request.name)
    kind, resource = resource_of(request)
    body = {"username": request.name, "resource_type": kind, "resource_id": resource}
    try:
        server.call("POST", API3 + "/users/permissions/revoke", body=body)
    except Refused as no:
        if no.code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {"revoked": False, "on": name_of(KINDS[kind], resource)}
    return {"revoked": True, "on": name_of(KINDS[kind], resource)}


def bring(request):
    """Make a team: users that are there already stay as they are, but get their grants."""
    there = users()
    wanted = [dataclasses.replace(request, **one) for one in request.users]
    grants = [dataclasses.replace(request, **one) for one in request.grants]
    for one in grants:
        resource_of(one)  # before anything is made
    new = [one.name for one in wanted if made(one, there)]
    for one in wanted:
        if one.name in new:
            raised(one, there)
    for one in grants:
        grant(one)
    return {"new": new, "there": [one.name for one in wanted if one.name not in new]}


ACTIONS = {
    "list": listed,
    "add": add,
    "remove": remove,
    "passwd": passwd,
    "forget": forget,
    "grant": grant,
    "revoke": revoke,
    "import": bring,
}

try:
    talk.report(ACTIONS[asked.action](asked))
except Refused as no:
    if no.status == 403:
        fail(
            f"{login['username']} is no admin, and may not do that. Give an admin's login in "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    fail(f"The server refuses: {no.message}")
