"""The registry as it is asked on the host, what is said of it, and copies to other environments."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from host_side import program
from invoke import Exit
from stand_ins import SETTINGS, Recorder, Reply, Task, context, deployed

from tasks import registry as module
from tasks.engine import credentials
from tasks.engine.login import Login
from tasks.engine.server import Server
from tasks.engine.settings import Settings
from tasks.engine.ssh import Client
from tasks.laptop import copies
from tasks.laptop.copies import there
from tasks.registry import aliases, demote, list_, promote, show

LOGIN = Login("admin", "correct horse battery")
MOMENT = 1_795_519_175_479  # ms; 2026-11-24T11:19:35Z


# -- on the host -------------------------------------------------------------------------------


class Registry:
    """Plays the server's registry: models by name, pages of two, MLflow's own errors."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.forbidden = False

    def add(self, name: str, versions: int = 0, **values: Any) -> dict[str, Any]:
        model = {"aliases": {}, "tags": {}, "description": "", "versions": []} | values
        self.models[name] = model
        for _ in range(versions):
            self.add_version(model, {"source": "mlflow-artifacts:/1/r/artifacts/m", "run_id": "r"})
        return model

    def add_version(self, model: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        version = {
            "version": str(len(model["versions"]) + 1), "current_stage": "None",
            "creation_timestamp": MOMENT, **body,
        }  # fmt: skip
        model["versions"].append(version)
        return version

    def spelt(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        pairs = model["aliases"].items()
        return {
            "name": name, "creation_timestamp": MOMENT, "last_updated_timestamp": MOMENT,
            # The latest of each stage, as MLflow gives them.
            "latest_versions": model["versions"][:1] + model["versions"][-1:],
            "aliases": [{"alias": alias, "version": version} for alias, version in pairs],
            "tags": [{"key": key, "value": value} for key, value in model["tags"].items()],
            "description": model["description"],
        }  # fmt: skip

    def answer(self, method: str, path: str, ask: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append(f"{method} {path}")
        if self.forbidden:
            return 403, "Permission denied"
        name = ask.get("name", "")
        if path == "/registered-models/search":
            return self.page("registered_models", [self.spelt(key) for key in self.models], ask)
        if path == "/registered-models/create":
            if name in self.models:
                return 400, self.error("RESOURCE_ALREADY_EXISTS", f"{name} already exists")
            tags = {tag["key"]: tag["value"] for tag in ask["tags"]}
            self.add(name, tags=tags, description=ask["description"])
            return 200, {"registered_model": self.spelt(name)}
        if path == "/model-versions/search":
            quote = ask["filter"].removeprefix("name = ")
            assert quote[0] == quote[-1]
            found = self.models.get(quote[1:-1], {"versions": []})["versions"]
            return self.page("model_versions", found, ask)
        if name not in self.models:
            return 404, self.error("RESOURCE_DOES_NOT_EXIST", "not found")
        model = self.models[name]
        if path == "/registered-models/get":
            return 200, {"registered_model": self.spelt(name)}
        if path == "/model-versions/create":
            return 200, {"model_version": self.add_version(model, ask)}
        if path == "/model-versions/get":
            if not ask["version"].isdigit():
                return 400, self.error("INVALID_PARAMETER_VALUE", "must be an integer")
            found = [v for v in model["versions"] if v["version"] == str(int(ask["version"]))]
            return (200, {"model_version": found[0]}) if found else (
                404, self.error("RESOURCE_DOES_NOT_EXIST", "not found"))  # fmt: skip
        assert path == "/registered-models/alias"
        if method == "DELETE":
            del model["aliases"][ask["alias"]]
        elif ask["alias"] == "latest":
            return 400, self.error("INVALID_PARAMETER_VALUE", "'latest' is reserved.")
        else:
            model["aliases"][ask["alias"]] = ask["version"]
        return 200, {}

    @staticmethod
    def page(key: str, found: list[Any], ask: dict[str, Any]) -> tuple[int, Any]:
        start = int(ask.get("page_token") or 0)
        token = {"next_page_token": str(start + 2)} if start + 2 < len(found) else {}
        return 200, {key: found[start : start + 2], **token}

    @staticmethod
    def error(code: str, message: str) -> dict[str, str]:
        return {"error_code": code, "message": message}


class Program:
    """files/host/registry/registry.py against a registry on loopback."""

    def __init__(self, registry: Registry, capsys: Any) -> None:
        self.capsys = capsys
        pair = base64.b64encode(f"{LOGIN.username}:{LOGIN.password}".encode()).decode()

        class Handler(BaseHTTPRequestHandler):
            def reply(self) -> None:
                parts = urlsplit(self.path)
                ask = {key: values[0] for key, values in parse_qs(parts.query).items()}
                if length := int(self.headers.get("Content-Length") or 0):
                    ask = json.loads(self.rfile.read(length))
                status, answer = 401, {}
                if self.headers["Authorization"] == f"Basic {pair}":
                    path = parts.path.removeprefix("/api/2.0/mlflow")
                    status, answer = registry.answer(self.command, path, ask)
                self.send_response(status)
                self.end_headers()
                text = answer if isinstance(answer, str) else json.dumps(answer)
                self.wfile.write(text.encode())

            do_GET = do_POST = do_DELETE = reply

            def log_message(self, *words: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __call__(self, action: str, password: str = LOGIN.password, **request: Any) -> Any:
        """Run it; return what it reports, or its one line of failure."""
        code, out = program(
            self.capsys, "registry.py", port=self.server.server_port, action=action,
            login={"username": LOGIN.username, "password": password}, **request,
        )  # fmt: skip
        (line,) = out.splitlines()
        word, _, text = line.partition(" ")
        assert code == (word == "@fail")
        return text if code else json.loads(text)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def run(registry: Registry, capsys: Any) -> Iterator[Program]:
    running = Program(registry, capsys)
    yield running
    running.server.shutdown()
    running.server.server_close()


def test_all_pages_of_models_are_listed(run, registry):
    for number in range(5):
        registry.add(f"model-{number}", versions=number, aliases={"champion": "1"})
    found = run("list")
    assert [model["model"] for model in found] == [f"model-{number}" for number in range(5)]
    assert found[0]["latest_version"] is None
    assert found[4] == {
        "model": "model-4",
        "latest_version": "4",
        "aliases": {"champion": "1"},
        "created": "2026-11-24T11:19:35Z",
        "updated": "2026-11-24T11:19:35Z",
        "description": "",
        "tags": {},
    }


def test_an_empty_registry_is_an_empty_list(run):
    assert run("list") == []


@pytest.mark.parametrize("name", ["iris", "it's", 'so "called"', "a b é"])
def test_all_pages_of_versions_are_shown_the_newest_first(run, registry, name):
    model = registry.add(name, versions=11, aliases={"b": "2", "a": "2"})
    model["versions"][1]["current_stage"] = "Production"
    versions = run("show", model=name)["versions"]
    assert [row["version"] for row in versions] == [str(number) for number in range(11, 0, -1)]
    assert versions[9] == {
        "version": "2",
        "aliases": ["a", "b"],
        "stage": "Production",
        "created": "2026-11-24T11:19:35Z",
        "run": "r",
        "source": "mlflow-artifacts:/1/r/artifacts/m",
        "description": "",
        "tags": {},
    }
    assert versions[0]["stage"] is None


def test_an_unknown_model_is_answered_with_the_nearest(run, registry):
    registry.add("other")
    registry.add("another")
    registry.add("iris")
    for action in ("show", "point", "demote"):
        said = run(action, model="irs", version="1", wanted=["champion"], alias="a")
        assert said.startswith("There is no model 'irs' (did you mean 'iris'?). Type ./fab")
    assert run("show", model="x").startswith("There is no model 'x'. Type ./fab registry.list")


@pytest.mark.parametrize("version", ["9", "x", "latest"])
def test_an_unknown_version_is_answered_with_those_there_are(run, registry, version):
    registry.add("iris", versions=3)
    because = f"There is no version {version} of iris. Name one of those there are: 3, 2, 1."
    assert run("point", model="iris", version=version, wanted=["champion"]) == because
    assert run("version", model="iris", version=version) == because
    registry.add("bare")
    assert (
        run("version", model="bare", version=version)
        == "bare has no versions yet. Register one first."
    )


def test_of_many_versions_the_newest_are_named(run, registry):
    registry.add("iris", versions=30)
    assert run("version", model="iris", version="31").endswith(" 12, 11 and 10 older ones.")


@pytest.mark.parametrize(
    ("before", "words", "after", "changed"),
    [
        ({}, ("2", "champion", ""), {"champion": "2"}, {"champion": [None, "2"]}),
        ({}, ("02", "champion", ""), {"champion": "2"}, {"champion": [None, "2"]}),
        ({"champion": "1"}, ("2", "champion", ""), {"champion": "2"}, {"champion": ["1", "2"]}),
        ({"champion": "2"}, ("2", "champion", ""), {"champion": "2"}, {}),
        ({"x": "2"}, ("2", "champion", ""), {"x": "2", "champion": "2"}, {"champion": [None, "2"]}),
        # Production
        (
            {"champion": "1", "challenger": "2"},
            ("2", "champion", "challenger"),
            {"champion": "2"},
            {"champion": ["1", "2"], "challenger": ["2", None]},
        ),
        (
            {"challenger": "1"},
            ("2", "champion", "challenger"),
            {"challenger": "1", "champion": "2"},
            {"champion": [None, "2"]},
        ),
        # Archived
        (
            {"champion": "2", "challenger": "2"},
            ("2", "", "champion challenger"),
            {},
            {"champion": ["2", None], "challenger": ["2", None]},
        ),
        ({"champion": "1"}, ("2", "", "champion challenger"), {"champion": "1"}, {}),
    ],
)
def test_aliases_point_where_they_are_told(run, registry, before, words, after, changed):
    model = registry.add("iris", versions=3, aliases=dict(before))
    assert run(
        "point", model="iris", version=words[0], wanted=words[1].split(), unwanted=words[2].split()
    ) == {"version": "2", "changed": changed}
    assert model["aliases"] == after
    if not changed:
        assert not [line for line in registry.requests if not line.startswith("GET")]


def test_a_demotion_tells_which_version_had_the_alias(run, registry):
    model = registry.add("iris", versions=2, aliases={"champion": "2", "old": "1"})
    wanted = {"version": "2", "changed": {"champion": ["2", None]}}
    assert run("demote", model="iris", alias="champion") == wanted
    assert model["aliases"] == {"old": "1"}
    assert run("demote", model="iris", alias="champion") == {"version": None, "changed": {}}


def test_an_alias_that_mlflow_refuses_is_named(run, registry):
    registry.add("iris", versions=1)
    assert run("point", model="iris", version="1", wanted=["latest"]) == (
        "MLflow does not take 'latest' as an alias: 'latest' is reserved. Give another one, such "
        "as champion."
    )


def test_a_user_who_may_not_is_told_who_may(run, registry):
    registry.forbidden = True
    said = run("demote", model="iris", alias="champion")
    assert said.startswith("The server does not let admin do that (Permission denied).")
    assert "docs/registry.md" in said


def test_a_wrong_login_and_a_dead_server_are_one_line(run):
    assert run("list", password="wrong").startswith("The server refuses the password of admin.")
    run.server.shutdown()
    run.server.server_close()
    assert run("list").startswith("The server does not answer: ")


def test_a_copy_is_registered_once_with_its_model_and_tags(run, registry):
    registry.add("other", versions=3)
    wanted = {
        "model": {"name": "iris", "description": "of flowers", "tags": {"team": "a"}},
        "version": {
            "source": "mlflow-artifacts:/7/r/artifacts/model",
            "run_id": "r",
            "description": "good",
            "tags": {"copied_from.id": "abc", "k": "v"},
        },
    }
    assert run("copy-of", model="iris", identity="abc") is None
    assert run("register", entry=wanted) == "1"
    assert run("register", entry=wanted) == "1"
    assert run("copy-of", model="iris", identity="abc") == "1"
    assert run("copy-of", model="iris", identity="other") is None
    model = registry.models["iris"]
    assert (model["description"], model["tags"]) == ("of flowers", {"team": "a"})
    (version,) = model["versions"]
    assert version["source"] == "mlflow-artifacts:/7/r/artifacts/model"
    assert version["tags"][1] == {"key": "k", "value": "v"}
    wanted["version"]["tags"]["copied_from.id"] = "def"
    assert run("register", entry=wanted) == "2"


# -- looking -----------------------------------------------------------------------------------


MODEL = {
    "model": "iris",
    "latest_version": "2",
    "aliases": {"champion": "2", "challenger": "1"},
    "created": "2026-11-24T11:19:35Z",
    "updated": "2026-11-24T11:19:35Z",
    "description": "of flowers\nand leaves",
    "tags": {"team": "[a]"},
}
VERSION = {
    "version": "2",
    "aliases": ["champion"],
    "stage": None,
    "created": "2026-11-24T11:19:35Z",
    "run": "abc",
    "source": "models:/m-1",
    "description": "",
    "tags": {"k": "[v]"},
}


def ready(*reports: Any, settings: Settings = SETTINGS, known: bool = True) -> Task:
    c = context(deployed(settings), settings)
    if known:
        credentials.keep(c.server, LOGIN)
    c.recorder.replies = [Reply(f"@report {json.dumps(report)}\n@exit 0\n") for report in reports]
    return c


def test_a_look_is_one_exec_without_the_password_in_it():
    c = ready([MODEL])
    assert list_(c) == [MODEL]
    (run,) = c.recorder.runs
    assert {"look.sh", "registry.py", "tracking.py"} <= set(run.files)
    assert run.steps.splitlines()[-1] == '"$root/venv/bin/python" "$here/registry.py"'
    assert LOGIN.password not in run.command + run.steps
    assert json.loads(run.files["registry.json"]) == {
        "port": 5000, "action": "list",
        "login": {"username": LOGIN.username, "password": LOGIN.password},
    }  # fmt: skip


def test_the_table_has_all_hosts(capsys):
    module.show_models({"one": [MODEL], "two": [], "three": [MODEL | {"model": "[b]x"}]})
    out = capsys.readouterr().out
    assert "challenger → 1, champion → 2" in out
    assert "2026-11-24 11:19" in out
    assert "two    none yet" in out
    assert "[b]x" in out


def test_a_model_is_shown_with_its_versions(capsys):
    c = ready(MODEL | {"versions": [VERSION, VERSION | {"version": "1", "stage": "Staging"}]})
    module.show_versions({"ec2": show(c, "iris")})
    assert capsys.readouterr().out == (
        "iris\n"
        "  of flowers\n"
        "  and leaves\n"
        "  team: [a]\n"
        "  version 2  2026-11-24 11:19  champion\n"
        "    run: abc\n"
        "    source: models:/m-1\n"
        "    k: [v]\n"
        "  version 1  2026-11-24 11:19  champion, old stage Staging\n"
        "    run: abc\n"
        "    source: models:/m-1\n"
        "    k: [v]\n"
    )
    module.show_versions({"ec2": MODEL | {"versions": []}})
    assert "no versions yet" in capsys.readouterr().out


def request_of(run: Any) -> dict[str, Any]:
    """Read what the registry is asked, without whom it asks as."""
    request = json.loads(run.files["registry.json"])
    del request["login"]
    return request


def test_names_are_in_no_command_of_the_host_s():
    c = ready(MODEL | {"versions": []})
    show(c, "it's $(x)")
    (run,) = c.recorder.runs
    assert request_of(run) == {"port": 5000, "action": "show", "model": "it's $(x)"}
    assert "$(x)" not in run.steps + run.command


def test_without_a_login_it_says_how_to_give_one():
    with pytest.raises(Exit, match="No login for ec2 is known here"):
        list_(ready(known=False))


def test_a_host_without_a_server_says_what_to_type():
    c = ready([])
    list_(c)
    assert "fail 'There is no server on ec2 yet. Type: ./fab install" in (c.recorder.runs[0].steps)


# -- aliases -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alias", "stage", "wanted"),
    [
        (None, None, (["champion"], [])),
        ("blue", None, (["blue"], [])),
        (None, "Production", (["champion"], ["challenger"])),
        (None, "staging", (["challenger"], ["champion"])),
        (None, "Archived", ([], ["champion", "challenger"])),
        (None, "none", ([], ["champion", "challenger"])),
    ],
)
def test_a_stage_is_one_of_two_aliases_and_not_the_other(alias, stage, wanted):
    assert aliases(alias, stage) == wanted


@pytest.mark.parametrize(
    ("alias", "stage", "because"),
    [
        ("a", "Production", "Give one of them"),
        ("", None, "'' cannot be an alias"),
        ("a,b", None, "'a,b' cannot be an alias"),
        (None, "prod", r"Unknown stage 'prod' \(did you mean 'Production'\?\)"),
        (None, "", "Unknown stage ''.* Name one of Production, Staging, Archived, None"),
    ],
)
def test_what_is_no_alias_and_no_stage_is_refused_before_anything_is_sent(alias, stage, because):
    c = ready()
    with pytest.raises(Exit, match=because):
        promote(c, "iris", "2", alias=alias, stage=stage)
    assert c.recorder.runs == []


def test_a_promotion_says_what_was_before_and_how_to_take_it_back(capsys):
    c = ready({"version": "2", "changed": {"champion": ["1", "2"]}})
    promote(c, "iris", "2")
    (run,) = c.recorder.changes
    assert request_of(run) == {
        "port": 5000, "action": "point",
        "model": "iris", "version": "2", "wanted": ["champion"], "unwanted": [],
    }  # fmt: skip
    assert " registry.promote -" in run.command
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "✓ champion points at version 2 of iris (before: version 1)",
        "  to take it back: ./fab -H ec2 registry.promote iris 1 --alias champion",
    ]


def test_a_new_alias_is_taken_back_by_a_demotion_in_its_environment(capsys):
    settings = Settings(bucket="my-bucket", environment="staging")
    c = ready({"version": "2", "changed": {"blue": [None, "2"]}}, settings=settings)
    promote(c, "a b", "2", alias="blue")
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "✓ blue points at version 2 of a b (it is new)",
        "  to take it back: ./fab -H ec2 use staging registry.demote 'a b' --alias blue",
    ]


def test_a_stage_says_which_aliases_it_means(capsys):
    changed = {"challenger": [None, "2"], "champion": ["2", None]}
    promote(ready({"version": "2", "changed": changed}), "iris", "2", stage="Staging")
    out = capsys.readouterr().out
    assert "the version gets the alias challenger, and not champion" in out
    assert "✓ champion no longer points at version 2 of iris" in out
    assert "models:/iris@champion cannot be loaded" in out
    promote(ready({"version": "2", "changed": {}}), "iris", "2", stage="None")
    out = capsys.readouterr().out
    assert "loses the aliases champion and challenger" in out
    assert "nothing to change, version 2 of iris has neither alias" in out


def test_nothing_to_change_is_said(capsys):
    promote(ready({"version": "2", "changed": {}}), "iris", "02")
    assert "nothing to change, version 2 of iris is champion already" in capsys.readouterr().out
    demote(ready({"version": None, "changed": {}}), "iris")
    assert "nothing to change, iris has no alias champion" in capsys.readouterr().out


def test_a_demotion_says_which_version_had_it(capsys):
    c = ready({"version": "2", "changed": {"champion": ["2", None]}})
    demote(c, "iris")
    assert request_of(c.recorder.changes[0]) == {
        "port": 5000, "action": "demote", "model": "iris", "alias": "champion"
    }  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "✓ champion no longer points at version 2 of iris",
        "  models:/iris@champion cannot be loaded until it is set again",
        "  to take it back: ./fab -H ec2 registry.promote iris 2 --alias champion",
    ]


# -- copies ------------------------------------------------------------------------------------


FILE = {
    "mlflow": {
        "bucket": "my-bucket",
        "environments": {"staging": {"port": 5002}, "far": {"hosts": ["far-1", "far-2"]}},
    },
    "hosts": ["ec2"],
}


@pytest.mark.parametrize(
    ("to", "variables", "environment", "hosts"),
    [
        ("staging", {}, "staging", []),
        ("staging", {"FABRIC_HOSTS": "other"}, "staging", []),
        ("staging", {"FABRIC_MLFLOW_ENVIRONMENT": "far"}, "staging", []),
        ("far", {}, "far", ["far-1", "far-2"]),
        ("default", {"FABRIC_MLFLOW_ENVIRONMENT": "far"}, None, ["ec2"]),
    ],
)
def test_another_environment_is_settled_with_its_own_hosts(to, variables, environment, hosts):
    settings, found = there(FILE, variables, to)
    assert (settings.environment, found) == (environment, hosts)
    assert settings.bucket == "my-bucket"


def test_the_file_s_own_environment_does_not_hide_the_default_one():
    file = {"mlflow": FILE["mlflow"] | {"environment": "staging"}}
    assert there(file, {}, "default")[0].environment is None


def test_a_misspelt_environment_is_answered_with_the_nearest():
    with pytest.raises(Exit, match=r"Unknown environment 'stagin' \(did you mean 'staging'\?\)"):
        there(FILE, {}, "stagin")


class Transfer:
    """Plays the program that carries the files."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.errand: dict[str, Any] = {}
        self.environment: dict[str, str] = {}
        self.tunnels: list[str] = []
        self.broken = ""

    def __call__(self, words: Any, environment: Any, heard: Any, told: str) -> str | None:
        assert words[1:] == ["-m", "tasks.laptop.transfer"]
        self.errand, self.environment = json.loads(told), environment
        heard({"step": "fetched 2 files, 10 bytes"})
        if not self.failure:
            done = {"run_id": "r2", "source": "mlflow-artifacts:/9/r2/artifacts/model"}
            heard({"done": done | {"files": 2, "sha256": "f" * 64}})
        return self.failure


@pytest.fixture
def transfer(monkeypatch: pytest.MonkeyPatch) -> Transfer:
    transfer = Transfer()

    @contextmanager
    def forwarded(server: Server, port: int) -> Iterator[Any]:
        name = f"{server.settings.label} {server.name}"
        transfer.tunnels.append(name)
        yield SimpleNamespace(poll=lambda: 255 if name == transfer.broken else None)

    monkeypatch.setattr(copies, "forwarded", forwarded)
    monkeypatch.setattr(copies, "play", transfer)
    return transfer


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> dict[str, Server]:
    """The servers that copies go to, by host; made when first asked for."""
    made: dict[str, Server] = {}

    def server_on(host: str, settings: Settings, client: Client, config: Any) -> Server:
        server = Server(Recorder(host), settings, client, variables={})
        server._facts = deployed(settings)
        server.forget = lambda: None  # type: ignore[method-assign]
        server.connection.replies = [
            Reply("@report null\n@exit 0\n"),
            Reply('@report "7"\n@exit 0\n'),
        ]
        made[host] = server
        credentials.keep(server, Login("ann", "another horse battery"))
        return server

    monkeypatch.setattr(copies, "server_on", server_on)
    return made


def source() -> Task:
    c = ready(MODEL | {"versions": [VERSION]})
    c.config.update(FILE)
    return c


def test_a_copy_carries_the_files_then_registers_them_with_where_they_came_from(
    transfer, others, capsys
):
    module.copy(source(), "iris", "2", to="staging")
    assert transfer.tunnels == ["default ec2", "staging ec2"]
    assert transfer.errand["source"]["password"] == LOGIN.password
    assert transfer.errand["target"]["password"] == "another horse battery"
    assert transfer.errand["run_name"] == "iris/2 from default (ec2)"
    assert "another horse battery" not in transfer.environment.values()
    asking, registering = others["ec2"].connection.runs
    assert " registry.copy -" in registering.command
    wanted = request_of(registering)["entry"]
    assert wanted["model"] == {
        "name": "iris", "description": MODEL["description"], "tags": MODEL["tags"]
    }  # fmt: skip
    identity = wanted["version"]["tags"].pop("copied_from.id")
    assert request_of(asking) == {
        "port": 5002, "action": "copy-of", "model": "iris", "identity": identity
    }  # fmt: skip
    assert wanted["version"] == {
        "source": "mlflow-artifacts:/9/r2/artifacts/model",
        "run_id": "r2",
        "description": "",
        "tags": {
            "k": "[v]",
            "copied_from.server": "default (ec2)",
            "copied_from.version": "iris/2",
            "copied_from.run": "abc",
            "copied_from.sha256": "f" * 64,
        },
    }
    assert others["ec2"].connection.closed == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "✓ version 2 of iris is version 7 of iris on staging (ec2): 2 files, SHA-256 ffffffffffff",
        "  to have it served there: ./fab -H ec2 use staging registry.promote iris 7",
    ]


def test_a_copy_goes_to_every_host_that_the_environment_names(transfer, others):
    c = source()
    c.recorder.replies *= 2
    module.copy(c, "iris", "2", to="far", name="flowers")
    assert list(others) == ["far-1", "far-2"]
    assert transfer.tunnels == ["default ec2", "far far-1", "default ec2", "far far-2"]


def test_a_copy_that_is_there_is_named_and_nothing_done(transfer, others, monkeypatch, capsys):
    made = copies.server_on

    def with_a_copy(*words: Any) -> Server:
        server = made(*words)
        server.connection.replies = [Reply('@report "4"\n@exit 0\n')]
        return server

    monkeypatch.setattr(copies, "server_on", with_a_copy)
    module.copy(source(), "iris", "2", to="staging")
    assert "nothing to change, version 2 of iris is version 4 of iris on staging (ec2)" in (
        capsys.readouterr().out
    )
    assert transfer.tunnels == []


def test_a_failed_transfer_registers_nothing(transfer, others):
    transfer.failure = "a.bin came back other than it was sent. Run the same command again"
    with pytest.raises(Exit, match=r"Nothing is registered on staging \(ec2\): a\.bin came back"):
        module.copy(source(), "iris", "2", to="staging")
    assert len(others["ec2"].connection.runs) == 1


def test_a_tunnel_that_broke_is_named(transfer, others):
    transfer.failure, transfer.broken = "MlflowException: a page of text", "staging ec2"
    with pytest.raises(
        Exit, match=r": the tunnel to staging \(ec2\) broke\. Run the same command again"
    ):
        module.copy(source(), "iris", "2", to="staging")


def test_the_identity_of_a_copy_is_the_version_and_its_name_there_not_the_operator_s_alias():
    def identity(alias: str = "ec2", name: str = "iris", **values: Any) -> str:
        server = context(alias=alias).server
        return copies.origin_of(server, "iris", VERSION | values, name)["copied_from.id"]

    assert identity() == identity("my-host")
    others = {identity(name="x"), identity(run=None), identity(created="x"), identity(version="3")}
    assert len(others | {identity()}) == 5


def test_a_copy_to_where_it_is_already_is_refused(transfer, others):
    c = source()
    with pytest.raises(Exit, match=r"default \(ec2\) is where the version is already"):
        module.copy(c, "iris", "2", to="default")
    assert c.recorder.runs == []


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b"])
def test_a_name_that_mlflow_would_refuse_is_refused_before_anything_is_carried(transfer, name):
    with pytest.raises(Exit, match="cannot be a model's name"):
        module.copy(source(), "iris", "2", to="staging", name=name)


def test_what_is_wrong_with_the_other_server_names_it(transfer, others, monkeypatch):
    made = copies.server_on

    def broken(reply: str) -> Any:
        def server_on(*words: Any) -> Server:
            server = made(*words)
            server.connection.replies = [Reply(f"@fail {reply}\n@exit 1\n")]
            return server

        return server_on

    monkeypatch.setattr(copies, "server_on", broken("The server is down"))
    with pytest.raises(Exit, match=r"^staging \(ec2\): The server is down$"):
        module.copy(source(), "iris", "2", to="staging")
    monkeypatch.setattr(copies, "server_on", broken("The server refuses the password of ann."))
    because = (
        r"is refused\. Have it kept: MLFLOW_TRACKING_USERNAME=… MLFLOW_TRACKING_PASSWORD=… "
        r"\./fab -H ec2 use staging configure"
    )
    with pytest.raises(Exit, match=because):
        module.copy(source(), "iris", "2", to="staging")


def test_without_a_login_for_the_other_server_it_says_how_to_keep_one(transfer, others):
    made = others
    c = source()
    module.copy(c, "iris", "2", to="staging")
    credentials.copy_of(made["ec2"]).unlink()
    with pytest.raises(Exit, match=r"No login for staging \(ec2\) is known here. Have it kept"):
        copies.login_there(made["ec2"])


# A login in the variables is the source's: the other server's kept one comes first.
def test_the_other_server_s_kept_login_comes_before_the_variables(transfer, others):
    module.copy(source(), "iris", "2", to="staging")
    server = others["ec2"]
    server.variables = {"MLFLOW_TRACKING_PASSWORD": "the password of the source"}
    assert copies.login_there(server).username == "ann"
    credentials.copy_of(server).unlink()
    assert copies.login_there(server).password == "the password of the source"
