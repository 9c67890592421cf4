"""A name of its own for the server, with TLS: a certificate, its renewal, and its end.

The host remembers the name (`.tls` in the server's folder), so that every later `deploy` keeps it,
whoever types it and whatever fabric.yaml says; only `tls.disable` takes it away.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.changes.certificates import own_pair, read_pem, refuse_name
from tasks.changes.presence import absent
from tasks.changes.site import pair
from tasks.changes.tls import (
    DAY,
    LETS_ENCRYPT,
    Certified,
    disabling,
    enabling,
    own_files,
    row_of,
)
from tasks.engine import credentials
from tasks.engine.change import Change
from tasks.engine.console import console
from tasks.engine.facts import Tls, is_deployed, refuse_without_sudo
from tasks.engine.shell import sh
from tasks.engine.tables import counted
from tasks.engine.task import remote
from tasks.engine.templates import source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tasks.engine.server import Server
    from tasks.engine.task import Host

NAMESPACE = "tls"

_asking = threading.Lock()


def refuse_nonsense(
    name: str,
    email: str = "",
    certificate: str = "",
    key: str = "",
    acme_url: str = "",
    acme_ca: str = "",
) -> None:
    """Raise Exit where what was typed makes no sense, or certificate and key do not fit."""
    refuse_name(name)
    if bool(certificate) != bool(key):
        raise Exit("--certificate and --key belong together. Give both.")
    if certificate:
        if email or acme_url or acme_ca:
            raise Exit("--certificate is your own; --email and --acme-… are for one that an "
                       "authority makes. Give one or the other.")  # fmt: skip
        own_pair(name, certificate, key)
    elif "@" not in email.strip("@"):
        raise Exit(
            "An authority wants an address for its warnings. Add --email you@example.org; with it "
            "you agree to its terms. Or bring a certificate: --certificate FILE --key FILE"
        )
    if acme_url and not acme_url.startswith("https://"):
        raise Exit(f"--acme-url is {acme_url!r}. Give the address of an ACME directory: https://…")
    if acme_ca:
        read_pem(acme_ca, "--acme-ca")


def one_host(servers: list[Server]) -> None:
    """Raise Exit where several hosts would get one name."""
    if len(servers) > 1:
        raise Exit("A name belongs to one host. Name one: -H HOST")


@remote(
    options=refuse_nonsense,
    check=one_host,
    help={
        "name": "the DNS name that clients use; it must point to the host",
        "email": "where the authority sends warnings; with it you agree to its terms",
        "certificate": "a certificate of your own with its chain (PEM), instead of an authority's",
        "key": "the key of --certificate (PEM)",
        "acme-url": "another ACME authority than Let's Encrypt: the address of its directory",
        "acme-ca": "the CA (PEM) that signed that authority's own TLS, where the host has it not",
    },
)
def enable(
    c: Host,
    name: str,
    email: str = "",
    certificate: str = "",
    key: str = "",
    acme_url: str = "",
    acme_ca: str = "",
) -> None:
    """Serve the server to the network as https://NAME.

    With a certificate from Let's Encrypt, which renews itself, or your own; HTTP is sent to HTTPS.
    The host remembers the name: `deploy` keeps it. A failure leaves everything as it was. With an
    own certificate, run it again with new files to replace it.

    Example: fab -H ec2 tls.enable mlflow.example.org --email you@example.org
    """
    server, name = deployed(c.server), name.lower()
    settings = server.settings
    if settings.public_name and settings.public_name.lower() != name:
        raise Exit(
            f"The settings say `public_name: {settings.public_name}`. Set `public_name: {name}` "
            "under `mlflow:` in fabric.yaml, or leave it out; then run the same command again."
        )
    tls = Tls(name, "own" if certificate else acme_url or LETS_ENCRYPT)
    own = own_files(settings, tls, *own_pair(name, certificate, key)) if certificate else []
    wanted = Certified(tls, own, email, read_pem(acme_ca, "--acme-ca") if acme_ca else "")
    needed = enabling(settings, server.facts, credentials.known(server), wanted)
    if not needed:
        server.say(f"tls.enable: nothing to change, https://{name} is served")
        return
    server.apply(f"tls.enable {name}", needed)
    server.say(f"✓ MLflow is at https://{name}", "green")
    if not settings.public_name:
        server.say(f"For `./fab client` to name it, set `public_name: {name}` in fabric.yaml.")


def deployed(server: Server) -> Server:
    """Return the server; raises Exit where there is none to give a name to."""
    facts = server.facts
    if not is_deployed(server.settings, facts) or not facts.has_users:
        raise Exit(absent(server))
    refuse_without_sudo(facts)
    return server


@remote(help={"yes": "do not ask"})
def disable(c: Host, yes: bool = False) -> None:
    """Close the doors to the network; the tunnel stays.

    Ports 80 and 443 no longer serve this server, and its certificate is no longer renewed.
    Clients go through the tunnel again.

    Example: fab -H ec2 tls.disable
    """
    server = deployed(c.server)
    tls = server.facts.tls
    if tls is None:
        server.say("tls.disable: nothing to change, the server has no TLS")
        return
    with _asking:
        question = f"Take https://{tls.name} away from {server.place}?"
        if not server.confirm(
            question, yes, "Clients that use it can then no longer reach the server."
        ):
            raise Exit("Nothing was changed.")
    server.apply("tls.disable", disabling(server.settings, server.facts, credentials.known(server)))
    server.say("✓ no TLS any more; the way in is the tunnel: ./fab tunnel", "green")


@remote(help={"force": "also where the present one still holds long; authorities limit how often"})
def renew(c: Host, force: bool = False) -> None:
    """Renew the certificate now, if it is due.

    The host's own timer does this twice a day. A failure leaves the certificate that there is.

    Example: fab -H ec2 tls.renew
    """
    server = c.server
    tls = named(server)
    if tls.own:
        raise Exit(f"The certificate of {tls.name} is your own. Give a new one: ./fab "
                   f"tls.enable {tls.name} --certificate FILE --key FILE")  # fmt: skip
    script = "\n".join(
        (
            f"name={sh(tls.name)} force={'yes' if force else 'no'}",
            source("certbot.sh"),
            source("renew.sh"),
        )
    )
    step = Change(f"renew the certificate of {tls.name}", script)
    change, _, ends = server.apply("tls.renew", [step], decided=False)[-1].partition("\t")
    days = (int(ends) - server.facts.now) // DAY
    if change == "same":
        server.say(f"tls.renew: nothing to change, {tls.name}'s certificate holds "
                   f"{counted(days, 'day')} more (--force renews it all the same)")  # fmt: skip
    else:
        server.say(f"✓ a new certificate for {tls.name}, for {counted(days, 'day')}", "green")


def named(server: Server) -> Tls:
    """Return the host's name; raises Exit where it has none."""
    tls = deployed(server).facts.tls
    if tls is None:
        raise Exit(f"{server.name} has no TLS. Type: ./fab tls.enable NAME --email you@example.org")
    return tls


def show_tls(answers: Mapping[str, Any]) -> None:
    """Print what each host shows the network."""
    for host, row in answers.items():
        if row["name"] is None:
            console.say("no TLS: the way in is the tunnel", host)
            continue
        for line in lines(row):
            console.say(line, host)


def lines(row: Mapping[str, Any]) -> list[str]:
    """Spell one server's certificate, and what is wrong with it."""
    days = row["days_left"]
    said = [f"https://{row['name']} ({row['resolves'] or 'does not resolve'})"]
    if days is None:
        said.append("certificate: there is none")
    else:
        said += [
            f"certificate: by {row['issuer']}, for {', '.join(row['names'])}",
            f"holds until {row['until']}, {counted(days, 'day')}",
            f"SHA-256: {row['fingerprint']}",
        ]
    if not row["served"]:
        said.append("nginx does not show it (sudo systemctl reload nginx)")
    if row["authority"] == "own":
        said.append("renewal: yours to do (tls.enable with a new one)")
    elif not row["renewal_timer"]:
        said.append("renewal: OFF (sudo systemctl enable --now certbot.timer)")
    else:
        state = "the last one FAILED (./fab doctor says why)" if row["renewal_failed"] else "on"
        said.append(f"renewal: {state}, next look {row['renewal_next'] or 'unknown'}")
    return said


@remote(report=show_tls, help={"json": "print JSON instead of lines"})
def show(c: Host, json: bool = False) -> dict[str, Any]:
    """Show name, certificate and renewal.

    Example: fab -H ec2 tls.show
    """
    server = c.server
    tls = server.facts.tls
    if tls is None:
        return {"name": None}
    script = "\n".join(
        (
            f"name={sh(tls.name)} certificate={sh(pair(server.settings, tls).certificate)}",
            f"own={'yes' if tls.own else 'no'}",
            source("show_tls.sh"),
        )
    )
    reports = server.look("tls.show", [Change("look at the certificate", script)])
    return row_of(tls, server.facts.now, dict(line.split("\t", 1) for line in reports))
