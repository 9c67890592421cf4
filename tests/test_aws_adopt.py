"""An instance and a bucket that somebody made are taken into care, or stay as they were."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from account_side import BUCKET, REGION, SETTINGS, TRUST, UNIT, World, refusing, world
from fabric import Config
from interruptions import at_a_call
from invoke import Exit, Result
from stand_ins import Recorder, Run, Task, context, deployed, request

from tasks import aws_adopt, aws_audit
from tasks.changes import operator_policy, policy
from tasks.engine import credentials, paths
from tasks.engine.account_parts import TAG
from tasks.engine.login import Login
from tasks.laptop.account import access, before, entry, mend, way

_ = world  # the fixture

ROLE = f"{UNIT}-{REGION}"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"
OLDER = policy.text(policy.document(SETTINGS, "artifacts"))
LOGIN = Login("admin", "correct horse battery")

BOTH = frozenset({"aws_access_key_id", "aws_secret_access_key"})


class Host(Recorder):
    """A host with keys: answers by what it is asked, and fails where it is told to."""

    def __init__(self, address: str) -> None:
        super().__init__("ec2", hostname=address)
        self.asked: list[str] = []
        self.failing = ""
        self.units = "mlflow-server.service mlflow-server-backup.service\n"
        self.keys, self.aside = True, False
        self.address = "203.0.113.77"
        self.key = "AKIA0123456789ABCDEF"
        self.now: Callable[[], None] = lambda: None

    def run(self, command: str, **options: Any) -> Result:
        out = options.get("out_stream")
        text = ""
        if out is not None:
            text = self.answer(Run(command, options["in_stream"].getvalue(), options))
            out.write(text)
        elif command == aws_adopt.UNITS:
            text = self.units
        elif command == aws_adopt.away(SETTINGS.profile):
            text = self.aside * "away\n"
        elif command == access.AGENT:
            self.asked.append("agent")
        elif command == 'echo "$SSH_CONNECTION"':
            text = f"{self.address} 50000 10.0.0.4 22\n"
        return Result(stdout=text, stderr="", exited=0, command=command)

    def answer(self, run: Run) -> str:
        what = named(run)
        self.asked.append(what)
        if what == self.failing:
            return "@fail it does not work.\n@exit 1\n"
        at_a_call("prove" if what == "prove the role" else what, lambda: self.change(what))
        self.change(what)
        return f"@report {json.dumps({'id': self.key, 'arn': None})}\n@exit 0\n"

    def change(self, what: str) -> None:
        """Do with the keys what the host's program does."""
        if what == "away" and self.keys:
            self.keys, self.aside = False, True
        elif what == "back" and self.aside:
            self.keys, self.aside = True, False
        elif what == "forget":
            self.aside = False
        self.now()


def named(run: Run) -> str:
    """Name what the host is asked to do."""
    if "take_keys.json" in run.files:
        return str(request(run.files, "take_keys.py")["action"])
    return "prove the role" if "prove_role.json" in run.files else "configure"


class Taking:
    """A host and an account as somebody made them by the guide."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world, self.monkeypatch = world, monkeypatch
        self.settings = SETTINGS
        self.host = Host(world.described()["PublicIpAddress"])
        self.deploys = 0
        self.failing_deploy = False
        self.reachable = True
        monkeypatch.setattr(way, "reaches", lambda *_: self.reachable)
        monkeypatch.setattr(access, "host_key", lambda _: HOST_KEY)
        monkeypatch.setattr(aws_adopt, "run_by_name", self.deploy)

    @property
    def c(self) -> Task:
        c = context(settings=self.settings)
        c._set(config=Config())
        server = c.server
        server.connection = self.host

        def look() -> None:
            given = {"credentials": "digest", "credential_keys": BOTH, "credentials_mode": "600"}
            server._facts = deployed(self.settings, **(given if self.host.keys else {}))

        look()
        self.host.now = look
        server.forget = lambda: None  # type: ignore[method-assign]
        return c

    def deploy(self, _: Any, name: str) -> None:
        assert name == "deploy"
        self.deploys += 1
        at_a_call(name, lambda: None)
        if self.failing_deploy and not self.host.keys:
            raise Exit("The server does not start.")

    def adopt(self, **options: Any) -> None:
        aws_adopt.adopt(self.c, **{"yes": True, **options})

    def refused(self, **options: Any) -> str:
        with pytest.raises(Exit) as refused:
            self.adopt(**options)
        assert "\n" not in refused.value.message
        return str(refused.value.message)

    # -- how the account is

    @property
    def profile(self) -> str:
        arn = self.world.described().get("IamInstanceProfile", {}).get("Arn", "")
        return str(arn).rpartition("/")[2]

    @property
    def state(self) -> dict[str, Any]:
        """All that adopting changes."""
        iam = self.world.client("iam")
        return {
            "roles": sorted(one["RoleName"] for one in iam.list_roles()["Roles"]),
            "profiles": sorted(
                one["InstanceProfileName"]
                for one in iam.list_instance_profiles()["InstanceProfiles"]
            ),
            "profile": self.profile,
            "tags": sorted(one["Key"] for one in self.world.described().get("Tags", [])),
            "networks": self.world.networks(),
            "bucket": before.kept(self.world.account, BUCKET),
            "keys": self.host.keys,
            "aside": self.host.aside,
            "entry": entry.blocks(),
        }


@pytest.fixture
def taking(world: World, monkeypatch: pytest.MonkeyPatch) -> Taking:
    """Neither role nor tags, SSH open to everybody, a bucket as S3 made it years ago."""
    ec2, s3 = world.client("ec2"), world.client("s3")
    (one,) = ec2.describe_iam_instance_profile_associations()["IamInstanceProfileAssociations"]
    ec2.disassociate_iam_instance_profile(AssociationId=one["AssociationId"])
    ec2.delete_tags(Resources=[world.instance], Tags=[{"Key": TAG}])
    world.let("0.0.0.0/0", 22)
    for delete in ("policy", "encryption", "lifecycle"):
        getattr(s3, f"delete_bucket_{delete}")(Bucket=BUCKET)
    s3.delete_public_access_block(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Suspended"})
    world.calls.clear()
    return Taking(world, monkeypatch)


def test_all_of_it_is_done_and_audit_finds_nothing(taking, capsys):
    taking.adopt()
    assert taking.profile == ROLE
    assert taking.host.asked == [
        "prove the role", "away", "configure", "forget", "prove the role",
    ]  # fmt: skip
    assert taking.deploys == 1
    assert taking.world.networks() == ["203.0.113.77/32", "203.0.113.9/32"]
    iam = taking.world.client("iam")
    kept = iam.get_role_policy(RoleName=ROLE, PolicyName="bucket")["PolicyDocument"]
    assert kept == policy.document(SETTINGS)
    out = capsys.readouterr().out
    assert "the key AKIA0123456789ABCDEF is not on the host any more" in out
    assert "from now on: ./fab -H mlflow-server" in out
    c = taking.c
    c._set(place=lambda: (SETTINGS, []), client=lambda: None)
    with pytest.raises(Exit) as audited:
        aws_audit.audit(c, instance=taking.world.instance)
    assert audited.value.code == 2, "but which keys lie on the host"
    assert "✓ well: bucket" in capsys.readouterr().out


def test_the_keys_go_only_after_the_role_is_proved(taking):
    taking.adopt()
    assert taking.host.asked.index("prove the role") < taking.host.asked.index("away")
    assert taking.host.asked.index("configure") < taking.host.asked.index("forget")


def test_once_more_there_is_nothing_to_change(taking, capsys):
    taking.adopt()
    taking.world.calls.clear()
    taking.adopt()
    assert "aws.adopt: nothing to change" in capsys.readouterr().out
    changing = ("Create", "Put", "Delete", "Add", "Associate", "Authorize", "Revoke", "Modify")
    assert [call for call in taking.world.calls if call.startswith(changing)] == []


def test_it_is_shown_and_asked_about_and_the_default_is_no(taking, capsys):
    was = taking.state
    assert "needs a confirmation" in taking.refused(yes=False)
    assert taking.state == was
    out = capsys.readouterr().out
    for line in (
        f"role: make the role {ROLE}",
        "role: take the keys off the host, and configure it without",
        "SSH: let in 203.0.113.77 alone instead of everybody",
        f"bucket: {BUCKET}: block public access",
        "entry: keep an entry mlflow-server",
    ):
        assert f"  {line}" in out


# -- a part that fails is undone -----------------------------------------------------------------

# By the call that AWS refuses: what of all stays as it was.
ROLE_PART = ("roles", "profiles", "profile", "tags", "keys")
REFUSED: dict[str, tuple[str, ...]] = {
    "CreateTags": ROLE_PART,
    "CreateRole": ROLE_PART,
    "CreateInstanceProfile": ROLE_PART,
    "PutRolePolicy": ROLE_PART,
    "AddRoleToInstanceProfile": ROLE_PART,
    "AssociateIamInstanceProfile": ROLE_PART,
    "AuthorizeSecurityGroupIngress": ("networks",),
    "RevokeSecurityGroupIngress": (),  # everybody is still in, and the operator as well
    "PutBucketVersioning": ("bucket",),
    "PutBucketEncryption": ("bucket",),
    "PutPublicAccessBlock": ("bucket",),
    "PutBucketPolicy": ("bucket",),
    "PutBucketLifecycleConfiguration": ("bucket",),
}


@pytest.mark.parametrize("operation", REFUSED)
def test_whatever_aws_refuses_its_part_is_as_it_was(taking, operation):
    was = taking.state
    with refusing("AccessDenied", operation):
        said = taking.refused()
    assert (operator_policy.action(operation) or operation) in said
    now = taking.state
    assert {part: now[part] for part in REFUSED[operation]} == {
        part: was[part] for part in REFUSED[operation]
    }
    assert "0.0.0.0/0" in now["networks"] or operation.endswith(
        ("Versioning", "Encryption", "Block", "Policy", "Configuration")
    )
    assert now["entry"] == {}


@pytest.mark.parametrize("step", ["prove the role", "away", "configure"])
def test_what_fails_on_the_host_leaves_it_on_its_keys(taking, step):
    was = taking.state
    taking.host.failing = step
    said = taking.refused()
    assert "it does not work. All of it is as it was before." in said or step == "configure"
    assert taking.state == was


def test_a_server_that_does_not_start_without_keys_gets_them_back(taking):
    was = taking.state
    taking.failing_deploy = True
    assert "The server does not start. All of it is as it was before." in taking.refused()
    assert taking.state == was
    assert taking.deploys == 2, "once more, on its keys"


def test_where_the_operator_would_be_locked_out_everybody_is_in_again(taking):
    taking.reachable = False
    assert "that rule is back as it was" in taking.refused()
    assert "0.0.0.0/0" in taking.world.networks()
    assert taking.profile == ROLE, "what was proved before stays"


def test_a_bucket_that_the_server_cannot_use_any_more_is_as_it_was(taking):
    was = taking.state["bucket"]
    proofs = iter(["", "prove the role"])

    def fail_the_second(run: Run) -> str:
        if named(run) == "prove the role":
            taking.host.failing = next(proofs)
        return answer(run)

    answer = taking.host.answer
    taking.monkeypatch.setattr(taking.host, "answer", fail_the_second)
    assert "it does not work." in taking.refused()
    assert taking.state["bucket"] == was


def test_what_cannot_be_undone_is_said(taking):
    with refusing("AccessDenied", "AssociateIamInstanceProfile", "DeleteRole"):
        said = taking.refused()
    assert f"Not undone: make the role {ROLE}" in said


# -- what is there already -----------------------------------------------------------------------


def test_a_role_of_others_stays_and_is_only_proved(taking, capsys):
    ec2 = taking.world.client("ec2")
    ec2.associate_iam_instance_profile(
        IamInstanceProfile={"Name": UNIT}, InstanceId=taking.world.instance
    )
    taking.adopt()
    assert taking.profile == UNIT
    assert taking.host.asked[:2] == ["prove the role", "away"]
    assert "has a role of others (mlflow-server), which stays" in capsys.readouterr().err


def test_somebody_else_s_role_of_our_name_is_refused(taking):
    taking.world.client("iam").create_role(RoleName=ROLE, AssumeRolePolicyDocument=TRUST)
    assert "none of ours" in taking.refused()


def test_our_role_with_older_rights_gets_those_of_today(taking):
    taking.adopt()
    iam = taking.world.client("iam")
    iam.put_role_policy(RoleName=ROLE, PolicyName="bucket", PolicyDocument=OLDER)
    taking.adopt()
    kept = iam.get_role_policy(RoleName=ROLE, PolicyName="bucket")["PolicyDocument"]
    assert kept == policy.document(SETTINGS)


def test_a_host_without_keys_keeps_its_server_running(taking):
    taking.host.keys = False
    taking.adopt()
    assert taking.host.asked == ["prove the role", "prove the role"]
    assert taking.deploys == 0


def test_keys_that_a_turn_which_was_cut_off_took_away_are_forgotten_as_well(taking, capsys):
    taking.adopt()
    taking.host.aside, taking.deploys = True, 0
    taking.host.asked.clear()
    taking.adopt()
    assert taking.host.asked == ["prove the role", "away", "configure", "forget"]
    assert taking.deploys == 1
    assert not taking.host.aside
    assert "the key AKIA0123456789ABCDEF is not on the host any more" in capsys.readouterr().out


def test_keys_that_another_server_lives_on_stay(taking, capsys):
    taking.host.units += "mlflow-server-staging.service mlflow-server-staging-stream.service\n"
    taking.adopt()
    assert taking.host.keys
    assert "the keys stay on the host: mlflow-server-staging may live" in capsys.readouterr().err


def test_behind_a_jump_host_ssh_is_left_as_it_is(taking, capsys):
    taking.host.target = replace(taking.host.target, proxy_command="ssh -W hop")
    taking.adopt()
    assert "0.0.0.0/0" in taking.world.networks()
    assert "behind a jump host" in capsys.readouterr().err


def test_a_bucket_with_versions_keeps_what_is_old(taking):
    """Somebody may count on versions that a rule would delete at once."""
    mend.keep_versions(taking.world.account, BUCKET)
    taking.adopt()
    rules = before.kept(taking.world.account, BUCKET)["lifecycle-parts"]
    assert [rule["ID"] for rule in rules] == [mend.PARTS]


def test_a_bucket_of_another_account_stays_as_it_is(taking, capsys):
    with refusing("AccessDenied", "GetBucketPolicy"):
        taking.adopt()
    assert f"the bucket {BUCKET} stays as it is: s3:GetBucketPolicy" in capsys.readouterr().err


# -- through Session Manager -----------------------------------------------------------------------

BY_SESSION = SETTINGS.model_copy(update={"access": "ssm"})


@pytest.fixture
def by_session(taking: Taking, monkeypatch: pytest.MonkeyPatch) -> Taking:
    """That host, which is to be reached without an open port."""
    taking.settings = BY_SESSION
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(access, "reach", lambda case: taking.host.asked.append("reach"))
    return taking


def test_a_host_is_brought_over_and_no_port_is_open(by_session):
    by_session.adopt()
    assert by_session.world.networks() == []
    assert by_session.host.asked[-3:] == ["agent", "reach", "reach"]
    iam = by_session.world.client("iam")
    kept = iam.get_role_policy(RoleName=ROLE, PolicyName="bucket")["PolicyDocument"]
    assert kept == policy.document(BY_SESSION)
    calls = by_session.world.calls
    assert calls.index("AssociateIamInstanceProfile") < calls.index("RevokeSecurityGroupIngress")
    assert "AuthorizeSecurityGroupIngress" not in calls
    target = by_session.c.server.client.target("mlflow-server")
    assert target.hostname == target.key_alias == by_session.world.instance
    assert target.proxy_command == (
        f"aws ssm start-session --target {by_session.world.instance} --document-name "
        f"AWS-StartSSHSession --parameters portNumber=22 --region {REGION}"
    )


def test_once_there_nothing_is_left_to_do(by_session, capsys):
    by_session.adopt()
    target = by_session.c.server.client.target("mlflow-server")
    by_session.host.target = replace(target, alias="mlflow-server")
    by_session.adopt()
    assert "aws.adopt: nothing to change" in capsys.readouterr().out


@pytest.mark.parametrize("time", [1, 2])
def test_where_the_host_cannot_be_reached_so_its_port_stays_open(by_session, time):
    was = by_session.state
    tries = iter(range(1, 3))

    def reach(_: Any) -> None:
        if next(tries) == time:
            raise Exit("ec2 cannot be reached through Session Manager.")

    by_session.monkeypatch.setattr(access, "reach", reach)
    assert "All of it is as it was before." in by_session.refused()
    now = by_session.state
    assert now["networks"] == was["networks"]
    assert bool(now["entry"]) == (time == 2), "which is proved by then"


def test_a_group_of_other_instances_stays_open(by_session, capsys):
    ec2, first = by_session.world.client("ec2"), by_session.world.described()
    ec2.run_instances(
        ImageId=first["ImageId"], InstanceType="t3.small", MinCount=1, MaxCount=1,
        SecurityGroupIds=[by_session.world.group], SubnetId=first["SubnetId"],
    )  # fmt: skip
    by_session.adopt()
    assert "0.0.0.0/0" in by_session.world.networks()
    assert f"SSH stays open in {by_session.world.group}: i-" in capsys.readouterr().err


@pytest.mark.parametrize("program", ["aws", "session-manager-plugin"])
def test_a_program_that_is_missing_here_is_named_before_anything_is_done(by_session, program):
    was = by_session.state
    by_session.monkeypatch.setattr("shutil.which", lambda name: None if name == program else name)
    said = by_session.refused()
    assert program.upper().replace("AWS", "AWS CLI") in said.upper()
    assert by_session.state == was


def test_the_way_back_leads_to_the_public_address(by_session):
    by_session.adopt()
    target = by_session.c.server.client.target("mlflow-server")
    by_session.host.target = replace(target, alias="mlflow-server")
    by_session.settings = SETTINGS
    by_session.adopt()
    target = by_session.c.server.client.target("mlflow-server")
    assert target.hostname == by_session.world.described()["PublicIpAddress"]
    assert target.proxy_command is None


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("snap.amazon-ssm-agent.amazon-ssm-agent", "restart snap.amazon-ssm-agent.amazon-ssm"),
        ("amazon-ssm-agent", "restart amazon-ssm-agent"),
        ("none", "There is no amazon-ssm-agent here. Ubuntu: sudo snap install"),
    ],
)
def test_the_agent_is_started_anew_as_whatever_it_is_installed(tmp_path, there, said):
    for name, text in (
        ("systemctl", f'[ "$1" != cat ] || exec test "$2" = {there}; echo "$@"'),
        ("sudo", 'shift; exec "$@"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", access.AGENT], env=path, capture_output=True, text=True
    )  # fmt: skip
    assert (done.stdout or done.stderr).startswith(said)
    assert done.returncode == (3 if there == "none" else 0)


def test_a_login_that_takes_its_time_is_waited_for(taking, monkeypatch):
    monkeypatch.setattr(access, "BEAT", 0)
    taking.adopt()
    answers = iter([Exit("not yet"), None])

    class Known:
        connection = taking.host

        def read(self, command: str) -> str:
            if error := next(answers):
                raise error
            return command

    monkeypatch.setattr(access, "server_on", lambda *_: Known())
    case = aws_adopt.looked_at(taking.c, taking.world.account)
    access.reach(case)
    assert list(answers) == []


# -- the entry, and the key ----------------------------------------------------------------------


def test_the_entry_leads_to_the_host_by_its_instance_and_knows_its_login(taking):
    c = taking.c
    credentials.keep(c.server, LOGIN)
    taking.adopt()
    target = c.server.client.target("mlflow-server")
    assert (target.hostname, target.user) == (taking.host.target.hostname, "ubuntu")
    assert target.key_alias == taking.world.instance
    assert entry.known_hosts().read_text() == f"{taking.world.instance} {HOST_KEY}\n"
    copy = paths.config() / f"{taking.world.instance}.json"
    assert LOGIN.password in copy.read_text()


def test_whose_key_can_go_is_said(taking, capsys):
    iam = taking.world.client("iam")
    iam.create_user(UserName="ann")
    key = iam.create_access_key(UserName="ann")["AccessKey"]["AccessKeyId"]
    taking.monkeypatch.setattr(aws_adopt, "taken", lambda case, action: key)
    taking.adopt()
    assert (
        f"aws iam update-access-key --status Inactive --user-name ann --access-key-id {key}"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("key", ["AKIA; rm -rf ~", "AKIA0123456789ABCDE\n", "", "A" * 200])
def test_a_key_s_id_that_is_none_gets_into_no_command(taking, capsys, key):
    taking.host.key = key
    taking.adopt()
    assert "update-access-key" not in capsys.readouterr().out


@pytest.mark.parametrize("said", ["0.0.0.0/1", "::/1", "everybody", "203.0.113.7;"])
def test_a_host_opens_ssh_to_no_more_than_one_address(taking, capsys, said):
    """It says from where its operator comes, and may be somebody else's by now."""
    taking.host.address = said
    taking.adopt()
    assert taking.world.networks() == ["0.0.0.0/0", "203.0.113.9/32"]
    assert "SSH stays open to everybody" in capsys.readouterr().err


@pytest.mark.parametrize(
    "hostname", ["192.0.2.1\n    ProxyCommand sh", "a b", "a\x1b", 'a"', "%h", "a#b"]
)
def test_an_entry_is_made_of_single_words(taking, hostname):
    one = entry.Entry("mlflow-server", "192.0.2.1", "ubuntu", "i-1")
    entry.write(one)
    with pytest.raises(Exit, match="cannot stand in ssh's configuration"):
        entry.write(replace(one, hostname=hostname))
    with pytest.raises(Exit, match="cannot stand in ssh's configuration"):
        entry.moved("i-1", hostname)
    assert entry.blocks() == {"mlflow-server": one.text()}


def test_every_right_that_it_asks_for_is_one_of_the_operator_s(taking):
    """But of the tag: who is to look after an instance is handed it by somebody else."""
    taking.adopt()
    asked = set(taking.world.calls) - {"GetCallerIdentity", "CreateTags"}
    assert [call for call in asked if operator_policy.action(call) is None] == []


# -- mistakes ------------------------------------------------------------------------------------


def test_mistakes_are_one_line(taking, monkeypatch):
    ec2, others = taking.c.server, context(alias="two").server
    with pytest.raises(Exit, match="one at a time"):
        aws_adopt.check([ec2, others])
    for change, words in (
        ({"bucket": None}, "No bucket is configured"),
        ({"endpoint_url": "https://minio.example.org"}, "not at AWS"),
    ):
        with pytest.raises(Exit, match=words):
            aws_adopt.check([context(settings=SETTINGS.model_copy(update=change)).server])
    with pytest.raises(Exit, match="is a rehearsal host"):
        aws_adopt.check([context(rehearsal=True).server])
    taking.host.target = replace(taking.host.target, hostname="198.51.100.1")
    assert "has no instance at 198.51.100.1" in taking.refused()


def test_a_host_without_a_server_is_refused(taking):
    c = taking.c
    c.server._facts = replace(c.server.facts, complete=frozenset())
    with pytest.raises(Exit, match=r"not installed yet\. Type: \./fab -H ec2 install"):
        aws_adopt.adopt(c, yes=True)
