"""The chain where the host is not the usual one."""

from __future__ import annotations

import pytest
from lab import CHAIN, Lab
from modules import assert_compiled


@pytest.mark.costly
def test_the_chain_makes_a_verified_server_of_debian_13_too(
    lab: Lab, request: pytest.FixtureRequest
) -> None:
    with lab.blank("trixie") as host:
        done = host.fab(*CHAIN, "verify", timeout=600)
        assert "verified: login, tracking, model, registry and artifacts work" in done.out
        host.healthy()
        again = host.fab(*CHAIN)
        assert again.out.count("nothing to change") == 3
        # Its packages are those that Python 3.12 gets as well.
        assert_compiled(host, request.config.getoption("golden"))


@pytest.mark.costly
def test_a_default_site_that_somebody_changed_goes_on_being_served(lab: Lab) -> None:
    with lab.blank() as host:
        host.run(
            "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install nginx-light"
        )
        site = "/etc/nginx/sites-available/default"
        host.run(f"sed -i 's/server_name _;/server_name _; return 418;/' {site}")
        host.run("systemctl reload nginx")
        host.fab(*CHAIN, timeout=600)
        assert host.status("/", port=80) == 418
        host.healthy()
