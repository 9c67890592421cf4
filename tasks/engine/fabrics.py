"""Fabric's options and configuration, told again: Fabric itself loads Paramiko, a third of a start.

What connects loads Fabric (`hosts.connection_to`); a list, a help text or TAB never does. A test
compares both with Fabric's own.
"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import invoke
from invoke import Argument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class Config(invoke.Config):
    """Invoke's configuration under Fabric's names: fabric.yaml, FABRIC_*, and Fabric's defaults.

    Cloned into Fabric's own it has what a connection needs.
    """

    prefix = "fabric"

    @staticmethod
    def global_defaults() -> dict[str, Any]:
        """Return Invoke's defaults with Fabric's, but for the runners, which need Paramiko."""
        return {
            **invoke.Config.global_defaults(),
            "authentication": {"identities": [], "strategy_class": None},
            "connect_kwargs": {},
            "forward_agent": False,
            "gateway": None,
            "inline_ssh_env": True,
            "load_ssh_configs": True,
            "port": 22,
            "ssh_config_path": None,
            "tasks": {**invoke.Config.global_defaults()["tasks"], "collection_name": "fabfile"},
            "timeouts": {**invoke.Config.global_defaults()["timeouts"], "connect": None},
            "user": getpass.getuser(),
        }


def options() -> list[Argument]:
    """Return the options that Fabric has beside Invoke's."""
    return [
        Argument(
            names=("H", "hosts"),
            help="Comma-separated host name(s) to execute tasks against.",
        ),
        Argument(
            names=("i", "identity"),
            kind=list,
            help="Path to runtime SSH identity (key) file. May be given multiple times.",
        ),
        Argument(
            names=("list-agent-keys",),
            kind=bool,
            help="Display ssh-agent key list, and exit.",
        ),
        Argument(
            names=("prompt-for-login-password",),
            kind=bool,
            help="Request an upfront SSH-auth password prompt.",
        ),
        Argument(
            names=("prompt-for-passphrase",),
            kind=bool,
            help="Request an upfront SSH key passphrase prompt.",
        ),
        Argument(
            names=("S", "ssh-config"),
            help="Path to runtime SSH config file.",
        ),
        Argument(
            names=("t", "connect-timeout"),
            kind=int,
            help="Specifies default connection timeout, in seconds.",
        ),
    ]


def overrides(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what these options set in the configuration; asks for the secrets they want asked."""
    connecting: dict[str, Any] = {}
    found: dict[str, Any] = {"connect_kwargs": connecting}
    if files := given["identity"].value:
        connecting["key_filename"] = files
        found["authentication"] = {"identities": [Path(file) for file in files]}
    if timeout := given["connect-timeout"].value:
        connecting["timeout"] = timeout
    if given["prompt-for-login-password"].value:
        prompt = "Enter login password for use with SSH auth: "
        connecting["password"] = getpass.getpass(prompt)
    if given["prompt-for-passphrase"].value:
        prompt = "Enter passphrase for use unlocking SSH keys: "
        connecting["passphrase"] = getpass.getpass(prompt)
    return found


def agent_keys() -> list[str]:
    """Describe the keys of the ssh agent, a line each, as `ssh-add -l` does."""
    from paramiko import Agent

    return [
        f"{key.get_bits()} {key.fingerprint} {key.comment} ({key.algorithm_name})"
        for key in Agent().get_keys()
    ]
