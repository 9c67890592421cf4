"""The whole thing on a throw-away host: what a first user types first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tasks import sandbox
from tasks.engine import credentials, paths
from tasks.engine.console import console, seconds
from tasks.engine.task import local, remote
from tasks.laptop.tunnels import url

if TYPE_CHECKING:
    from tasks.engine.task import Host, Local


@remote
def _closing_panel(c: Host) -> None:
    """Show what there is now and what to type next."""
    from rich.panel import Panel

    server = c.server
    uri = url(server.settings.local_port)
    command = f"./fab -H {server.name}"
    console.show(
        Panel(
            "\n".join(
                (
                    "An MLflow server runs on a host of this machine, as it would on EC2.",
                    "",
                    f"Open it     {command} tunnel --background     then {uri}",
                    f"Log in      {command} client     "
                    f"(user {credentials.required(server).username}; the password is in",
                    f"            {paths.shown(credentials.copy_of(server))})",
                    f"Look        {command} status     {command} logs     {command} plan",
                    "Take down   ./fab sandbox.down",
                    "Do it live  ./fab -H YOUR-EC2-HOST install configure deploy verify",
                )
            ),
            title="Rehearsal done",
            border_style="green",
            expand=False,
        )
    )


CHAIN = ("install", "configure", "deploy", "verify")


@local(
    help={
        "suite": "Debian release: bookworm (12) or trixie (13)",
        "yes": "do not ask before changing this machine",
    }
)
def rehearse(c: Local, suite: str = "bookworm", yes: bool = False) -> None:
    """Do the whole thing on a throw-away host here.

    Boots a rehearsal host, installs, configures, deploys and verifies, with S3 played by moto. No
    AWS account is needed, and no real key or bucket is touched.

    Example: fab rehearse
    """
    from tasks.engine.chain import run_on

    started = time.monotonic()
    with console.step("boot a rehearsal host"):
        sandbox.boot(1, suite, yes)
    run_on(["sandbox"], [*(c.tasks[name] for name in CHAIN), _closing_panel], c.config)
    console.say(f"✓ rehearsed in {seconds(time.monotonic() - started)}", style="green")
