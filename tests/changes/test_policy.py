"""The least policy: nothing in it that is not needed, and nothing missing that is."""

from __future__ import annotations

import fnmatch
import json
import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import parliament
import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError
from host_side import place_in, program
from invoke import Context, Exit
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
from store_side import Store

from tasks import aws
from tasks.changes import operator_policy, policy
from tasks.engine import paths, templates
from tasks.engine.account_parts import Names
from tasks.engine.settings import Settings

SETTINGS = Settings(bucket="my-bucket")
NOWHERE = "arn:aws:s3:::YOUR-BUCKET"

Document = dict[str, Any]


def printed(capsys: Any, settings: Settings = SETTINGS, **options: Any) -> Document:
    c = Context()
    c._set(place=lambda: (settings, []))
    aws.policy(c, **options)
    return dict(json.loads(capsys.readouterr().out))


def statement(document: Document, sid: str) -> Document:
    (found,) = (one for one in document["Statement"] if one["Sid"] == sid)
    return dict(found)


def findings(document: Document) -> set[str]:
    return {
        finding.issue for finding in parliament.analyze_policy_string(json.dumps(document)).findings
    }


# -- what is printed ---------------------------------------------------------------------------


@pytest.mark.parametrize("role", policy.ROLES)
def test_a_linter_finds_nothing_in_it(capsys, role):
    assert findings(printed(capsys, role=role)) == set()


@pytest.mark.parametrize("options", [{"role": "both"}, {"operator": True}], ids=str)
def test_no_action_is_a_pattern(capsys, options):
    document = printed(capsys, **options)
    actions = {action for one in document["Statement"] for action in one["Action"]}
    assert actions
    assert not [action for action in actions if "*" in action]


def test_without_a_bucket_there_is_a_placeholder(capsys):
    document = printed(capsys, Settings())
    assert statement(document, "Bucket")["Resource"] == [NOWHERE]
    assert statement(document, "Artifacts")["Resource"] == [f"{NOWHERE}/mlflow-artifacts/*"]


def test_an_environment_has_a_prefix_of_its_own(capsys):
    document = printed(capsys, Settings(bucket="team-b", environment="staging"), role="artifacts")
    assert statement(document, "Artifacts")["Resource"] == [
        "arn:aws:s3:::team-b/mlflow-artifacts-staging/*"
    ]


def test_the_server_s_own_role_reaches_no_backup(capsys):
    document = printed(capsys, role="artifacts")
    assert "mlflow-backups" not in json.dumps(document)
    assert statement(document, "Bucket")["Action"] == ["s3:ListBucket"]


def test_the_backups_role_reaches_no_artifact(capsys):
    document = printed(capsys, role="backups")
    assert "mlflow-artifacts" not in json.dumps(document)


def test_backups_may_lie_in_a_bucket_of_their_own():
    settings = SimpleNamespace(
        bucket="one", backup_bucket="two", artifact_prefix="a", backup_prefix="b", access="ssh"
    )
    document = policy.document(settings)
    assert statement(document, "Bucket")["Action"] == ["s3:ListBucket"]
    assert statement(document, "Bucket1")["Resource"] == ["arn:aws:s3:::two"]
    assert statement(document, "Backups")["Resource"] == ["arn:aws:s3:::two/b/*"]


def test_for_session_manager_the_host_may_take_sessions_and_no_more(capsys):
    document = printed(capsys, Settings(bucket="my-bucket", access="ssm"))
    sessions = statement(document, "Sessions")
    assert sorted(sessions["Action"]) == sorted(policy.SESSIONS)
    assert findings(document) <= {"RESOURCE_STAR"}
    for role in ("artifacts", "backups"):
        document = printed(capsys, Settings(bucket="my-bucket", access="ssm"), role=role)
        assert ("Sessions" in json.dumps(document)) == (role == "artifacts")


def test_an_unknown_role_is_refused(capsys):
    with pytest.raises(Exit, match=r"--role is 'all'\. Give one of: artifacts, backups, both"):
        printed(capsys, role="all")


def test_the_page_shows_exactly_what_is_printed(capsys):
    page = (paths.PROJECT / "docs/security.md").read_text()
    shown = re.search(r"\$ \./fab aws\.policy\n(.*?)\n```", page, re.S)
    assert shown
    assert json.loads(shown[1]) == printed(capsys, Settings())
    assert shown[1] == policy.text(policy.document(Settings()))


# -- the operator's ----------------------------------------------------------------------------

# What parliament says of any policy that may set a bucket's policy or its lifecycle: true, and
# docs/aws.md says so; and of actions that concern several kinds of resources, of which one
# statement names one.
KNOWN = {"RESOURCE_POLICY_PRIVILEGE_ESCALATION", "RESOURCE_MISMATCH"}


def test_a_linter_finds_nothing_new_in_the_operator_s(capsys):
    assert findings(printed(capsys, operator=True)) <= KNOWN


# What is used to make something, and not changed.
USED = {
    "MakeFrom": (
        ["ec2:RunInstances"],
        {"image", "key-pair", "network-interface", "security-group", "subnet"},
    ),
    "MakeGroupIn": (["ec2:CreateSecurityGroup"], {"vpc"}),
}


def test_the_operator_changes_only_what_bears_the_tag(capsys):
    for one in printed(capsys, operator=True)["Statement"]:
        if one["Sid"] in USED:  # nothing is made without the statement before
            kinds = {resource.split(":")[-1].split("/")[0] for resource in one["Resource"]}
            assert (one["Action"], kinds) == USED[one["Sid"]]
            continue
        changes = [word for word in one["Action"] if re.match(r"ec2:(?!Describe|Get)", word)]
        if changes:
            assert "remote-mlflow" in json.dumps(one), changes


def test_the_operator_gives_roles_under_our_path_alone_and_to_instances(capsys):
    document = printed(capsys, operator=True)
    for sid in ("MakeRole", "PassRole"):
        assert all("/remote-mlflow/*" in one for one in statement(document, sid)["Resource"])
    passed = statement(document, "PassRole")["Condition"]
    assert passed == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def test_the_operator_tags_what_is_being_made_and_nothing_else(capsys):
    condition = statement(printed(capsys, operator=True), "TagWhatIsMade")["Condition"]
    assert "RunInstances" in condition["StringEquals"]["ec2:CreateAction"]
    assert condition["StringLike"] == {"aws:RequestTag/remote-mlflow": "*"}


def test_without_a_bucket_the_operator_s_is_for_one_of_our_names(capsys):
    longest = Settings(environment="a" * 32)
    for settings in (Settings(), longest):
        for region in ("eu-west-1", "ap-southeast-1"):
            name = Names(settings.unit, "123456789012", region).bucket
            (pattern,) = statement(printed(capsys, settings, operator=True), "MakeBucket")[
                "Resource"
            ]
            assert fnmatch.fnmatchcase(f"arn:aws:s3:::{name}", pattern)


def test_the_operator_s_fits_into_a_managed_policy():
    longest = SETTINGS.model_copy(update={"bucket": "b" * 63, "backup_bucket": "c" * 63})
    text = json.dumps(operator_policy.document(longest), separators=(",", ":"))
    assert len(text) <= 6144  # IAM quotas, "IAM and STS character limits"


# -- the contract: what the host does, under exactly this policy ---------------------------------


def named(request: str) -> tuple[str, str]:
    """Return the action that S3 wants allowed for a request, and on which resource."""
    method, _, rest = request.partition(" ")
    path, _, query = rest.partition("?")
    asked = urllib.parse.parse_qs(query, keep_blank_values=True)
    bucket, _, key = path.lstrip("/").partition("/")
    action = {
        "HEAD": "s3:GetObject" if key else "s3:ListBucket",
        "GET": "s3:GetObject" if key else "s3:ListBucket",
        "PUT": "s3:PutObject",
        "POST": "s3:PutObject",
        "DELETE": "s3:AbortMultipartUpload" if "uploadId" in asked else "s3:DeleteObject",
    }[method]
    for word, other in (
        ("delete", "s3:DeleteObject"),
        ("versioning", "s3:GetBucketVersioning"),
        ("lifecycle", "s3:GetLifecycleConfiguration"),
    ):
        if not key and word in asked:
            action = other
    if "delete" in asked:  # its keys are in the body: those of the test lie below the artifacts
        key = "mlflow-artifacts/some"
    return action, f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}"


def allows(document: Document, action: str, resource: str) -> bool:
    return any(
        action in one["Action"]
        and any(fnmatch.fnmatchcase(resource, pattern) for pattern in one["Resource"])
        for one in document["Statement"]
    )


def without(document: Document, sid: str, action: str) -> Document:
    """Take one action away from one statement."""
    return {
        "Statement": [
            {
                **one,
                "Action": [word for word in one["Action"] if (one["Sid"], word) != (sid, action)],
            }
            for one in document["Statement"]
        ]
    }


class Enforced:
    """A host under a policy: what each of its tasks was denied."""

    def __init__(self, store: Store, document: Document, tasks: dict[str, Callable[[], Any]]):
        self._document, self.denied = document, dict[str, set[str]]()
        for name, task in tasks.items():
            self._now = name
            store.guard = self._asked
            try:
                task()
            except (ClientError, S3UploadFailedError, MlflowException):
                # What is not run as a program of the host's ends so.
                if name not in self.denied:
                    raise
            finally:
                store.guard = None

    def _asked(self, request: str) -> bool:
        action, resource = named(request)
        good = allows(self._document, action, resource)
        if not good:
            self.denied.setdefault(self._now, set()).add(action)
        return good


@pytest.fixture
def tasks(
    store: Store, root: Path, back_up: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Callable[[], Any]]:
    """What a host does from day to day, by the task's name, each with what it needs there."""
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", store.url)
    place, s3 = place_in(store), store.client()
    (root / ".server-id").write_text("aaaaaaaa\n")
    (root / ".stream").write_text("aaaaaaaa/20260101T000000Z\n1 2 3 4\n")
    over = "mlflow-backups/default/stream/aaaaaaaa/20200101T000000Z"
    s3.put_bucket_versioning(Bucket="my-bucket", VersioningConfiguration={"Status": "Enabled"})
    back_up()
    made = next(key.split("/")[2] for key in store.listing() if key.endswith("manifest.json"))
    s3.put_object(Bucket="my-bucket", Key=f"mlflow-backups/default/{made[:-8]}bbbbbbbb/x", Body=b"")
    s3.put_object(Bucket="my-bucket", Key=f"{over}/mlflow.db/0000/1-1.ltx", Body=b"LTX1")
    artifact = root / "model.bin"
    artifact.write_bytes(b"weights")

    def run(name: str, **request: Any) -> Any:
        return program(capsys, name, **{"place": place, **request})

    def serve() -> None:
        there = S3ArtifactRepository("s3://my-bucket/mlflow-artifacts/1")
        there.log_artifact(str(artifact))
        there.list_artifacts()
        there.download_artifacts("model.bin")
        there.delete_artifacts()

    def upload_and_fail() -> None:
        begun = s3.create_multipart_upload(Bucket="my-bucket", Key="mlflow-artifacts/big")
        s3.abort_multipart_upload(
            Bucket="my-bucket", Key="mlflow-artifacts/big", UploadId=begun["UploadId"]
        )

    def back_up_and_fail() -> None:
        begun = s3.create_multipart_upload(Bucket="my-bucket", Key="mlflow-backups/big")
        s3.abort_multipart_upload(
            Bucket="my-bucket", Key="mlflow-backups/big", UploadId=begun["UploadId"]
        )

    def prune() -> None:
        keep = {"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}
        run("prune_sets.py", keep=keep, how="delete")
        s3.delete_object(Bucket="my-bucket", Key="mlflow-backups/default/x/y")

    return {
        "configure": lambda: run("prove_bucket.py"),
        "deploy": lambda: run("owner.py", root=root, action="claim", over=""),
        "the server": serve,
        "an upload that fails": upload_and_fail,
        "backup": back_up,
        "a backup that fails": back_up_and_fail,
        "backup.list": lambda: run("list_sets.py"),
        "restore": lambda: run(
            "fetch_set.py", root=root, folder=root / "next.part", id=made, aside=True
        ),
        "backup.prune": prune,
        "backup.stream": lambda: run("prune_streams.py", root=root, days=7),
    }


def test_the_host_is_denied_nothing(store, tasks):
    assert Enforced(store, policy.document(SETTINGS), tasks).denied == {}


# What breaks without each action, first of all.
NEEDED = {
    ("Bucket", "s3:ListBucket"): "configure",
    ("Bucket", "s3:GetBucketVersioning"): "backup.stream",
    ("Bucket", "s3:GetLifecycleConfiguration"): "backup.stream",
    ("Artifacts", "s3:GetObject"): "configure",
    ("Artifacts", "s3:PutObject"): "configure",
    ("Artifacts", "s3:DeleteObject"): "configure",
    ("Artifacts", "s3:AbortMultipartUpload"): "an upload that fails",
    ("Backups", "s3:GetObject"): "backup",
    ("Backups", "s3:PutObject"): "backup",
    ("Backups", "s3:DeleteObject"): "backup.prune",
    ("Backups", "s3:AbortMultipartUpload"): "a backup that fails",
}


def test_no_action_is_left_out_of_what_is_tried():
    there = {
        (one["Sid"], action)
        for one in policy.document(SETTINGS)["Statement"]
        for action in one["Action"]
    }
    assert there == set(NEEDED)


@pytest.mark.parametrize(("sid", "action"), NEEDED)
def test_each_action_is_needed(store, tasks, sid, action):
    denied = Enforced(store, without(policy.document(SETTINGS), sid, action), tasks).denied
    assert next(iter(denied)) == NEEDED[sid, action]
    assert {word for words in denied.values() for word in words} == {action}


def test_every_operation_of_the_host_s_programs_stands_in_the_table():
    """What boto3 is asked for there, by its methods' names."""
    known = {call.operation for call in (*policy.ARTIFACTS, *policy.BACKUPS)}
    method = re.compile(r"s3\.((?:get|put|head|list|delete|copy|create|abort|upload)_[a-z0-9_]+)\b")
    paginated = re.compile(r'get_paginator\("([a-z0-9_]+)"\)')
    found = set()
    for path in templates.programs().values():
        text = path.read_text()
        found |= {*method.findall(text), *paginated.findall(text)}
    # These two are made of others: a paginator of what it is named for, an upload of its parts.
    found -= {"get_paginator", "upload_fileobj"}
    assert {operation(name) for name in found} <= known


def operation(method: str) -> str:
    return "".join(word.capitalize() for word in method.split("_"))
