"""A host whose network is cut: installed from this machine, and again from what it has."""

from __future__ import annotations

import pytest
from lab import CHAIN, ROOT, Host
from older import NEWER, OLDER

from tasks.engine.facts import PACKAGES

FILE = """
mlflow:
  environments:
    second: {port: 5003}
"""


def wheelhouse(host: Host) -> None:
    """Have the operator make a wheelhouse for a host where `wheels` says."""
    python = host.run("python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'").strip()
    machine = host.run("uname -m").strip()
    words = ("--to", wheels(host), "--python", python, "--platform", machine)
    host.fab("wheelhouse", *words, timeout=600)


def wheels(host: Host) -> str:
    return str(host.home / "wheels")


def test_a_host_without_internet_is_installed_from_this_machine(blank: Host) -> None:
    host = blank
    options = ("install", "--from-wheelhouse", wheels(host))
    host.refused(*options, because=("There is no whole wheelhouse in", "./fab wheelhouse --to"))
    wheelhouse(host)
    with host.offline():
        host.refused(*options, because=("sudo apt-get install", "python3-venv"))
    packages = " ".join(PACKAGES)
    host.run(
        "export DEBIAN_FRONTEND=noninteractive; apt-get -q update && "
        f"apt-get install -qy --no-install-recommends {packages}"
    )
    with host.offline():
        sent = host.fab(*options, "configure", "deploy", timeout=600)
        assert "send " in sent.out
        assert "nothing to change" in host.fab(*options).out
        host.healthy()
        file = host.home / "second.yaml"
        file.write_text(FILE)
        aim = ("-S", str(host.lab.ssh_config), "-f", str(file), "-H", host.alias)
        assert "installed" in host.fab("use", "second", "install", aim=aim, timeout=600).out


@pytest.mark.sampled
def test_a_server_without_internet_is_upgraded_by_wheels_from_here(blank: Host) -> None:
    host = blank
    host.variables["FABRIC_MLFLOW_VERSION"] = OLDER
    host.fab(*CHAIN, timeout=600)
    host.variables["FABRIC_MLFLOW_VERSION"] = NEWER
    with host.offline():
        host.refused("upgrade", because=("run the same command again", "./fab wheelhouse"))
        wheelhouse(host)
        # As where a newer copy of this project wants other tools.
        host.run(f"echo former > {ROOT}/tools/.complete")
        sent = host.fab("install", "--from-wheelhouse", wheels(host), timeout=600)
        assert f"the server keeps MLflow {OLDER}" in sent.out
        assert f"MLflow {NEWER}, whose wheels are on the host" in sent.out
        assert f"✓ MLflow {NEWER} serves" in host.fab("upgrade", timeout=600).out
        host.fab("verify")
        assert f"✓ MLflow {OLDER} serves" in host.fab("rollback", "--yes").out
        host.healthy()
