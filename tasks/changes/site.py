"""What nginx's site is filled with, and by which hosts and origins the server may be called.

The site itself, with its conditions, is files/nginx/site.conf; nothing here raises.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tasks.engine.facts import site_of
from tasks.engine.records import dataclass
from tasks.engine.templates import render

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.engine.facts import Facts, Tls
    from tasks.engine.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost")

LONGEST = 46  # characters: 64 bytes without two pointers and the length (nginx's ngx_hash.h)


@dataclass(frozen=True)
class Pair:
    """Where certificate and key of a server lie on the host."""

    certificate: str
    key: str


def pair(settings: Settings, tls: Tls) -> Pair:
    """Name the files: the operator's own, or those that certbot keeps."""
    if tls.own:
        return Pair(f"/etc/ssl/certs/{settings.unit}.pem", f"/etc/ssl/private/{settings.unit}.key")
    live = f"/etc/letsencrypt/live/{tls.name}"
    return Pair(f"{live}/fullchain.pem", f"{live}/privkey.pem")


def listeners(settings: Settings) -> list[str]:
    """List the addresses that the port listens on: loopback always, for the tunnel comes there."""
    loopback = f"127.0.0.1:{settings.port}"
    if settings.bind in LOOPBACK:
        return [loopback]
    named = f"{settings.bind}:{settings.port}"
    return [named] if settings.bind == "0.0.0.0" else [loopback, named]


def names(settings: Settings, facts: Facts) -> list[str]:
    """List the names that clients use beside the host's own."""
    found = (facts.tls.name if facts.tls else None, settings.public_name)
    return list(dict.fromkeys(name.lower() for name in found if name))


def open_addresses(settings: Settings, facts: Facts) -> list[str]:
    """List the host's addresses that the port can be reached at from elsewhere."""
    if settings.bind in LOOPBACK:
        return []
    return _bracketed(facts.addresses if settings.bind == "0.0.0.0" else (settings.bind,))


def balancer_addresses(settings: Settings) -> list[str]:
    """List the balancers' addresses, which clients may name; a network is nobody's address."""
    return _bracketed(each for each in settings.balancers if "/" not in each)


def allowed_hosts(settings: Settings, facts: Facts) -> list[str]:
    """List the Host headers that the server answers to, as MLflow's --allowed-hosts has them.

    Each with every port: the tunnel's is the operator's choice, and nginx alone knows the server's,
    so that another one restarts nothing.
    """
    hosts = ["localhost", "localhost:*", "127.0.0.1:*"]
    for host in (
        *open_addresses(settings, facts), *names(settings, facts), *balancer_addresses(settings)
    ):  # fmt: skip
        hosts += _at_every_port(host)
    return hosts


def allowed_origins(settings: Settings, facts: Facts) -> list[str]:
    """List the origins whose pages may change something: its own, wherever they are opened.

    Browsers name the origin with every change, also on the same server; localhost's MLflow allows
    by itself.
    """
    origins = []
    for address in open_addresses(settings, facts):
        origins += _at_every_port(f"http://{address}")
    for name in [*names(settings, facts), *balancer_addresses(settings)]:
        origins += _at_every_port(f"https://{name}")
        # Somebody else's TLS, or none: what stands before the port is not ours to know.
        if facts.tls is None or settings.bind not in LOOPBACK:
            origins += _at_every_port(f"http://{name}")
    return origins


def _at_every_port(host: str) -> list[str]:
    # MLflow compares with the port, and where there is a * by fnmatch, to which [ opens a set.
    return [host, f"{host.replace('[', '[[]')}:*"]


def _bracketed(addresses: Iterable[str]) -> list[str]:
    return [f"[{address}]" if ":" in address else address for address in addresses]


def site(settings: Settings, facts: Facts) -> str:
    """Render nginx's site: the port, and 80 and 443 where the host has TLS."""
    wide = settings.bind not in LOOPBACK
    return render(
        "nginx/site.conf",
        unit=settings.unit,
        variable=settings.unit.replace("-", "_"),  # as nginx spells variables
        port=settings.port,
        listeners=listeners(settings),
        wide=wide,
        guarded=wide or facts.tls is not None,
        direct=settings.artifact_access == "direct",
        balancers=settings.balancers,
        ipv6=has_ipv6(facts),
        tls=facts.tls,
        named=named(facts.tls.name) if facts.tls else "",
        pair=pair(settings, facts.tls) if facts.tls else None,
    )


def site_words(settings: Settings, facts: Facts) -> str:
    """Spell for a script where the site's file lies, and the link that nginx includes it by."""
    place = site_of(settings, facts)
    return f"site={place.file} link={place.link}"


def challenge_file(settings: Settings, facts: Facts) -> str:
    """Name the file that answers an authority, where nginx includes it."""
    included = site_of(settings, facts).included
    return f"{included.removesuffix('.conf')}-challenge{'.conf' * included.endswith('.conf')}"


def named(name: str) -> str:
    """Spell a name for nginx's server_name, a long one as a pattern.

    Names stand in a table of nginx's whose rows hold 64 bytes, as much as the processor reads at
    once, and take no longer ones; wider rows can be asked for once in all of nginx's files, which
    is not ours to do. Patterns stand in none.
    """
    return name if len(name) <= LONGEST else f'"~^{re.escape(name.lower())}$"'


def challenge(settings: Settings, facts: Facts, name: str) -> str:
    """Render the site that answers an authority while there is no certificate yet."""
    return render(
        "nginx/challenge.conf",
        unit=settings.unit,
        tls_name=name,
        named=named(name),
        ipv6=has_ipv6(facts),
    )


def has_ipv6(facts: Facts) -> bool:
    """Tell whether nginx can listen on IPv6: it would not start where the host has none."""
    return any(":" in address for address in facts.addresses)
