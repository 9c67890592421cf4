"""Every unsafe thing is a row: what was seen, and the finding that it must become."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import pytest
from seen import HERE, WELL
from stand_ins import ROOT, SETTINGS, deployed

from tasks.audit import AREAS
from tasks.engine.facts import Facts, Listener
from tasks.engine.settings import Settings
from tasks.engine.templates import app
from tasks.findings.advisories import Advisories, Advisory
from tasks.findings.case import Case, Finding
from tasks.findings.diagnosis import Diagnosis, diagnose
from tasks.findings.safety import Audited, auditing, parse
from tasks.findings.symptoms import Certificate

SAFE = Audited(
    sshd={"permitrootlogin": "without-password", "passwordauthentication": "no"},
    firewall=True,
    upgrades=True,
    site=("listen 127.0.0.1:5000;",),
    exposures={"mlflow-server.service": 1.1, "mlflow-server-backup.service": 1.2},
    packages={"mlflow": "3.17.2"},
)
SEEN = replace(
    WELL,
    looked=WELL.looked | set("doors site units secrets packages passwords users places".split()),
)
NONE_KNOWN = Advisories((), "osv.dev")
CIPHERED = ("listen 443 ssl;", "ssl_protocols TLSv1.2 TLSv1.3;",
            'add_header Strict-Transport-Security "max-age=63072000" always;')  # fmt: skip


def case(
    settings: Settings = SETTINGS,
    facts: Facts | None = None,
    advisories: Advisories = NONE_KNOWN,
    symptoms: dict[str, Any] | None = None,
    **audited: Any,
) -> Case:
    """A safe server but for what is given."""
    return Case(
        "ec2", settings, facts or deployed(), replace(SEEN, **(symptoms or {})), HERE,
        audited=replace(SAFE, **audited), advisories=advisories,
    )  # fmt: skip


def findings(given: Case) -> list[Finding]:
    return list(diagnose(given, AREAS).found)


def test_a_safe_host_has_no_finding_and_every_area_is_well():
    assert diagnose(case(), AREAS) == Diagnosis([], list(AREAS), [])


def lying(kind: str, count: int, *names: list[str]) -> dict[str, Any]:
    """Return how the host tells of so many that lie elsewhere."""
    return {kind: {"count": count, "first": [{"name": name, "place": "/x"} for name in names]}}


def test_what_lies_elsewhere_is_deleted_by_what_can_be_pasted():
    (found,) = findings(case(places=lying("versions", 1, ["it's", "3"])))
    login, delete = found.type
    assert login == 'eval "$(./fab -H ec2 client --export)"'
    program, option, script = shlex.split(delete)
    assert [program, option] == ["python3", "-c"]
    assert script == """import mlflow; mlflow.MlflowClient().delete_model_version("it's", '3')"""


def test_a_deleted_experiment_that_gc_leaves_is_removed_on_the_host():
    settings = Settings(bucket="my-bucket", endpoint_url="http://minio:9000", profile="work")
    (found,) = findings(case(settings, deployed(settings), places=lying("deleted", 1, ["7", "e"])))
    ssh, host, script = shlex.split(found.type[0])
    assert [ssh, host] == ["ssh", "ec2"]
    assert script.startswith(f"cd {ROOT} && ")
    assert "MLFLOW_S3_ENDPOINT_URL=http://minio:9000 AWS_PROFILE=work venv/bin/mlflow gc" in script
    assert script.endswith("--experiment-ids 7")
    assert not found.safe


OPEN = (Listener("0.0.0.0:5432", "postgres", 9), Listener("*:9100", "node_exporter", 10))


@pytest.mark.parametrize(
    ("audited", "key", "severity", "saying"),
    [
        ({"sshd": {"permitrootlogin": "yes"}}, "ssh-root", "problem", "with a password too"),
        (
            {"sshd": {"passwordauthentication": "yes"}, "passworded": ("root", "ann")},
            "ssh-password", "problem", "there are some: root, ann",
        ),
        ({"sshd": {"passwordauthentication": "yes"}}, "ssh-password", "note", "takes passwords."),
        ({"firewall": False}, "firewall-none", "note", "no firewall of its own"),
        ({"upgrades": False}, "upgrades-off", "note", "security updates"),
        (
            {"site": ("listen 127.0.0.1:5000;", "listen 10.0.0.5:5000;")},
            "passwords-in-clear", "problem", "in the clear",
        ),
        ({"site": ("listen 5000;",)}, "passwords-in-clear", "problem", "in the clear"),
        (
            {"site": (*CIPHERED[:1], "ssl_protocols TLSv1 TLSv1.1 TLSv1.2;", *CIPHERED[2:])},
            "tls-old", "problem", "TLSv1 and TLSv1.1 can be spoken",
        ),
        ({"site": CIPHERED[:2]}, "hsts-missing", "note", "HTTPS alone"),
        (
            {"site": (*CIPHERED[:2], "add_header Strict-Transport-Security max-age=60;")},
            "hsts-missing", "note", "HTTPS alone",
        ),
        ({"keys": (("644", "root", "/etc/x.key"),)}, "key-readable", "problem", "/etc/x.key"),
        (
            {"exposures": {"mlflow-server.service": 1.6}},
            "unit-exposed", "problem", "1.6, where 1.5 is right",
        ),
        ({"loose": (f"{ROOT}/x",)}, "writable-by-others", "problem", "than its owner"),
        ({"loose": ("/etc/systemd/system/x",)}, "writable-by-others", "problem", "than root"),
        (
            {"secrets": ("the AWS secret key in /tmp/x",)},
            "secret-astray", "problem", "The AWS secret key stands in /tmp/x.",
        ),
        ({"weak": ("ann",)}, "password-weak", "problem", "The password of ann"),
        ({"unseen": ("bob",), "days": 14}, "users-unused", "note", "bob for 14 days"),
        (
            {"places": lying("experiments", 4, ["7", "e7"], ["8", "e8"])},
            "experiments-elsewhere", "problem",
            "4 of the experiments lie where no login may put one: 7 (e7) at /x; 8 (e8) at /x; "
            "and 2 more.",
        ),
        (
            {"places": lying("deleted", 1, ["7", "e7"])},
            "deleted-elsewhere", "problem", "1 of the deleted experiments lies where",
        ),
        (
            {"places": lying("versions", 1, ["it's", "3"])},
            "versions-elsewhere", "problem", "it's 3 at /x",
        ),
        ({"places": lying("traces", 1, ["7", "tr-1"])}, "traces-elsewhere", "problem", "tr-1 at"),
    ],
)  # fmt: skip
def test_what_is_unsafe_is_one_finding_with_a_remedy(audited, key, severity, saying):
    (finding,) = findings(case(**audited))
    assert (finding.key, finding.severity) == (key, severity)
    assert saying in finding.what
    assert finding.seen
    assert finding.remedy or finding.type


@pytest.mark.parametrize(
    "audited",
    [
        {"site": CIPHERED},
        # Port 80 beside 443 only sends clients there.
        {"site": ("listen 80;", "listen [::]:80;", *CIPHERED)},
        {"exposures": {"mlflow-server.service": 1.5}},
        {"unseen": ("bob",), "days": 13},
        {"keys": (("600", "root", "/etc/x.key"),)},
    ],
)
def test_what_is_right_is_no_finding(audited):
    assert findings(case(**audited)) == []


def test_a_program_that_the_network_reaches_is_a_problem_where_it_keeps_data():
    found = findings(case(symptoms={"listeners": OPEN}))
    assert [(one.key, one.severity) for one in found] == [
        ("listener-open", "problem"), ("listener-open", "note"),
    ]  # fmt: skip
    assert "postgres (process 9)" in found[0].what


def test_ssh_and_the_server_s_own_doors_are_no_listeners_of_others():
    named = Settings(bucket="my-bucket", public_name="mlflow.example.org", bind="0.0.0.0")
    ours = (Listener("0.0.0.0:22", "sshd", 1), Listener("0.0.0.0:443", "nginx", 2),
            Listener("0.0.0.0:5000", "nginx", 2))  # fmt: skip
    safe = deployed(named)
    assert findings(case(named, safe, symptoms={"listeners": ours})) == []
    assert [one.key for one in findings(case(symptoms={"listeners": ours[1:2]}))] == [
        "listener-open"
    ]


@pytest.mark.parametrize(
    ("symptoms", "key"),
    [
        ({"modes": {f"{ROOT}/server.env": "644"}}, "readable-secrets"),
        ({"weak": ("admin",)}, "password-well-known"),
        ({"backup": None}, "backup-none"),
        ({"certificates": (Certificate("/x.pem", 1_800_000_000 + 86400),)}, "certificate"),
        ({"listeners": (Listener("0.0.0.0:5001", "mlflow", 7),)}, "listening-everywhere"),
    ],
)
def test_what_doctor_finds_is_found_by_its_own_functions(symptoms, key):
    assert [finding.key for finding in findings(case(symptoms=symptoms))] == [key]


def test_a_password_that_everybody_knows_is_named_once():
    found = findings(case(symptoms={"weak": ("admin",)}, weak=("admin", "ann")))
    assert [one.key for one in found] == ["password-well-known", "password-weak"]


def test_advisories_of_mlflow_are_a_problem_and_those_beside_it_notes():
    both = Advisories(
        (Advisory("mlflow", "3.9.0", "X-1", "open"), Advisory("jinja2", "3.0", "Y-1"),
         Advisory("mlflow", "3.9.0", "X-2")), "osv.dev",
    )  # fmt: skip
    first, second = findings(case(advisories=both))
    assert first.what == "mlflow 3.9.0 has known vulnerabilities: X-1 (open), X-2."
    assert (first.severity, second.severity) == ("problem", "note")
    assert "looked up in osv.dev" in first.seen
    assert "jinja2 3.0" in second.what


def test_what_was_not_looked_at_is_not_called_missing():
    blind = {"looked": SEEN.looked - {"doors"}}
    assert findings(case(symptoms=blind, firewall=False, upgrades=False)) == []


def test_what_could_not_be_looked_at_is_not_called_well():
    blind = diagnose(case(symptoms={"looked": WELL.looked | {"doors"}}), AREAS)
    assert {finding.area for finding in blind.unseen} == set(AREAS) - set(blind.well)
    assert blind.well == ["access", "artifacts", "backup"]


REPORTS = """\
sshd\tpermitrootlogin yes
passworded\troot ann
upgrades\t1
upgrader\tyes
firewall\tyes
site\tlisten 443 ssl;
key\t600 root /etc/a key
exposure\t1.1 mlflow-server.service
exposure\t mlflow-server-backup.service
loose\t/x
secret\t"the AWS secret key in /tmp/x"
secret\t"the AWS secret key in /tmp/x"
package\tmlflow-3.17.2
package\tMarkup_Safe-2.0
passwords\t{"weak": ["ann"]}
users\t{"days": 20, "unseen": ["bob"]}
places\t{"traces": {"count": 0}}
mode\t600 /x
"""


def test_what_the_host_reports_is_read():
    assert parse(REPORTS.splitlines()) == Audited(
        sshd={"permitrootlogin": "yes"},
        passworded=("root", "ann"),
        firewall=True,
        upgrades=True,
        site=("listen 443 ssl;",),
        keys=(("600", "root", "/etc/a key"),),
        # One that systemd does not judge is not taken for a safe one.
        exposures={"mlflow-server.service": 1.1, "mlflow-server-backup.service": 10.0},
        loose=("/x",),
        secrets=("the AWS secret key in /tmp/x",),
        packages={"mlflow": "3.17.2", "markup-safe": "2.0"},
        weak=("ann",),
        unseen=("bob",),
        days=20,
        places={"traces": {"count": 0}},
    )


def test_updates_that_are_configured_and_not_installed_do_nothing():
    assert not parse(["upgrades\t1"]).upgrades
    assert not parse(["upgrades\t0", "upgrader\tyes"]).upgrades


def test_the_look_brings_its_programs():
    change = auditing(SETTINGS, 20)
    assert json.loads(change.files["audit_passwords.json"]) == {"patience": 8}
    assert {"audit_secrets.py", "audit_passwords.py", "audit_users.py"} < set(change.files)
    # The rule is the wall's own.
    assert change.files["places.py"] == app()["remote_mlflow_app/places.py"]
    assert change.script.startswith("unit=mlflow-server\n")
