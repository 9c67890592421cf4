"""A name of its own for the server, with TLS: a certificate, its renewal, and its end.

The host remembers the name (`.tls` in the server's folder), so that every later `deploy` keeps it,
whoever types it and whatever fabric.yaml says; only `tls.disable` takes it away.
"""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Exit

from tasks import credentials, deploy
from tasks.commands import sh
from tasks.configure import is_there
from tasks.console import console
from tasks.deploy import File, is_deployed
from tasks.facts import Facts, Tls
from tasks.install import refuse_without_sudo
from tasks.kinds import Host, remote
from tasks.server import Change, Server
from tasks.service import absent
from tasks.site import challenge, pair
from tasks.templates import read

if TYPE_CHECKING:
    from tasks.credentials import Login
    from tasks.settings import Settings

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
# RFC 1123, section 2.1; an authority also wants a dot.
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NAME = re.compile(rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})+", re.IGNORECASE)
DAY = 86400  # seconds
_asking = threading.Lock()


# -- what was typed ----------------------------------------------------------------------------


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


def refuse_name(name: str) -> None:
    """Raise Exit where nobody would certify this name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        raise Exit(f"{name} is an address; a certificate is for a name. Give a DNS name that "
                   "points to the host.")  # fmt: skip
    if not NAME.fullmatch(name):
        raise Exit(f"{name!r} is no DNS name. Give one such as mlflow.example.org.")


def own_pair(name: str, certificate: str, key: str) -> tuple[str, str]:
    """Read the operator's certificate (with its chain) and key; raises Exit where they do not fit.

    The key must be the certificate's, without a passphrase; the certificate must be for the name
    and hold today, and what follows it must be who signed it.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    chain, secret = read_pem(certificate, "--certificate"), read_pem(key, "--key")
    console.protect(secret)
    try:
        first, *others = x509.load_pem_x509_certificates(chain.encode())
    except ValueError:
        raise Exit(f"{certificate} holds no certificate in PEM. Give the full chain, the server's "
                   "own certificate first.") from None  # fmt: skip
    try:
        private = load_pem_private_key(secret.encode(), password=None)
    except TypeError:
        raise Exit(f"{key} is locked with a passphrase, which nginx cannot type. Unlock a copy: "
                   f"openssl pkey -in {key} -out unlocked.key") from None  # fmt: skip
    except ValueError:
        raise Exit(f"{key} holds no private key in PEM. Give the certificate's key.") from None
    if private.public_key() != first.public_key():
        raise Exit(f"{key} is not the key of {certificate}. Give the two that belong together.")
    if not any(covers(known, name) for known in names_of(first)):
        known = ", ".join(names_of(first)) or "no name at all"
        raise Exit(f"{certificate} is for {known}, not for {name}. Give one for {name}.")
    now = datetime.now(timezone.utc)
    if not first.not_valid_before_utc <= now <= first.not_valid_after_utc:
        begins, ends = (f"{day:%Y-%m-%d}" for day in
                        (first.not_valid_before_utc, first.not_valid_after_utc))  # fmt: skip
        raise Exit(f"{certificate} holds from {begins} to {ends}, not today. Give one that does.")
    for lower, upper in zip([first, *others], others, strict=False):
        if lower.issuer != upper.subject:
            raise Exit(
                f"{certificate} is in disorder: after the certificate of "
                f"{lower.subject.rfc4514_string()} must come that of "
                f"{lower.issuer.rfc4514_string()}. Put the chain in order, the server's own first."
            )
    return chain, secret


def names_of(certificate: Any) -> list[str]:
    """List the DNS names that a certificate is for."""
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []  # clients have long ceased to look at the subject (RFC 9525)
    return list(found.value.get_values_for_type(x509.DNSName))


def covers(known: str, name: str) -> bool:
    """Tell whether a certificate's name, perhaps *.example.org, means this one."""
    known, name = known.lower(), name.lower()
    return known == name or (known.startswith("*.") and known[2:] == name.partition(".")[2])


def read_pem(file: str, option: str) -> str:
    """Read a local file; raises Exit where it cannot be read or holds no PEM."""
    try:
        text = Path(file).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise Exit(f"{option} {file} cannot be read: {why}. Name a PEM file.") from None
    if "-----BEGIN " not in text:
        raise Exit(f"{option} {file} is not PEM. Convert it: openssl x509 -inform der -in FILE")
    return text if text.endswith("\n") else text + "\n"


def one_host(servers: list[Server]) -> None:
    """Raise Exit where several hosts would get one name."""
    if len(servers) > 1:
        raise Exit("A name belongs to one host. Name one: -H HOST")


# -- enable ------------------------------------------------------------------------------------


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
    own certificate, the same again with a new one replaces it.

    Example: fab -H ec2 tls.enable mlflow.example.org --email you@example.org
    """
    server, name = deployed(c.server), name.lower()
    settings = server.settings
    if settings.public_name and settings.public_name.lower() != name:
        raise Exit(
            f"The settings say `public_name: {settings.public_name}`. Set `public_name: {name}` "
            "under `mlflow:` in fabric.yaml, or leave it out; then type the same again."
        )
    tls = Tls(name, "own" if certificate else acme_url or LETS_ENCRYPT)
    files = own_files(settings, tls, *own_pair(name, certificate, key)) if certificate else []
    needed = enabling(settings, server.facts, credentials.known(server), tls, files, email,
                      read_pem(acme_ca, "--acme-ca") if acme_ca else "")  # fmt: skip
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


def own_files(settings: Settings, tls: Tls, chain: str, key: str) -> list[File]:
    """Return the operator's certificate and key as they are to lie on the host."""
    places = pair(settings, tls)
    return [File(places.certificate, "644", chain), File(places.key, "600", key)]


def enabling(
    settings: Settings,
    facts: Facts,
    login: Login | None,
    tls: Tls,
    files: Sequence[File] = (),
    email: str = "",
    acme_ca: str = "",
) -> list[Change]:
    """Decide what is to be done for the host to serve a name; `files` are the operator's own."""
    # The key nobody but root can look at: it changes with the certificate.
    new = any(file.mode == "644" and not is_there(facts, file.path, file.text, "644")
              for file in files)  # fmt: skip
    served = facts.tls == tls and (facts.certificate_until or 0) > facts.now
    if served and not new and not deploy.changes(settings, facts, login):
        return []
    getting = [] if tls.own or served else [certifying(settings, facts, tls, email, acme_ca)]
    note = File(f"{facts.root}/.tls", "600", f"{tls.name} {tls.authority}\n")
    shipped = shipping(settings, replace(facts, tls=tls), login, [*files, note])
    return [*getting, shipped, *forgetting(settings, facts, tls)]


def certifying(settings: Settings, facts: Facts, tls: Tls, email: str, acme_ca: str = "") -> Change:
    """Build the change that has an authority certify the name, by nginx's answer on port 80."""
    script = "\n".join(
        (
            f"unit={settings.unit} name={sh(tls.name)} email={sh(email)}",
            f"authority={sh(tls.authority)} addresses={sh(' '.join(facts.addresses))}",
            f"install_packages() {{\n{read('host/install_packages.sh')}}}",
            read("host/certbot.sh"),
            read("host/certify.sh"),
        )
    )
    staged: dict[str, str | bytes] = {"challenge.conf": challenge(settings, facts, tls.name)}
    if acme_ca:
        staged["authority.pem"] = acme_ca
    return Change(f"get a certificate for {tls.name}", script, staged, announce=False)


def shipping(
    settings: Settings, after: Facts, login: Login | None, more: Sequence[File] = ()
) -> Change:
    """Build the change that has site and server go by the facts as they are to be `after` it."""
    auth = deploy.auth_file(settings, after)
    wanted = [*deploy.files(settings, after), auth]
    differing = [file for file in wanted
                 if not is_there(after, file.path, file.text, file.mode)]  # fmt: skip
    stamp = deploy.wellness(wanted, after)
    restart = deploy.must_restart(settings, differing)
    what = "; ".join([*(f"put {file.path}" for file in (*differing, *more)), deploy.CHECK])
    return deploy.deploying(
        settings, what, [*differing, *more], auth, stamp, login, restart, after.tls
    )


def forgetting(settings: Settings, facts: Facts, now: Tls | None) -> list[Change]:
    """Build the change that takes away what the former name or certificate needed alone."""
    former = facts.tls
    if former is None:
        return []
    uncertified = [] if former.own or (now and now.name == former.name and not now.own) else [
        former.name
    ]  # fmt: skip
    unused = []
    if former.own and not (now and now.own):
        places = pair(settings, former)
        unused += [places.certificate, places.key]
    if not former.own and (now is None or now.own):
        unused.append(authority_path(settings))
    if now is None:
        unused.append(f"{facts.root}/.tls")
    if not (uncertified or unused):
        return []
    script = (
        f"uncertified={sh(' '.join(uncertified))} unused={sh(' '.join(unused))}\n"
        f"{read('host/forget_tls.sh')}"
    )
    return [Change("take away what nobody needs any more", script)]


def authority_path(settings: Settings) -> str:
    """Name the file in which the host keeps whom to trust for an authority's own TLS."""
    return f"/usr/local/share/ca-certificates/{settings.unit}-authority.crt"


# -- disable, renew, show ----------------------------------------------------------------------


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
        if not server.confirm(question, yes, "Clients that use it then reach the server no more."):
            raise Exit("Nothing was changed.")
    server.apply("tls.disable", disabling(server.settings, server.facts, credentials.known(server)))
    again = server.fab("tunnel")
    server.say(f"✓ no TLS any more; the way in is the tunnel: {again}", "green")


def disabling(settings: Settings, facts: Facts, login: Login | None) -> list[Change]:
    """Decide what takes TLS away."""
    without = shipping(settings, replace(facts, tls=None), login)
    return [without, *forgetting(settings, facts, None)]


@remote(help={"force": "also where the present one still holds long; authorities limit how often"})
def renew(c: Host, force: bool = False) -> None:
    """Renew the certificate now, if it is due.

    The host's own timer does this twice a day. A failure leaves the certificate that there is.

    Example: fab -H ec2 tls.renew
    """
    server = c.server
    tls = named(server)
    if tls.own:
        again = server.fab("tls.enable", tls.name)
        raise Exit(f"The certificate of {tls.name} is your own. Give a new one: {again} "
                   "--certificate FILE --key FILE")  # fmt: skip
    script = "\n".join(
        (
            f"name={sh(tls.name)} force={'yes' if force else 'no'}",
            read("host/certbot.sh"),
            read("host/renew.sh"),
        )
    )
    step = Change(f"renew the certificate of {tls.name}", script)
    change, _, ends = server.apply("tls.renew", [step], decided=False)[-1].partition("\t")
    days = (int(ends) - server.facts.now) // DAY
    if change == "same":
        server.say(f"tls.renew: nothing to change, {tls.name}'s certificate holds {days} days more "
                   "(--force renews it all the same)")  # fmt: skip
    else:
        server.say(f"✓ a new certificate for {tls.name}, for {days} days", "green")


def named(server: Server) -> Tls:
    """Return the host's name; raises Exit where it has none."""
    tls = deployed(server).facts.tls
    if tls is None:
        type_ = server.fab("tls.enable")
        raise Exit(f"{server.name} has no TLS. Type: {type_} NAME --email you@example.org")
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
            f"holds until {row['until']}, {days} days",
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
            read("host/show_tls.sh"),
        )
    )
    reports = server.look("tls.show", [Change("look at the certificate", script)])
    return row_of(tls, server.facts.now, dict(line.split("\t", 1) for line in reports))


def row_of(tls: Tls, now: int, found: Mapping[str, str]) -> dict[str, Any]:
    """Say what was found, in plain values."""

    def day(key: str) -> str | None:
        seconds = found.get(key, "")
        if not seconds.isdigit():
            return None
        return f"{datetime.fromtimestamp(int(seconds), timezone.utc):%Y-%m-%d %H:%M} UTC"

    ends = found.get("ends", "")
    return {
        "name": tls.name,
        "authority": tls.authority,
        "issuer": found.get("issuer"),
        "names": found.get("names", "").split(),
        "since": day("begins"),
        "until": day("ends"),
        "days_left": (int(ends) - now) // DAY if ends.isdigit() else None,
        "fingerprint": found.get("fingerprint"),
        "served": bool(found.get("served")) and found.get("served") == found.get("fingerprint"),
        "resolves": found.get("resolves") or None,
        "renewal_timer": None if tls.own else found.get("timer") == "active",
        "renewal_failed": None if tls.own else found.get("failed") == "failed",
        "renewal_next": day("next"),
    }
