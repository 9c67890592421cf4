"""A host whose instance has a role needs no keys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import UNIT, Host, Lab

NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[Host]:
    with lab.installed() as host:
        yield host


class TestOneHost:
    def test_with_neither_keys_nor_a_role_configure_says_so(self, host: Host) -> None:
        # An address of the host's own where nothing answers: this host has no metadata.
        with host.kept("/etc/environment"):
            nowhere = "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:9"
            host.run(f"echo {nowhere} >> /etc/environment")
            because = ("no AWS credentials", "no instance role", "AWS_ACCESS_KEY_ID")
            host.refused("configure", because=because, **NO_KEYS)

    def test_with_an_instance_role_no_key_is_on_the_host(self, host: Host) -> None:
        # Where the instance's metadata are: on EC2 a fixed address, here the stand-in's.
        place = f"AWS_EC2_METADATA_SERVICE_ENDPOINT={host.lab.endpoint}"
        folder = f"/etc/systemd/system/{UNIT}.service.d"
        host.run(
            f"echo '{place}' >> /etc/environment; mkdir {folder}; cat > {folder}/e2e.conf",
            stdin=f"[Service]\nEnvironment={place}\n",
        )
        configured = host.fab("configure", **NO_KEYS)
        assert "instance role" in configured.out
        host.fab("deploy", "verify", **NO_KEYS)
        host.healthy()
        assert host.run("ls /home/ubuntu/.aws") == "config"
        assert (
            host.fab("install", "configure", "deploy", **NO_KEYS).out.count("nothing to change")
            == 3
        )
