"""A host whose instance has a role needs no keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab import CHAIN, UNIT, Host

NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
DROP_IN = f"/etc/systemd/system/{UNIT}.service.d"


@contextmanager
def without_keys(host: Host, metadata: str) -> Iterator[None]:
    """Take the keys away, and have the host and its server look for a role at this address.

    On EC2 it is a fixed one.
    """
    place = f"AWS_EC2_METADATA_SERVICE_ENDPOINT={metadata}"
    with host.kept("/etc/environment"), host.kept("/home/ubuntu/.aws"):
        host.run(
            f"systemctl stop {UNIT}.socket {UNIT}.service; rm -r /home/ubuntu/.aws; "
            f"echo '{place}' >> /etc/environment; mkdir {DROP_IN}; cat > {DROP_IN}/e2e.conf",
            stdin=f"[Service]\nEnvironment={place}\n",
        )
        try:
            yield
        finally:
            host.run(f"rm -r {DROP_IN}; systemctl daemon-reload; systemctl stop {UNIT}.service")


def test_with_neither_keys_nor_a_role_configure_says_so(host: Host) -> None:
    with without_keys(host, "http://127.0.0.1:9"):  # where nothing answers
        because = ("no AWS credentials", "no instance role", "AWS_ACCESS_KEY_ID")
        host.refused("configure", because=because, **NO_KEYS)


def test_keys_for_a_host_that_has_a_role_are_asked_about(host: Host) -> None:
    with without_keys(host, host.lab.endpoint):
        host.run(f"echo AWS_ENDPOINT_URL={host.lab.endpoint} >> /etc/environment")
        aws = {"FABRIC_MLFLOW_ENDPOINT_URL": ""}
        because = ("Give", "the AWS keys of arn:aws:", "needs a confirmation", "--yes")
        refused = host.refused("configure", because=because, **aws)
        assert "The instance has a role" in refused.err
        assert "AWS answered: s3:ListAllMyBuckets" in refused.err
        assert host.run("ls /home/ubuntu/.aws 2> /dev/null || true") == ""
        host.fab("configure", "--yes", **aws)
        assert "credentials" in host.run("ls /home/ubuntu/.aws")


def test_with_an_instance_role_no_key_is_on_the_host(host: Host) -> None:
    with without_keys(host, host.lab.endpoint):
        assert "instance role" in host.fab("configure", **NO_KEYS).out
        host.fab("deploy", "verify", **NO_KEYS)
        host.healthy()
        assert host.run("ls /home/ubuntu/.aws") == "config"
        assert host.fab(*CHAIN, **NO_KEYS).out.count("nothing to change") == 3
