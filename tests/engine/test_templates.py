"""Templates are strict: what is missing, or given and not used, is an error."""

from __future__ import annotations

import ast
import configparser
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jinja2
import pytest
from jinja2 import UndefinedError
from stand_ins import SETTINGS, blank

from tasks.changes import files
from tasks.engine import templates
from tasks.engine.settings import Settings
from tasks.engine.templates import programs, render, source, staged

UNIT = {"unit": "mlflow-server", "user": "ubuntu"}


def rendered(settings: Settings = SETTINGS) -> dict[str, str]:
    return {file.path: file.text for file in files.files(settings, blank())}


def test_a_missing_value_is_an_error():
    with pytest.raises(UndefinedError, match="user"):
        render("units/server.socket", unit="mlflow-server")


def test_a_value_that_the_template_does_not_use_is_an_error():
    with pytest.raises(ValueError, match=r"files/units/server\.socket does not use colour"):
        render("units/server.socket", colour="red", group="www-data", **UNIT)


def test_a_template_keeps_its_last_newline():
    assert render("units/tmpfiles.conf", group="www-data", **UNIT).endswith("root root\n")


def test_what_was_prepared_is_not_compiled_again(monkeypatch):
    rendered()  # the server's two scripts lie outside what is prepared
    templates.prepare()

    def again(*given: object) -> None:
        raise AssertionError(given)

    monkeypatch.setattr(jinja2.Environment, "from_string", again)
    assert rendered()


def test_threads_that_ask_at_the_same_moment_have_a_value_made_once():
    made, together = [], threading.Barrier(8)

    @templates.once
    def slow(name: str) -> str:
        made.append(name)
        time.sleep(0.05)
        return name.upper()

    def asked(name: str) -> str:
        together.wait()
        return slow(name)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(asked, "aaaabbbb")) == list("AAAABBBB")
    assert sorted(made) == ["a", "b"]


def test_only_nginx_s_sites_have_conditions():
    files = [path for path in templates.FILES.rglob("*.*") if path.suffix != ".pyc"]
    logical = [path for path in files if path.is_file() and "{%" in path.read_text()]
    assert {path.parent.name for path in logical} == {"nginx"}


def test_no_file_has_a_placeholder_left():
    for path, text in rendered().items():
        assert "{{" not in text, path


def test_reading_leaves_the_file_as_it_is():
    assert source("health.sh").startswith("# Wait until")


def test_a_restart_never_stops_at_a_start_limit():
    unit = rendered()["/etc/systemd/system/mlflow-server.service"]
    assert "StartLimitIntervalSec=0" in unit.split("[Service]")[0]
    assert "Restart=always" in unit
    assert "Requires=mlflow-server.socket" in unit


def test_the_unit_sees_its_root_and_the_aws_folder_although_home_is_hidden():
    unit = rendered()["/etc/systemd/system/mlflow-server.service"]
    assert "ProtectHome=tmpfs" in unit
    root = "/home/ubuntu/mlflow-server"
    assert f"\nBindPaths={root}\nReadOnlyPaths={root} -/run\n" in unit
    assert "BindReadOnlyPaths=-/home/ubuntu/.aws\n" in unit


def test_the_socket_is_never_below_home():
    socket = rendered()["/etc/systemd/system/mlflow-server.socket"]
    assert "ListenStream=/run/mlflow-server.sock\n" in socket


def test_nginx_listens_on_loopback_alone_unless_asked():
    site = rendered()["/etc/nginx/sites-available/mlflow-server"]
    listening = [line.strip() for line in site.splitlines() if line.strip().startswith("listen")]
    assert listening == ["listen 127.0.0.1:5000;"]


def test_nginx_closes_the_assistant_and_takes_artifacts_of_any_size():
    site = rendered()["/etc/nginx/sites-available/mlflow-server"]
    assert "location ^~ /ajax-api/3.0/mlflow/assistant { return 403; }" in site
    assert "client_max_body_size 0;" in site


def test_a_call_that_an_ending_server_did_not_read_is_sent_again_and_an_upload_streams():
    site = rendered()["/etc/nginx/sites-available/mlflow-server"]
    assert "proxy_next_upstream error non_idempotent;" in site
    assert "keepalive" not in site
    # nginx sends nothing again whose body it has not held.
    assert site.count("proxy_request_buffering off;") == 1
    uploads = re.search(
        r"location ~ (\S+) \{\n    client_max_body_size 0;\n    proxy_request_buffering off;", site
    )
    assert uploads
    for path in ("/api/2.0/mlflow-artifacts/artifacts/0/a",
                 "/ajax-api/2.0/mlflow-artifacts/artifacts/0/a"):  # fmt: skip
        assert re.match(uploads[1], path)
    # One that MLflow reads in a thread waits in nginx until it is whole.
    for path in ("/api/2.0/mlflow/runs/create", "/ajax-api/2.0/mlflow/upload-artifact"):
        assert not re.match(uploads[1], path)


@pytest.mark.parametrize(("access", "hidden"), [("proxied", True), ("direct", False)])
def test_proxied_clients_are_not_told_of_a_way_past_the_server(access, hidden):
    settings = Settings(bucket="my-bucket", artifact_access=access)
    site = rendered(settings)["/etc/nginx/sites-available/mlflow-server"]
    assert ("server-info { return 404; }" in site) is hidden


def test_a_second_environment_shares_no_path_port_or_prefix_with_the_first():
    settings = Settings(bucket="my-bucket", environment="staging", port=5010)
    root = f"/home/ubuntu/{settings.unit}"
    second = {file.path: file.text for file in files.files(settings, blank(root=root))}
    assert not rendered().keys() & second.keys()
    for path, text in second.items():
        assert "staging" in path, path
        assert "5000" not in text.replace("5010", ""), path
    assert "s3://my-bucket/mlflow-artifacts-staging\n" in second[f"{root}/start_mlflow_server.sh"]


@pytest.mark.parametrize("password", ["", " s3cr3t-phrase"])
def test_the_login_file_is_an_ini_whose_password_is_empty_yet_there(password):
    text = render(
        "mlflow_auth_config.ini",
        default_permission="READ",
        database_uri="sqlite:////root/basic_auth.db",
        username="admin",
        password=password,
    )
    config = configparser.ConfigParser()
    config.read_string(text)
    assert dict(config["mlflow"]) == {
        "default_permission": "READ",
        "database_uri": "sqlite:////root/basic_auth.db",
        "admin_username": "admin",
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "auth_cache_ttl_seconds": "60",
        "admin_password": password.strip(),
    }


def test_imports_are_found_as_python_s_parser_finds_them():
    for name, path in programs().items():
        if path.suffix != ".py":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text())))
        named = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
        named |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
        wanted = {f"{module}.py" for module in named} & programs().keys()
        assert set(templates._imported(name)) == wanted, name


def test_a_program_is_staged_with_all_that_it_imports():
    """Also what it imports where it needs it, and what that imports in turn."""
    assert set(staged("deep_check.py")) >= {"deep_check.py", "tracking.py"}
    assert set(staged("audit_users.py")) >= {"all_users.py", "databases.py", "postgres.py"}
    assert set(staged("deploy.sh")) == {"deploy.sh"}


def test_two_programs_of_one_name_are_refused(monkeypatch, tmp_path):
    for topic in ("backup", "users"):
        (tmp_path / "host" / topic).mkdir(parents=True)
        (tmp_path / "host" / topic / "same.py").touch()
    monkeypatch.setattr(templates, "FILES", tmp_path)
    with pytest.raises(ValueError, match=r"same\.py would be staged as one file"):
        programs.__wrapped__()
