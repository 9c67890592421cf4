"""A balancer: what HAProxy is told, and what the servers behind it say."""

from __future__ import annotations

import hashlib
import json as serialised
import re
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.site import LOOPBACK
from tasks.engine.change import Change
from tasks.engine.records import dataclass
from tasks.engine.templates import render, requested, source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tasks.engine.server import Server
    from tasks.engine.settings import Settings

HTTP, HTTPS = 80, 443

# What a server answers to GET /usable (files/nginx/site.conf).
STATES = {
    200: "usable",
    404: "drained: about to be restarted",
    503: "not usable (./fab -H SERVER doctor)",
}


@dataclass(frozen=True)
class Found:
    """A balancer and its servers, as files/host/balancer/look_at_balancer.py sees them."""

    block: str
    active: bool
    servers: Mapping[str, int | None]

    @property
    def certificate(self) -> str:
        """Return the digest of the certificate that it shows; empty without TLS."""
        stamp = re.search(r"# certificate ([0-9a-f]{16})$", self.block, re.M)
        return stamp[1] if stamp else ""


def refuse_unreachable(server: Server) -> None:
    """Raise Exit where the servers would not let a balancer in, or not answer in its name."""
    settings = server.settings
    if not settings.balancers:
        raise Exit(
            "The servers do not know of a balancer. Set `balancer:` in fabric.yaml to the address "
            f"of {server.name}, then type ./fab -H SERVERS deploy, and this again."
        )
    if settings.bind in LOOPBACK:
        raise Exit(
            f"The servers listen on {settings.bind} alone, where no balancer reaches them. Set "
            "`bind: 0.0.0.0` in fabric.yaml, then type ./fab -H SERVERS deploy, and this again."
        )


def spelt(place: str, port: int) -> str:
    """Return a server with its port."""
    return place if ":" in place else f"{place}:{port}"


def required_name(settings: Settings) -> str:
    """Return the name that a certificate is for; raise Exit where the settings name none."""
    if not settings.public_name:
        raise Exit(
            "A certificate is for a name. Set `public_name:` in fabric.yaml to the one that "
            "clients use, and type ./fab -H SERVERS deploy, so that they answer to it."
        )
    return settings.public_name


def look(server: Server, places: Sequence[str]) -> Found:
    """Return how balancer and servers stand, seen in one exec."""
    files = requested("look_at_balancer.py", unit=server.settings.unit, servers=list(places))
    step = Change("look", 'python3 "$here/look_at_balancer.py"', files)
    return Found(**serialised.loads(server.look("balancer", [step])[-1]))


def block(settings: Settings, places: Sequence[str], certificate: str) -> str:
    """Return our part of HAProxy's configuration; `certificate` is its digest, or empty."""
    servers = (f"server {place.replace(':', '_')} {place} tcp-ut 10s" for place in places)
    return render(
        "haproxy.cfg",
        unit=settings.unit,
        doors="\n  ".join(doors(settings, certificate)),
        servers="\n  ".join(servers),
    )


def doors(settings: Settings, certificate: str) -> list[str]:
    """List the lines that open the doors: the port, or with a certificate 443 and the way there."""
    if not certificate:
        return [f"bind *:{settings.port}"]
    return [
        f"# certificate {certificate}",
        f"bind *:{HTTPS} ssl crt /etc/haproxy/{settings.unit}.pem alpn h2,http/1.1",
        f"bind *:{HTTP}",
        "http-request redirect scheme https code 301 unless { ssl_fc }",
        "http-request set-header X-Forwarded-Proto https",
    ]


def installing(settings: Settings, wanted: str, pair: tuple[str, str] | None) -> Change:
    """Return the change that installs HAProxy and has it go by our part of its configuration.

    `wanted` is that part (see `block`), `pair` a certificate's chain and key where they are new.
    """
    tls = "# certificate " in wanted
    script = "\n".join(
        (
            "packages=haproxy",
            "if [ -x /usr/sbin/haproxy ]; then packages=; fi",
            f"unit={settings.unit} port={HTTPS if tls else settings.port}",
            f"install_packages() {{\n{source('install_packages.sh')}}}",
            source("install_balancer.sh"),
        )
    )
    files: dict[str, str | bytes] = {"block": wanted}
    if pair:
        chain, secret = pair
        files["pem"] = f"{chain.rstrip()}\n{secret}"
    return Change("have HAProxy balance", script, files)


def digest(certificate: str) -> str:
    """Return a digest of a certificate, to see whether another one came."""
    return hashlib.sha256(certificate.encode()).hexdigest()[:16]


def address(settings: Settings, certificate: str) -> str:
    """Return where clients find the servers; `certificate` is its digest, or empty."""
    if certificate or settings.public_name:
        return f"{'https' if certificate else 'http'}://{settings.public_name}" + (
            "" if certificate else f":{settings.port}"
        )
    return f"http://{settings.balancers[0]}:{settings.port}"


def row(place: str, status: int | None) -> dict[str, Any]:
    """Return what is told of one server; `status` is its answer to GET /usable, None without."""
    state = "cannot be reached" if status is None else STATES.get(status, f"answers {status}")
    return {"server": place, "usable": status == 200, "state": state}
