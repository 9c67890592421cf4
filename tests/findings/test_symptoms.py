"""What the look prints, as values; and what is sent to make it."""

from __future__ import annotations

import json

import pytest
from stand_ins import SETTINGS

from tasks.engine.facts import Listener
from tasks.engine.settings import Settings
from tasks.findings.symptoms import (
    Certificate,
    Memory,
    Mount,
    Symptoms,
    looking,
    names,
    parse,
)

REPORTS = [
    "mount\t1000 900 rw 2000 1500 /",
    "mount\t1000 900 rw 2000 1500 /",
    "mount\t- - ro 50 0 /a place",
    "mode\t600 /home/a b/server.env",
    "failed\ta.service",
    "reboot\tyes",
    "synchronised\tno",
    "memory\t4 3 2 1",
    "no_route\tyes",
    "masked\tnginx.service",
    "dpkg\tcurl",
    "apt_held\t7 apt-get",
    "disk_error\tI/O error",
    "killed\t2 java",
    'unresolved\t{"name": "a.b", "why": "c"}',
    'listener\t0.0.0.0:22 "sshd" 7',
    "error\tValueError: one\ttab",
    "oom\t2",
    "schedule\tactive",
    'timer\t[{"next": 7200000000, "last": 3600000000, "unit": "x.timer"}]',
    "looked\tservice",
    "timer_failed\tbackup-verify The backup x is damaged",
    "nginx\temerg x",
    "certificate\t1800000000 /etc/a b.pem",
    "unserved\tyes",
    "renewal\tinactive",
    "renewal_failed\tit refused",
    "health\t200",
    "silent\t3.0",
    "stranger\t401",
    "name\tnull",
    'login\t{"source": "copy", "status": 401}',
    'database\t{"name": "mlflow.db", "damage": null}',
    'admins\t{"count": 2, "weak": ["x"]}',
    'direct\t{"count": 1}',
    'webhooks\t{"count": 2}',
    "environment\twhole",
    'bucket\t{"kind": "permission", "what": "a", "remedy": "b"}',
    "profile\tabsent",
    "skew\t-3.5",
    'backup\t{"id": "i"}',
    "blind\tenvironment it does not run",
]


def test_every_report_becomes_a_value():
    assert parse(REPORTS) == Symptoms(
        looked=frozenset({"service"}),
        blind={"environment": "it does not run"},
        mounts=(Mount("/", 2000, 1500, 1000, 900, False), Mount("/a place", 50, 0, 0, 0, True)),
        modes={"/home/a b/server.env": "600"},
        failed=("a.service",),
        reboot=True,
        synchronised=False,
        memory=Memory(4, 3, 2, 1),
        routed=False,
        masked=("nginx.service",),
        dpkg="curl",
        apt_holder=(7, "apt-get"),
        disk_error="I/O error",
        killed={"java": 2},
        unresolved={"name": "a.b", "why": "c"},
        listeners=(Listener("0.0.0.0:22", "sshd", 7),),
        error="ValueError: one\ttab",
        out_of_memory=2,
        schedule="active",
        period=3600.0,
        next_backup=7200.0,
        timer_failed={"backup-verify": "The backup x is damaged"},
        nginx="emerg x",
        certificates=(Certificate("/etc/a b.pem", 1800000000),),
        unserved=True,
        renewal="inactive",
        renewal_failed="it refused",
        health=200,
        silent=3.0,
        stranger=401,
        name=None,
        logins={"copy": 401},
        databases={"mlflow.db": {"name": "mlflow.db", "damage": None}},
        admins=2,
        weak=("x",),
        direct={"count": 1},
        webhooks={"count": 2},
        environment="whole",
        profile=False,
        bucket={"kind": "permission", "what": "a", "remedy": "b"},
        skew=-3.5,
        backup={"id": "i"},
    )


def test_nothing_seen_is_nothing_wrong():
    assert parse([]) == Symptoms()


def test_a_timer_that_never_ran_has_no_period():
    for timer in ('{"next": 5, "last": 0}', '{"next": null, "last": 7}'):
        assert parse([f"timer\t[{timer}]", "schedule\tactive"]).period is None


def test_the_scarcer_of_room_and_inodes_counts():
    assert Mount("/", 100, 50, 1000, 10, False).free_share == 0.01
    assert Mount("/", 100, 5, 0, 0, False).free_share == 0.05


def test_logins_travel_as_a_file_and_never_in_the_script():
    logins = [{"source": "copy", "username": "admin", "password": "a-secret-password"}]
    change = looking(Settings(bucket="my-bucket", environment="staging", port=5005), logins)
    request = json.loads(change.files["look_at_requests.json"])
    assert request == {"port": 5005, "logins": logins, "patience": 3}
    assert "a-secret-password" not in change.script
    first, bucket, profile = change.script.splitlines()[:3]
    assert first == "unit=mlflow-server-staging port=5005 name=''"
    assert bucket.endswith("ask_bucket; }")
    assert json.loads(change.files["look_at_bucket.json"])["place"] == {
        "bucket": "my-bucket", "prefix": "mlflow-artifacts-staging", "region": "", "endpoint": "",
        "backup_prefix": "mlflow-backups", "environment": "staging",
    }  # fmt: skip
    assert profile == "profile="


def test_whoever_looks_longer_is_more_patient_with_every_part():
    files = looking(SETTINGS, [], 30).files
    patience = {
        name: json.loads(text)["patience"] for name, text in files.items() if name.endswith(".json")
    }
    assert patience == {
        "look_at_databases.json": 18, "look_at_admins.json": 18, "look_at_requests.json": 22.5,
        "look_at_bucket.json": 10.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        (Settings(), ["s3.us-east-1.amazonaws.com", "mlflow.org"]),
        (Settings(region="eu-west-1"), ["s3.eu-west-1.amazonaws.com", "mlflow.org"]),
        (Settings(endpoint_url="http://minio.lan:9000"), ["minio.lan", "mlflow.org"]),
        (Settings(endpoint_url="http://10.0.0.7:9000"), ["mlflow.org"]),
        (Settings(endpoint_url="http://[fd00::7]:9000"), ["mlflow.org"]),
    ],
)
def test_names_that_the_host_must_know_are_asked_for(settings, asked):
    assert names(settings) == asked


def test_without_a_bucket_none_is_asked():
    assert "bucket() { false; }" in looking(Settings(profile="other"), []).script
    assert "profile=other" in looking(Settings(profile="other"), []).script
