"""One way in to several servers: HAProxy on a host of its own, which asks if they are usable."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes import certificates
from tasks.changes.balancer import (
    address,
    block,
    digest,
    installing,
    look,
    refuse_unreachable,
    required_name,
    row,
    spelt,
)
from tasks.engine.console import console
from tasks.engine.facts import refuse_without_sudo
from tasks.engine.task import remote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tasks.engine.task import Host

PLACE = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?")


def options(servers: str = "", certificate: str = "", key: str = "", json: bool = False) -> None:
    """Refuse what is no server, and a certificate without its key."""
    for word in filter(None, servers.split(",")):
        if not PLACE.fullmatch(word):
            raise Exit(
                f"--servers: {word!r} is no address. Give the MLflow hosts as this balancer "
                "reaches them, such as 10.0.1.11,10.0.1.12"
            )
    if bool(certificate) != bool(key):
        raise Exit("--certificate and --key belong together. Give both.")


def show(answers: Mapping[str, Any]) -> None:
    """Print one line a server."""
    for host, rows in answers.items():
        for seen in rows:
            style = "green" if seen["usable"] else "yellow"
            console.say(f"  {seen['server']:<22} {seen['state']}", host, style)


def verdict(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Say why a balancer is of no use."""
    if any(row["usable"] for row in rows):
        return None
    return "No server is usable. See why: ./fab -H SERVERS status doctor"


@remote(
    options=options,
    report=show,
    verdict=verdict,
    help={
        "servers": "the MLflow hosts as this one reaches them, such as 10.0.1.11,10.0.1.12 "
        "(default: the addresses of `hosts:`)",
        "certificate": "PEM file with your certificate and its chain, for `public_name`",
        "key": "PEM file with the certificate's private key",
        "json": "print JSON instead of lines",
    },
)
def balancer(
    c: Host, servers: str = "", certificate: str = "", key: str = "", json: bool = False
) -> list[dict[str, Any]]:
    """Send clients to whichever server is usable.

    Debian's HAProxy, on a host of its own in front of several servers with one database. It asks
    each every second whether it is usable, sends nothing to one that is not or is about to be
    restarted, and tries another where a request could not be sent. With a certificate it serves
    https://NAME, else the settings' port in the clear.

    Example: fab -H lb balancer
    """
    server = c.server
    settings = server.settings
    refuse_unreachable(server)
    places = [spelt(word, settings.port) for word in servers.split(",") if word] or named(c)
    pair = certificates.own_pair(required_name(settings), certificate, key) if certificate else None
    found = look(server, places)
    stamp = digest(pair[0]) if pair else found.certificate
    wanted = block(settings, places, stamp)
    if found.active and found.block == wanted:
        server.say("balancer: nothing to change")
    else:
        refuse_without_sudo(server.facts)
        server.apply("balancer", [installing(settings, wanted, pair)], decided=False)
        found = look(server, places)
        server.say(f"✓ HAProxy serves {address(settings, stamp)}", "green")
    return [row(place, status) for place, status in found.servers.items()]


def named(c: Host) -> list[str]:
    """List the servers that `hosts:` names, by the addresses that OpenSSH has for them."""
    from tasks.engine.configuration import configured
    from tasks.engine.settings import settle

    server = c.server
    _, hosts = settle(configured(c.config), os.environ, server.settings.label)
    if not hosts:
        raise Exit(
            "Which servers? Name them in `hosts:` of fabric.yaml, or give --servers with their "
            "addresses, such as --servers 10.0.1.11,10.0.1.12"
        )
    return [spelt(server.client.target(host).hostname, server.settings.port) for host in hosts]
