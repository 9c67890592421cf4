"""SSH through Session Manager: everything works as it does by the port.

A stand-in plays the AWS CLI with its plugin: it carries the connection, as these do.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from lab import CHAIN, Host, answer

from tasks.engine import session_manager

INSTANCE = "i-0123456789abcdef0"

CLI = """#!/usr/bin/python3
import os, select, socket, sys

wanted = ["ssm", "start-session", "--target", "{instance}", "--document-name",
          "AWS-StartSSHSession", "--parameters", "portNumber=22", "--region", "eu-central-1"]
if sys.argv[1:] != wanted:
    sys.exit(f"not as Session Manager is asked: {{sys.argv[1:]}}")
with socket.create_connection(("{address}", 22)) as there:
    while True:
        for one in select.select([0, there], [], [])[0]:
            data = os.read(0, 65536) if one == 0 else there.recv(65536)
            if not data:
                sys.exit()
            if one == 0:
                there.sendall(data)
            while one == there and data:
                data = data[os.write(1, data):]
"""


@pytest.fixture
def by_session(host: Host, tmp_path: Path) -> dict[str, Any]:
    """An entry as aws.adopt writes it, and the programs that it needs: what ./fab is given."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (
        ("aws", CLI.format(instance=INSTANCE, address=host.address)),
        (session_manager.PLUGIN, "#!/bin/sh\n"),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    config = host.lab.ssh_config.read_text()
    block = next(one for one in re.split(r"(?m)^(?=Host )", config) if one.startswith(
        f"Host {host.alias}\n"))  # fmt: skip
    there = re.sub(r"(HostName) \S+", rf"\1 {INSTANCE}", block)
    file = tmp_path / "ssh_config"
    file.write_text(f"{there}    ProxyCommand {session_manager.proxy('eu-central-1')}\n")
    path = f"{programs}:{host.environment()['PATH']}"
    return {"aim": ("-S", str(file), "-H", host.alias), "PATH": path}


def test_chain_and_tunnel_work_without_an_open_port(host: Host, by_session: dict[str, Any]) -> None:
    host.fab(*CHAIN)
    assert host.fab(*CHAIN, **by_session).out.count("nothing to change") == 3
    host.fab("tunnel", "--background", **by_session)
    try:
        assert answer(f"http://127.0.0.1:{host.lab.local_port}/health") == 200
    finally:
        host.fab("tunnel.close", **by_session)


def test_what_is_missing_here_is_one_line(host: Host, by_session: dict[str, Any]) -> None:
    programs = Path(by_session["PATH"].split(":")[0])
    (programs / session_manager.PLUGIN).unlink()
    for task in (("status",), ("tunnel", "--background")):
        host.refused(*task, because=(session_manager.PLUGIN, "sudo dpkg -i"), **by_session)
