"""What fabric.yaml and the variables settle to, and how every mistake is named."""

from __future__ import annotations

import pytest
from invoke import Exit

from tasks.engine.settings import SCALARS, Settings, checked, settle


def error(values: dict[str, object]) -> str:
    with pytest.raises(Exit) as caught:
        checked(values)
    return str(caught.value.message)


def settle_error(file: object, variables: dict[str, str] | None = None) -> str:
    with pytest.raises(Exit) as caught:
        settle(file, variables or {})  # type: ignore[arg-type]
    assert caught.value.message is not None
    return caught.value.message


def test_nothing_given_is_every_default():
    settings, hosts = settle(None, {})
    assert settings == Settings()
    assert hosts == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("backup_prefix", "mlflow-backups"),
        ("profile", "default"),
        ("port", 5000),
        ("local_port", 5001),
        ("bind", "127.0.0.1"),
        ("workers", 1),
        ("username", "admin"),
        ("default_permission", "READ"),
        ("artifact_access", "proxied"),
        ("artifact_prefix", "mlflow-artifacts"),
        ("root_path", "~/mlflow-server"),
        ("unit", "mlflow-server"),
        ("label", "default"),
    ],
)
def test_the_defaults_are_the_guide_s(key, value):
    assert getattr(Settings(), key) == value


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"buckett": "x"}, "Unknown setting `mlflow: buckett:` (did you mean 'bucket'?)"),
        ({"environmets": {}}, "(did you mean 'environments'?)"),
        ({"zzz": 1}, "Unknown setting `mlflow: zzz:`."),
        ({5: 1}, "Unknown setting `mlflow: 5:`"),
        ({"port": "http"}, "`mlflow: port:` is 'http', not a whole number"),
        ({"port": 80}, "`mlflow: port:` is 80: input should be greater than or equal to 1024"),
        ({"port": 70000}, "less than or equal to 65535"),
        ({"workers": 1.5}, "`mlflow: workers:` is 1.5"),
        ({"workers": -1}, "`mlflow: workers:` is -1"),
        ({"version": 3.17}, "`mlflow: version:` is 3.17, not text (quote it)"),
        (
            {"version": "latest"},
            "`mlflow: version:` is 'latest': give a release's number",
        ),
        ({"bucket": "My_Bucket"}, "`mlflow: bucket:` is 'My_Bucket'"),
        ({"bucket": "s3://x"}, "`mlflow: bucket:` is 's3://x'"),
        ({"prefix": "/a/"}, "`mlflow: prefix:` is '/a/'"),
        ({"root": "relative"}, "`mlflow: root:` is 'relative'"),
        ({"root": "~/a b"}, "`mlflow: root:` is '~/a b'"),
        ({"root": "~/a;reboot"}, "`mlflow: root:`"),
        ({"endpoint_url": "minio:9000"}, "`mlflow: endpoint_url:` is 'minio:9000'"),
        ({"profile": "a b"}, "`mlflow: profile:` is 'a b'"),
        ({"bind": "127.0.0.1; #"}, "`mlflow: bind:`"),
        ({"username": "a:b"}, "`mlflow: username:` is 'a:b'"),
        ({"default_permission": "ALL"}, "`mlflow: default_permission:` is 'ALL'"),
        ({"artifact_access": "both"}, "`mlflow: artifact_access:` is 'both'"),
        ({"environment": "Big One"}, "`mlflow: environment:` is 'Big One'"),
        ({"memory_max": "lots"}, "`mlflow: memory_max:` is 'lots': give mega- or gigabytes"),
        (
            {"memory_max": "300M"},
            "`mlflow: memory_max:` is '300M': a server needs 512M",
        ),
        ({"bucket": "s3://x"}, "give the bucket's name alone: basketworld, not s3://basketworld"),
        ({"prefix": ".."}, "`mlflow: prefix:` is '..': give letters"),
        ({"prefix": "a/../b"}, "`mlflow: prefix:` is 'a/../b'"),
        ({"backup_prefix": "a/."}, "`mlflow: backup_prefix:` is 'a/.'"),
        ({"root": "/etc"}, "`mlflow: root:` is '/etc': that is the system's"),
        ({"root": "/usr/local/mlflow"}, "that is the system's"),
        ({"root": "/tmp"}, "that is the system's"),
        ({"root": "/var/tmp/mlflow"}, "that is the system's"),
        ({"root": "~/.ssh"}, "~/.ssh is for other programs. Give a folder of its own"),
        ({"root": "/home/ubuntu/.aws/x"}, "it holds what others need"),
        ({"root": "~/../../etc"}, "give the folder's whole path, without . and .."),
        ({"root": "~/a//b"}, "without . and .. or a / too many"),
        ({"root": "~/"}, "`mlflow: root:` is '~/'"),
        ({"root": "//"}, "`mlflow: root:` is '//'"),
        ({"root": "/srv"}, "it holds what others need. Give a folder of the server's own below it"),
        ({"root": "/home/ubuntu"}, "it holds what others need"),
        ({"root": "~ubuntu/x"}, "`mlflow: root:` is '~ubuntu/x'"),
        ({"balancer": "0.0.0.0/0"}, "0.0.0.0/0 lets anybody speak for others"),
        ({"balancer": "10.0.1.10, ::/0"}, "::/0 lets anybody speak for others"),
        ({"balancer": "128.0.0.0/1"}, "128.0.0.0/1 lets anybody speak for others"),
        ({"username": "../../x"}, "`mlflow: username:` is '../../x': give letters, digits"),
        ({"username": "-x"}, "`mlflow: username:` is '-x'"),
        ({"bind": "-x"}, "`mlflow: bind:` is '-x': give letters, digits"),
        ({"profile": "-x"}, "`mlflow: profile:` is '-x'"),
        ({"public_name": "-x.org"}, "`mlflow: public_name:` is '-x.org'"),
        ({"version": "3.17.2\n"}, "`mlflow: version:`"),
        ({"confirm": "no"}, "`mlflow: confirm:` is 'no'"),
        ({"keep": {"hourli": 1}}, "`mlflow: keep.hourli:` is 1, not a known key"),
        ({"keep": {"daily": -1}}, "`mlflow: keep.daily:` is -1"),
        ({"keep": 7}, "`mlflow: keep:` is 7"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(values, wanted):
    message = error(values)
    assert wanted in message
    assert "fabric.yaml" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "values",
    [
        {"root": "~/mlflow-server"}, {"root": "~/team/mlflow"}, {"root": "/srv/mlflow"},
        {"root": "/opt/mlflow"}, {"root": "/data/a/b"}, {"root": "/var/lib/mlflow"},
        {"root": "/home/ubuntu/mlflow-server"}, {"root": "~/.mlflow-server"},
        {"prefix": "team/a.b/v1..2"}, {"balancer": "10.0.0.0/8, fd00::/64, 192.0.2.7"},
        {"username": "ann@example.org"}, {"bind": "0.0.0.0"}, {"bind": "ip-10-0-0-1.internal"},
        {"profile": "_x"}, {"version": "3.18.0rc1"},
    ],
)  # fmt: skip
def test_what_can_be_a_server_s_own_is_taken(values):
    assert checked(values).model_dump(include=set(values)) == values


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_value_means_the_default(empty):
    assert checked({"bucket": empty, "port": empty}) == Settings()


def test_variables_win_over_the_environment_which_wins_over_the_file():
    file = {
        "mlflow": {
            "bucket": "file-bucket",
            "port": 6000,
            "local_port": 6001,
            "environments": {"staging": {"port": 7000, "local_port": 7001}},
        }
    }
    variables = {"FABRIC_MLFLOW_ENVIRONMENT": "staging", "FABRIC_MLFLOW_LOCAL_PORT": "8001"}
    settings, _ = settle(file, variables)
    assert (settings.bucket, settings.port, settings.local_port) == ("file-bucket", 7000, 8001)
    assert settings.environment == "staging"


@pytest.mark.parametrize(
    ("use", "variable", "key", "wanted"),
    [
        ("a", "b", "c", "a"),
        (None, "b", "c", "b"),
        (None, None, "c", "c"),
        (None, None, None, None),
        (None, "", "", None),
        ("default", "b", "c", None),
        (None, "default", "c", None),
        (None, None, "default", None),
    ],
)
def test_use_wins_over_the_variable_which_wins_over_the_file(use, variable, key, wanted):
    file = {"mlflow": {"environment": key, "environments": dict.fromkeys("abc")}}
    variables = {} if variable is None else {"FABRIC_MLFLOW_ENVIRONMENT": variable}
    settings, _ = settle(file, variables, use)
    assert settings.environment == wanted


def test_every_scalar_can_be_a_variable():
    values = {
        "bucket": "b-1",
        "prefix": "p",
        "backup_prefix": "q",
        "backup_bucket": "my-backups",
        "backup_profile": "backups",
        "region": "eu-west-1",
        "profile": "work",
        "endpoint_url": "https://s3.example.org",
        "root": "/srv/mlflow",
        "port": "6000",
        "local_port": "6001",
        "bind": "0.0.0.0",
        "version": "3.17.1",
        "workers": "0",
        "username": "boss",
        "default_permission": "EDIT",
        "backend_store_uri": "postgresql://x",
        "ai_gateway": "True",
        "artifact_access": "direct",
        "public_name": "mlflow.example.org",
        "balancer": "10.0.1.10, 10.0.2.0/24",
        "memory_max": "2G",
        "confirm": "name",
        "access": "ssm",
        "vpc": "vpc-0123456789abcdef0",
        "subnet": "subnet-0123456789abcdef0",
        "environment": "staging",
    }
    assert sorted(values) == SCALARS, "a new setting belongs in this table"
    variables = {f"FABRIC_MLFLOW_{key.upper()}": value for key, value in values.items()}
    settings, _ = settle({"mlflow": {"environments": {"staging": {}}}}, variables)
    assert {key: str(getattr(settings, key)) for key in values} == values


@pytest.mark.parametrize(
    ("variable", "wanted"),
    [
        ("FABRIC_MLFLOW_BUCKETT", "(did you mean 'FABRIC_MLFLOW_BUCKET'?)"),
        ("FABRIC_MLFLOW_KEEP", "Unknown variable FABRIC_MLFLOW_KEEP"),
        ("FABRIC_MLFLO_BUCKET", "(did you mean 'FABRIC_MLFLOW_BUCKET'?)"),
        ("FABRIC_HOST", "(did you mean 'FABRIC_HOSTS'?)"),
    ],
)
def test_a_misspelt_variable_is_an_error_that_names_the_nearest(variable, wanted):
    assert wanted in settle_error(None, {variable: "x"})


@pytest.mark.parametrize("variable", ["FABRIC_RUN_ECHO", "FABRIC_TIMEOUTS_CONNECT", "PATH"])
def test_fabric_s_own_variables_are_nobody_s_typing_mistake(variable):
    assert settle(None, {variable: "1"})[0] == Settings()


def test_a_wrong_variable_names_its_key():
    assert "`mlflow: port:` is 'http'" in settle_error(None, {"FABRIC_MLFLOW_PORT": "http"})


@pytest.mark.parametrize(
    ("file", "variables", "wanted"),
    [
        ({"hosts": ["a", "b"]}, {}, ["a", "b"]),
        ({"hosts": "a, b"}, {}, ["a", "b"]),
        ({"hosts": None}, {}, []),
        ({"hosts": ["a"]}, {"FABRIC_HOSTS": "c,d"}, ["c", "d"]),
        ({"hosts": ["a"]}, {"FABRIC_HOSTS": ""}, ["a"]),
    ],
)
def test_hosts_come_from_the_variable_or_the_file(file, variables, wanted):
    assert settle(file, variables)[1] == wanted


ENVIRONMENT = {
    "hosts": ["a"],
    "mlflow": {"environment": "staging", "environments": {"staging": {"hosts": ["s"]}}},
}


def test_an_environment_has_hosts_of_its_own():
    assert settle(ENVIRONMENT, {})[1] == ["s"]


def test_the_hosts_variable_wins_over_an_environment_s_hosts():
    assert settle(ENVIRONMENT, {"FABRIC_HOSTS": "v"})[1] == ["v"]


def test_the_file_s_own_data_is_left_as_it_is():
    settle(ENVIRONMENT, {})
    assert settle(ENVIRONMENT, {})[1] == ["s"]


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ({"hosts": 5}, "`hosts:` is 5, not a list of names"),
        ({"hosts": [5]}, "`hosts:` is [5], not a list of names"),
        ({"mlflow": "x"}, "`mlflow:` is 'x', not a list of `key: value` lines"),
        ({"mlflow": {"environments": []}}, "`mlflow.environments:` is []"),
        (
            {"mlflow": {"environment": "stagin", "environments": {"staging": {}}}},
            "Unknown environment 'stagin' (did you mean 'staging'?). There is: default, staging.",
        ),
        (
            {"mlflow": {"environment": "a", "environments": {"a": {"buckets": 1}}}},
            "Unknown setting `mlflow: buckets:` (did you mean 'bucket'?)",
        ),
        (
            {"mlflow": {"environment": "a", "environments": {"a": "x"}}},
            "`mlflow.environments.a:` is 'x'",
        ),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_place(file, wanted):
    assert wanted in settle_error(file)


def test_an_environment_has_its_own_unit_folder_and_prefix():
    settings = Settings(environment="staging")
    assert settings.unit == "mlflow-server-staging"
    assert settings.root_path == "~/mlflow-server-staging"
    assert settings.artifact_prefix == "mlflow-artifacts-staging"
    assert settings.label == "staging"


def test_a_named_root_and_prefix_win_over_the_environment_s():
    settings = Settings(environment="staging", root="/srv/m", prefix="p")
    assert (settings.root_path, settings.artifact_prefix) == ("/srv/m", "p")


def test_a_missing_bucket_says_both_ways_to_name_one():
    with pytest.raises(Exit, match=r"`bucket:`.*fabric\.yaml.*FABRIC_MLFLOW_BUCKET"):
        Settings().require_bucket()
    assert Settings(bucket="my-bucket").require_bucket() == "my-bucket"


def test_settings_cannot_be_changed_under_way():
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 6000  # type: ignore[misc]


@pytest.mark.parametrize("name", ["default", "backup", "backup-verify", "stream", "eu-backup"])
def test_no_environment_has_a_name_that_a_server_s_own_parts_have(name):
    """The unit mlflow-server-backup would be a server and another server's schedule at once."""
    with pytest.raises(Exit, match=f"No environment can be called '{name}'"):
        settle({"mlflow": {"environments": {"staging": {}, name: {}}}}, {})


@pytest.mark.parametrize("name", ["backups", "upstream", "default-2"])
def test_a_name_that_only_looks_like_one_of_theirs_is_fine(name):
    assert settle({"mlflow": {"environments": {name: {}}}}, {}, name)[0].environment == name
