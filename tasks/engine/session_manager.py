"""SSH through AWS's Session Manager: no port of the host is open to anybody.

OpenSSH's ProxyCommand has the AWS CLI and its session-manager-plugin carry the connection; on the
host amazon-ssm-agent takes it, which has called AWS from within ("Setting up a connection with SSH
through Session Manager", AWS Systems Manager user guide).
"""

from __future__ import annotations

import shutil

from invoke import Exit

START = "aws ssm start-session"

PLUGIN = "session-manager-plugin"

WHERE = (
    "https://docs.aws.amazon.com/systems-manager/latest/userguide/"
    "session-manager-working-with-install-plugin.html"
)

# By the program that is missing: what to type.
MISSING = {
    "aws": "The AWS CLI is missing here, through which `access: ssm` goes. Type: pip install "
    "awscli, or uv tool install awscli",
    PLUGIN: f"AWS's {PLUGIN} is missing here, through which `access: ssm` goes. Debian and Ubuntu: "
    "curl -o /tmp/plugin.deb https://s3.amazonaws.com/session-manager-downloads/plugin/latest/"
    "ubuntu_64bit/session-manager-plugin.deb && sudo dpkg -i /tmp/plugin.deb; macOS: brew install "
    f"--cask {PLUGIN}; others: {WHERE}",
}


def proxy(region: str) -> str:
    """Spell the ProxyCommand of a host whose HostName is its instance's id.

    Whose rights it uses is the operator's own matter, as in every other task: AWS_PROFILE, SSO.
    """
    return (
        f"{START} --target %h --document-name AWS-StartSSHSession --parameters portNumber=%p "
        f"--region {region}"
    )


def is_used(proxy_command: str | None) -> bool:
    """Tell whether a host is reached through Session Manager."""
    return START in (proxy_command or "")


def refuse_without_programs(proxy_command: str | None) -> None:
    """Raise Exit where a program is missing here that a host is reached by."""
    if not is_used(proxy_command):
        return
    for program, what in MISSING.items():
        if shutil.which(program) is None:
            raise Exit(what)


def unanswered(host: str, instance: str) -> str:
    """Say what may be wrong where no connection came about."""
    return (
        f"{host} cannot be reached through Session Manager. Is the instance running, and are you "
        f"logged in to AWS? Its own words: {START} --target {instance}"
    )
