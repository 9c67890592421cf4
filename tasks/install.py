"""Install what the server needs on the host: packages, tools, and MLflow's own environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.changes.install import changes
from tasks.changes.releases import is_behind, release_of
from tasks.engine.task import remote

if TYPE_CHECKING:
    from tasks.engine.task import Host


@remote(then="configure deploy verify")
def install(c: Host) -> None:
    """Install packages, tools and MLflow on the host.

    What the guide lists (Python, AWS CLI, htop, tmux, git, curl), nginx, and the locked
    environment of the configured MLflow release. Waits for apt where a new instance is busy.

    Example: fab -H ec2 install
    """
    server = c.server
    needed = changes(server.settings, server.facts)
    if guide := server.facts.guide:
        server.say(f"the guide's server (MLflow {guide.version}) is left as it is")
    if not needed:
        release = server.facts.release or release_of(server.settings)
        server.say(f"install: nothing to change (MLflow {release})")
        if is_behind(server.settings, server.facts) and not guide:
            wanted = f"MLflow {server.settings.version}"
            server.say(f"The settings want {wanted}. What that would do: ./fab upgrade --check")
        return
    server.apply("install", needed)
    server.say(f"✓ installed MLflow {server.settings.version}", "green")
