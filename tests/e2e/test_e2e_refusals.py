"""Whatever is wrong: exit 1, one line that names it and what to do, no traceback."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from lab import CHAIN, ROOT, Host
from waiting import until

from tasks.rehearsal.host import make_key

# -- the operator's side ---------------------------------------------------------------------


def test_no_host_names_the_three_ways_to_give_one(host: Host) -> None:
    host.refused("status", aim=(), because=("No host", "-H ec2", "hosts:", "FABRIC_HOSTS"))


def test_an_unknown_alias_is_named(host: Host) -> None:
    aim = ("-S", str(host.lab.ssh_config), "-H", "nowhere.invalid")
    host.refused("status", aim=aim, because=("Unknown host nowhere.invalid", "~/.ssh/config"))


def test_an_unknown_host_key_is_refused_without_a_terminal(host: Host) -> None:
    aim = _aim(host, UserKnownHostsFile="/dev/null", StrictHostKeyChecking="ask")
    because = ("Unknown host key", host.alias, "SHA256:", f"ssh -F {aim[1]} {host.alias} true")
    host.refused("status", aim=aim, because=because)


def test_a_changed_host_key_is_refused(host: Host) -> None:
    other = host.home / "other_host_key"
    make_key(other, "")
    known_hosts = host.home / "known_hosts"
    known_hosts.write_text(f"{host.machine} {other.with_suffix('.pub').read_text()}")
    aim = _aim(host, UserKnownHostsFile=str(known_hosts))
    because = ("CHANGED", host.alias, f"ssh-keygen -R '{host.machine}'")
    host.refused("status", aim=aim, because=because)
    aim = _aim(host, UserKnownHostsFile=str(known_hosts), StrictHostKeyChecking="accept-new")
    host.refused("status", aim=aim, because=because)


def test_a_wrong_key_is_refused(host: Host) -> None:
    other = host.home / "other_key"
    make_key(other, "")
    aim = _aim(host, IdentityFile=str(other))
    host.refused("status", aim=aim, because=("refuses the login of ubuntu", "-i KEY"))


def test_a_sudo_that_asks_for_a_password_is_named(host: Host) -> None:
    with host.kept("/etc/sudoers.d/90-cloud-init-users"):
        host.run("sed -i s/NOPASSWD:// /etc/sudoers.d/90-cloud-init-users")
        for task in (*CHAIN, "restart"):
            host.refused(task, because=("sudo asks ubuntu for a password", "NOPASSWD:ALL"))
        assert "running" in host.fab("status").out


def test_half_a_pair_of_keys_is_refused_before_anything_is_sent(host: Host) -> None:
    before = host.audit()
    half = {"AWS_SECRET_ACCESS_KEY": ""}
    because = ("Partial AWS credentials", "AWS_ACCESS_KEY_ID is set, AWS_SECRET_ACCESS_KEY is not")
    host.refused("configure", because=because, **half)
    assert host.audit() == before


def test_half_a_pair_of_keys_on_the_host_is_refused(host: Host) -> None:
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    with host.kept("/home/ubuntu/.aws"):
        host.run("sed -i /aws_secret_access_key/d /home/ubuntu/.aws/credentials")
        because = ("Partial AWS credentials", "~/.aws/credentials", "lacks one of its two keys")
        host.refused("configure", because=because, **none)


def test_a_short_password_is_refused_before_anything_is_sent(host: Host) -> None:
    before = host.audit()
    because = ("MLFLOW_TRACKING_PASSWORD", "Too short: 5 characters, needs 12")
    host.refused("configure", because=because, MLFLOW_TRACKING_PASSWORD="short")
    assert host.audit() == before


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("mlflow: {bukket: x}", ("Unknown setting `mlflow: bukket:`", "did you mean 'bucket'")),
        ("mlflow: {port: http}", ("`mlflow: port:`", "'http'", "whole number", "fabric.yaml")),
        ("mlflow: {workers: [1]}", ("`mlflow: workers:`", "[1]", "fabric.yaml")),
        ("mlflow: 5000", ("`mlflow:` is 5000", "fabric.yaml")),
        ("hosts: {ec2: 1}", ("`hosts:`", "not a list of names")),
        ("mlflow: {port: 5000", ("config.yaml", "line")),
        ("- a\n- list", ("config.yaml",)),
    ],
    ids=["unknown key", "bad type", "list", "no section", "hosts", "broken YAML", "a list"],
)
def test_a_mistake_in_the_configuration_is_named(
    host: Host, text: str, because: tuple[str, ...]
) -> None:
    file = host.home / "config.yaml"
    file.write_text(text)
    aim = ("-S", str(host.lab.ssh_config), "-f", str(file), "-H", host.alias)
    host.refused("status", aim=aim, because=because)


@pytest.mark.parametrize(
    ("variables", "because"),
    [
        ({"FABRIC_MLFLOW_BUKET": "x"}, ("Unknown variable FABRIC_MLFLOW_BUKET", "BUCKET")),
        ({"FABRIC_MLFLOW_PORT": "http"}, ("`mlflow: port:`", "'http'", "whole number")),
        ({"FABRIC_MLFLOW_ENVIRONMENT": "prod"}, ("Unknown environment 'prod'",)),
        ({"FABRIC_MLFLOW_VERSION": "latest"}, ("`mlflow: version:`", "'latest'")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_in_a_variable_is_named(
    host: Host, variables: dict[str, str], because: tuple[str, ...]
) -> None:
    host.refused("install", because=because, **variables)


# -- the bucket ------------------------------------------------------------------------------


def test_no_bucket_in_the_settings_is_named(host: Host) -> None:
    because = ("No bucket is configured", "`bucket:`", "FABRIC_MLFLOW_BUCKET")
    host.refused("configure", because=because, FABRIC_MLFLOW_BUCKET="")


def test_a_missing_bucket_is_named(host: Host) -> None:
    because = ("bucket no-such-bucket does not exist", "fabric.yaml")
    host.refused("configure", because=because, FABRIC_MLFLOW_BUCKET="no-such-bucket")


@pytest.mark.parametrize(
    ("allowed", "missing"),
    [
        (("s3:GetObject", "s3:PutObject", "s3:DeleteObject"), "s3:ListBucket"),
        (("s3:ListBucket", "s3:GetObject", "s3:DeleteObject"), "s3:PutObject"),
        (("s3:ListBucket", "s3:PutObject", "s3:DeleteObject"), "s3:GetObject"),
    ],
    ids=["list", "put", "get"],
)
def test_the_permission_that_is_missing_is_named(
    host: Host, allowed: tuple[str, ...], missing: str
) -> None:
    with host.kept("/home/ubuntu/.aws"), host.lab.user_with(*allowed) as keys:
        because = (missing, f"s3://{host.lab.bucket}/mlflow-artifacts/", "denied", "policy")
        host.refused("configure", because=because, **keys)


def test_keys_that_aws_does_not_know_are_named(host: Host) -> None:
    with host.kept("/home/ubuntu/.aws"), host.lab.user_with("s3:*"):
        keys = {"AWS_ACCESS_KEY_ID": "AKIAUNKNOWN", "AWS_SECRET_ACCESS_KEY": "unknown-secret"}
        host.refused("configure", because=("AWS refuses the credentials",), **keys)


def test_a_bucket_in_another_region_is_named_with_its_region(host: Host) -> None:
    with host.kept("/home/ubuntu/.aws"), host.lab.another_bucket("eu-west-1") as name:
        because = (f"bucket {name} is in region eu-west-1, not us-east-1", "region: eu-west-1")
        host.refused(
            "configure",
            because=because,
            FABRIC_MLFLOW_BUCKET=name,
            FABRIC_MLFLOW_REGION="us-east-1",
        )


def test_a_denied_delete_is_a_warning_and_verify_names_what_it_leaves(host: Host) -> None:
    with host.lab.bucket_denying("s3:DeleteObject") as bucket:
        done = host.fab("configure", "deploy", "--leave-artifacts", FABRIC_MLFLOW_BUCKET=bucket)
        assert f"s3:DeleteObject on s3://{bucket}/mlflow-artifacts/* is denied" in done.err
        done = host.fab("verify", FABRIC_MLFLOW_BUCKET=bucket)
        assert "✓ verified" in done.out
        assert f"objects left under s3://{bucket}" in done.err


# -- the host --------------------------------------------------------------------------------


def test_a_port_taken_by_another_program_is_named(host: Host) -> None:
    host.run(
        "systemd-run -q --unit=e2e-squatter python3 -m http.server --bind 127.0.0.1 5055;"
        "until ss -Hltn 'sport = :5055' | grep -q .; do sleep 0.05; done"
    )
    try:
        because = ("Port 5055", "taken by python3", "127.0.0.1:5055", "`port:`")
        host.refused("deploy", because=because, FABRIC_MLFLOW_PORT="5055")
    finally:
        host.run("systemctl stop e2e-squatter")
    host.healthy()


def test_a_blank_host_is_told_from_one_that_lost_its_login(blank: Host) -> None:
    for task in ("client", "verify", "users.list"):
        blank.refused(task, because=(blank.alias, "install configure deploy"))


def test_a_small_disk_and_no_network_are_named_before_anything_is_done(blank: Host) -> None:
    folder = "/home/ubuntu/small"
    blank.run(f"mkdir {folder}; mount -t tmpfs -o size=1500m,uid=1000 tmpfs {folder}")
    because = ("1.5 GB free", "needs 2", "Free some or enlarge the volume")
    blank.refused("install", because=because, FABRIC_MLFLOW_ROOT=folder)
    assert blank.run(f"ls -A {folder}") == ""
    blank.run(f"umount {folder}; rmdir {folder}")
    with blank.offline():
        because = ("cannot reach its package archive", "Allow outbound", "install again")
        done = blank.refused("install", because=because)
    print(f"after {done.seconds:.0f} s")


@pytest.mark.parametrize("stage", [pytest.param("tools", marks=pytest.mark.costly),
                                   pytest.param("release", marks=pytest.mark.sampled)])  # fmt: skip
def test_a_host_without_network_is_named_at_the_python_stage(host: Host, stage: str) -> None:
    lost = {"tools": "tools", "release": "releases"}[stage]
    # What uv has fetched once it needs no network for.
    caches = "/home/ubuntu/.cache"
    host.run(f"mv {ROOT}/{lost} {ROOT}/kept")
    try:
        with host.kept(caches), host.offline():
            host.run(f"rm -rf {caches}/*")
            because = ("cannot reach the Python package index", "Allow outbound", "command again")
            done = host.refused("install", because=because)
        print(f"{stage} after {done.seconds:.0f} s")
    finally:
        host.run(f"rm -rf {ROOT}/{lost}; mv {ROOT}/kept {ROOT}/{lost}")
    host.healthy()


def test_apts_lock_is_waited_for_and_its_holder_is_named(host: Host) -> None:
    host.lacks_a_package()
    with host.busy_apt() as holder, host.start("install") as working:
        named = f"apt is busy with something else (process {holder}"
        until(lambda: named in working.so_far or not working.running, "apt's lock is met")
        time.sleep(5)  # it tries every 2 s: let it find the lock held more than once
        assert working.running, working.done()
        assert named in working.so_far
        host.run(f"kill {holder}")
        done = working.done()
    assert done.code == 0, str(done)
    assert "✓ installed" in done.out


def _aim(host: Host, **changed: str) -> tuple[str, ...]:
    """Spell -S and -H for an ssh configuration that differs in these options."""
    lines = host.lab.ssh_config.read_text().splitlines()
    kept = [line for line in lines if (line.split() or [""])[0] not in changed]
    config = Path(host.home, "ssh_config")
    head = "".join(f"    {key} {value}\n" for key, value in changed.items())
    config.write_text("\n".join(kept).replace("\nHost", f"\n{head}Host") + f"\n{head}")
    return ("-S", str(config), "-H", host.alias)
