"""The first questions: every answer is tried, and fabric.yaml keeps its comments."""

from __future__ import annotations

from pathlib import Path

import fabric
import pytest
import yaml
from invoke import Context, Exit
from stand_ins import Network
from store_side import Session

from tasks.engine import fabric_yaml, paths
from tasks.engine.settings import settle
from tasks.init import init

SHIPPED = (paths.PROJECT / "fabric.yaml").read_text()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "fabric.yaml").write_text(SHIPPED)
    monkeypatch.setattr(paths, "PROJECT", folder)
    return folder


@pytest.fixture
def c(project, network: Network, store, monkeypatch) -> Context:
    """A host that lets us in, a bucket that opens, and variables that say nothing else."""
    network.add("ec2")
    monkeypatch.setattr("boto3.Session", Session)
    monkeypatch.setattr("boto3.session.Session", Session)
    # The store that a client without an address finds.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.url)
    config = fabric.Config(overrides={"load_ssh_configs": False})
    config.set_project_location(str(project))
    config.load_project()
    context = Context(config)
    context._set(client=network.client)
    return context


def written(project: Path) -> dict:
    return yaml.safe_load((project / "fabric.yaml").read_text())


# What is typed where everything is right: host, kind of keys, store, bucket, region.
RIGHT = ["ec2", "1", "", "my-bucket", ""]


def test_the_answers_stand_in_fabric_yaml_with_its_comments(c, project, terminal, capsys):
    terminal += RIGHT
    init(c)
    settings, hosts = settle(written(project), {})
    assert (hosts, settings.bucket, settings.region) == (["ec2"], "my-bucket", "us-east-1")
    kept = [line for line in SHIPPED.splitlines() if line.startswith(("#", "  #"))]
    text = (project / "fabric.yaml").read_text().splitlines()
    gone = [line for line in kept if line not in text]
    assert gone == ["# hosts:", "#   - ec2", "  # region:"]
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "Next: ./fab -H ec2 install configure deploy verify"
    assert '-  bucket: ""' in out
    assert "+  bucket: my-bucket" in out


def test_what_is_known_is_offered(c, project, terminal, home):
    (home / ".ssh").mkdir()
    (home / ".ssh/config").write_text("Host ec2\n")
    (project / "fabric.yaml").write_text("hosts: [ec2]\nmlflow:\n  bucket: my-bucket\n")
    c.config.set_project_location(str(project))
    c.config.load_project()
    terminal += ["", "", "", "", "", "y"]
    init(c)
    assert written(project) == {
        "hosts": ["ec2"], "mlflow": {"bucket": "my-bucket", "region": "us-east-1"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        # The host.
        (["no-such.invalid", *RIGHT], "Unknown host no-such.invalid"),
        (["-x", *RIGHT], "is not a host"),
        ([",", *RIGHT], "Give a host, such as ec2 or ubuntu@203.0.113.10."),
        # The kind of keys.
        (["ec2", "4", *RIGHT[1:]], "Give the number of a line above."),
        # The bucket.
        ([*RIGHT[:3], "", *RIGHT[3:]], "there is no default"),
        ([*RIGHT[:3], "s3://my-bucket/x", ""], "basketworld, not s3://basketworld"),
        ([*RIGHT[:3], "arn:aws:s3:::my-bucket", ""], "basketworld, not s3://basketworld"),
        ([*RIGHT[:3], "My-Bucket", *RIGHT[3:]], "basketworld, not s3://basketworld"),
        ([*RIGHT[:3], "nowhere-at-all", *RIGHT[2:]], "no bucket nowhere-at-all (404). Create it"),
        # The store.
        ([*RIGHT[:2], "ftp://x", *RIGHT[2:]], "give an address such as https://"),
        # The region.
        ([*RIGHT[:4], "eu-west-1", ""], "is in us-east-1, not in eu-west-1. Give us-east-1."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_asked_again(c, project, terminal, capsys, answers, said):
    terminal += [*answers, ""] if "s3:" in "".join(answers) else answers
    init(c)
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert written(project)["mlflow"]["bucket"] == "my-bucket"


def test_a_host_that_is_off_may_be_kept(c, network, project, terminal, capsys):
    network.add("later").close()
    terminal += ["later", "", *RIGHT[1:]]
    init(c)
    err = capsys.readouterr().err
    assert "later refuses connections" in err
    assert "press Enter to keep later" in err
    assert written(project)["hosts"] == ["later"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("AccessDenied", "These keys may not look at my-bucket (403)"),
        ("InvalidAccessKeyId", "These keys are not taken (InvalidAccessKeyId)"),
        ("ExpiredToken", "These keys are not taken (ExpiredToken)"),
    ],
)
def test_keys_that_are_refused_are_told_from_a_bucket_that_is(
    c, store, terminal, capsys, code, said
):
    store.refuse("HEAD /my-bucket", code)
    store.refuse("GET /my-bucket", code)
    asks_for_keys = code != "AccessDenied"
    terminal += [*RIGHT[:4], *(["1"] if asks_for_keys else []), "Ctrl-D"]
    with pytest.raises(Exit, match="No answer was given"):
        init(c)
    assert said in capsys.readouterr().err


def test_without_keys_in_the_variables_one_is_told_so(c, terminal, monkeypatch, capsys):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    terminal += ["ec2", "1", "3", *RIGHT[2:]]
    init(c)
    out, err = capsys.readouterr()
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set" in err
    assert "whether the instance's role may use it" in out


def test_of_a_role_a_closed_bucket_is_none_the_less_there(c, store, project, terminal):
    store.refuse("HEAD /my-bucket")
    terminal += ["ec2", "3", *RIGHT[2:]]
    init(c)
    assert written(project)["mlflow"]["bucket"] == "my-bucket"


def test_a_profile_s_keys_are_named_for_the_next_step(c, home, terminal, capsys, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text(
        "[work]\naws_access_key_id = toy\naws_secret_access_key = toy\n"
    )
    monkeypatch.setattr("tasks.init.shutil.which", lambda name: "/usr/bin/aws")
    terminal += ["ec2", "2", "play", "", "my-bucket", "2", "work", "", "", ""]
    init(c)
    out, err = capsys.readouterr()
    assert "There is no profile 'play' in ~/.aws" in err
    assert out.splitlines()[-1] == (
        'Next: eval "$(aws configure export-credentials --profile work --format env)"; '
        "./fab -H ec2 install configure deploy verify"
    )


def test_another_store_is_asked_at_its_address(c, store, project, terminal, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    terminal += [*RIGHT[:2], store.url, *RIGHT[3:]]
    init(c)
    assert written(project)["mlflow"]["endpoint_url"] == store.url


def test_a_store_that_does_not_answer_is_asked_for_again(c, project, terminal, capsys):
    terminal += [*RIGHT[:2], "http://127.0.0.1:1", "my-bucket", "Ctrl-D"]
    with pytest.raises(Exit, match="No answer was given"):
        init(c)
    assert "http://127.0.0.1:1 cannot be reached" in capsys.readouterr().err


def test_what_is_there_is_not_overwritten_without_a_yes(c, project, terminal, capsys):
    text = "hosts: [other]\nmlflow:\n  bucket: other  # ours\n"
    (project / "fabric.yaml").write_text(text)
    terminal += [*RIGHT, "n"]
    with pytest.raises(Exit, match="Nothing was written"):
        init(c)
    assert (project / "fabric.yaml").read_text() == text
    out = capsys.readouterr().out
    assert "-hosts: [other]\n+hosts: [ec2]" in out
    assert "-  bucket: other  # ours\n+  bucket: my-bucket  # ours\n" in out


def test_what_says_so_already_is_left_alone(c, project, terminal, capsys):
    terminal += RIGHT
    init(c)
    before = (project / "fabric.yaml").stat().st_mtime_ns
    terminal += RIGHT
    init(c)
    assert (project / "fabric.yaml").stat().st_mtime_ns == before
    assert "fabric.yaml says so already" in capsys.readouterr().out


# -- without a terminal --------------------------------------------------------------------------


def test_with_yes_the_answers_are_variables(c, project, monkeypatch, capsys):
    monkeypatch.setenv("FABRIC_HOSTS", "ec2")
    monkeypatch.setenv("FABRIC_MLFLOW_BUCKET", "my-bucket")
    init(c, yes=True)
    assert written(project)["hosts"] == ["ec2"]
    assert capsys.readouterr().out.endswith("./fab -H ec2 install configure deploy verify\n")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "FABRIC_HOSTS=ec2"),
        ({"FABRIC_HOSTS": "ec2"}, "FABRIC_MLFLOW_BUCKET=my-bucket"),
        ({"FABRIC_HOSTS": "no-such.invalid", "FABRIC_MLFLOW_BUCKET": "b-b"}, "Unknown host"),
        ({"FABRIC_HOSTS": "ec2", "FABRIC_MLFLOW_BUCKET": "s3://x/"}, "not s3://basketworld"),
        ({"FABRIC_HOSTS": "ec2", "FABRIC_MLFLOW_BUCKET": "not-here"}, "no bucket not-here"),
        (
            {"FABRIC_HOSTS": "ec2", "FABRIC_MLFLOW_BUCKET": "my-bucket",
             "FABRIC_MLFLOW_REGION": "eu-west-1"},
            "is in us-east-1, not in eu-west-1",
        ),
    ],
)  # fmt: skip
def test_with_yes_what_is_wrong_ends_it(c, project, monkeypatch, variables, said):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Exit) as caught:
        init(c, yes=True)
    assert said in caught.value.message
    assert (project / "fabric.yaml").read_text() == SHIPPED


def test_without_terminal_and_yes_it_says_how(c, monkeypatch):
    with pytest.raises(Exit, match=r"FABRIC_HOSTS=ec2 FABRIC_MLFLOW_BUCKET=my-bucket ./fab init"):
        init(c)


# -- the file ------------------------------------------------------------------------------------

VALUES = (["ec2", "me@1.2.3.4:22"], {"bucket": "b-1", "endpoint_url": "http://x:9000"})


@pytest.mark.parametrize(
    "text",
    [
        SHIPPED,
        "",
        "mlflow:\n",
        "hosts:\n  - a\n  - b\nmlflow:\n  port: 5000\n",
        "mlflow:\n  endpoint_url: old\n  environments:\n    dev:\n      bucket: theirs\n",
        "# hosts:\n#   - a\n#   - b\n# more\nmlflow:\n  # bucket: x\n",
        "run: {echo: true}\n",
    ],
)
def test_values_find_their_lines(text):
    data = yaml.safe_load(fabric_yaml.filled(text, *VALUES))
    assert data["hosts"] == VALUES[0]
    assert {key: data["mlflow"][key] for key in VALUES[1]} == VALUES[1]
    former = yaml.safe_load(text) or {}
    below = former.get("mlflow") or {}
    assert {key: data["mlflow"][key] for key in below if key not in VALUES[1]} == {
        key: value for key, value in below.items() if key not in VALUES[1]
    }


@pytest.mark.parametrize("value", ["1234", "true", "a: b", 'quo"te', "1e3", "12:30"])
def test_a_text_stays_one(value):
    made = fabric_yaml.filled("", ["h"], {"bucket": value})
    assert yaml.safe_load(made)["mlflow"]["bucket"] == value


def test_a_file_of_another_form_is_left_to_its_owner():
    with pytest.raises(Exit, match=r"Write by hand `bucket: b-1`.*`hosts: \[ec2\]`"):
        fabric_yaml.filled("mlflow: {bucket: x}\n", ["ec2"], {"bucket": "b-1"})
