"""nginx's site: the server's doors, who may knock how often, and the certificate it shows."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.engine.templates import render

if TYPE_CHECKING:
    from tasks.engine.facts import Facts, Tls
    from tasks.engine.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost")

YEAR = 31536000  # seconds

# So many logins that were not good before an address may try at once, and then in a minute. A hash
# costs MLflow 80 ms, and a password has 12 characters or more.
AT_ONCE, A_MINUTE = 20, 12

# Of the login that was good, nginx keeps so many hexadecimal digits of a digest, and not itself.
DIGITS = 8

# Told that the server can do multipart, MLflow's clients fetch every file straight from S3 by
# presigned URL, and hang where they cannot reach it. Without this answer they come through here.
ARTIFACT_RULES = {
    "proxied": "location = /api/3.0/mlflow/server-info { return 404; }",
    "direct": "# artifact_access: direct. Clients may be sent to S3 by presigned URL.",
}


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
    """List the host's addresses that the port can be reached at from elsewhere, with the port."""
    if settings.bind in LOOPBACK:
        return []
    addresses = facts.addresses if settings.bind == "0.0.0.0" else (settings.bind,)
    shown = (f"[{address}]" if ":" in address else address for address in addresses)
    return [f"{address}:{settings.port}" for address in shown]


def allowed_hosts(settings: Settings, facts: Facts) -> list[str]:
    """List the Host headers that the server answers to; MLflow matches with the port.

    The tunnel's local port is the operator's choice, so localhost is allowed with every port.
    """
    hosts = ["localhost", "localhost:*", "127.0.0.1:*", *open_addresses(settings, facts)]
    for name in [*names(settings, facts), *faces(settings)]:
        hosts += [name, f"{name}:*"]
    return hosts


def faces(settings: Settings) -> list[str]:
    """List the balancers' addresses, which clients may name; a network is nobody's address."""
    return [f"[{each}]" if ":" in each else each for each in settings.balancers if "/" not in each]


def allowed_origins(settings: Settings, facts: Facts) -> list[str]:
    """List the origins whose pages may change something: its own, wherever they are opened.

    Browsers name the origin with every change, also on the same server; localhost's MLflow allows
    by itself.
    """
    origins = [f"http://{address}" for address in open_addresses(settings, facts)]
    for name in [*names(settings, facts), *faces(settings)]:
        origins += [f"https://{name}", f"https://{name}:*"]
        # Somebody else's TLS, or none: what stands before the port is not ours to know.
        if facts.tls is None or settings.bind not in LOOPBACK:
            origins += [f"http://{name}", f"http://{name}:*"]
    return origins


def site(settings: Settings, facts: Facts) -> str:
    """Render nginx's site: the port, and 80 and 443 where the host has TLS."""
    unit, wide = settings.unit, settings.bind not in LOOPBACK
    guarded = wide or facts.tls is not None
    port = [login(settings)] if wide else []
    port += [rules(settings, gated=wide)]
    if guarded:
        port.append(render("nginx/new-login.conf", unit=unit, burst=AT_ONCE))
    if settings.balancers:
        port.append("\n".join(f"  set_real_ip_from {each};" for each in settings.balancers))
        port.append("  real_ip_header X-Forwarded-For;\n")
    port.append(usable(settings))
    return render(
        "nginx/site.conf",
        unit=unit,
        listen="\n  ".join(f"listen {address};" for address in listeners(settings)),
        guard=guard(settings) if guarded else "",
        rules="\n".join(port),
        tls=tls_servers(settings, facts, facts.tls) if facts.tls else "",
    )


def rules(settings: Settings, gated: bool) -> str:
    """Render what holds at every door."""
    gate = "auth_request /.login; error_page 403 = @too-many;\n    " if gated else ""
    rule = ARTIFACT_RULES[settings.artifact_access]
    return render("nginx/rules.conf", unit=settings.unit, artifact_rule=rule, gate=gate)


def usable(settings: Settings) -> str:
    """Render the answer to balancers; the login that it tries is nobody's: no name is empty."""
    nobody = b64encode(b":nobody").decode()
    return render("nginx/usable.conf", unit=settings.unit, nobody=nobody)


def guard(settings: Settings) -> str:
    """Render what the doors to the network share: the count of new logins, and the good ones."""
    name = _variable(settings)
    sixteen = " ".join(f"6.25% {digit:x};" for digit in range(15)) + " * f;"
    digits = (
        f'split_clients "{place}$http_authorization" ${name}_{place} {{ {sixteen} }}'
        for place in range(DIGITS)
    )
    return render(
        "nginx/guard.conf",
        unit=settings.unit,
        variable=name,
        rate=A_MINUTE,
        digits="\n".join(digits),
    )


def login(settings: Settings, hsts: str = "") -> str:
    """Render how a door asks whether a login may be tried now."""
    name = _variable(settings)
    return render(
        "nginx/login.conf",
        unit=settings.unit,
        variable=name,
        digest="".join(f"${{{name}_{place}}}" for place in range(DIGITS)),
        port=settings.port,
        wait=60 // A_MINUTE,
        hsts=hsts or "# no TLS here",
    )


def tls_servers(settings: Settings, facts: Facts, tls: Tls) -> str:
    """Render the doors 80 and 443."""
    files = pair(settings, tls)
    hsts = f'add_header Strict-Transport-Security "max-age={YEAR}" always;'
    return render(
        "nginx/tls.conf",
        unit=settings.unit,
        tls_name=tls.name,
        listen_80=_listen(facts, "80"),
        listen_443=_listen(facts, "443 ssl"),
        certificate=files.certificate,
        key=files.key,
        hsts=hsts,
        login=login(settings, hsts),
        rules=rules(settings, gated=True),
    )


def challenge(settings: Settings, facts: Facts, name: str) -> str:
    """Render the site that answers an authority while there is no certificate yet."""
    return render("nginx/challenge.conf", unit=settings.unit, tls_name=name,
                  listen=_listen(facts, "80"))  # fmt: skip


def _listen(facts: Facts, what: str) -> str:
    # A host without IPv6 would not start nginx with the second line.
    both = ("", "[::]:") if any(":" in address for address in facts.addresses) else ("",)
    return "\n  ".join(f"listen {address}{what};" for address in both)


def _variable(settings: Settings) -> str:
    """Spell the unit as nginx spells variables."""
    return settings.unit.replace("-", "_")
