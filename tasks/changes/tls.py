"""What serves a name with TLS, renews or replaces its certificate, and takes it away again.

Exit is raised where the server could not be deployed either: see changes/deploy.py.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from tasks.changes import deploy, proofs
from tasks.changes.files import File, auth_file, deploy_digest, files, must_restart
from tasks.changes.site import challenge, challenge_file, pair
from tasks.engine.change import Change
from tasks.engine.facts import is_there
from tasks.engine.records import dataclass
from tasks.engine.shell import sh
from tasks.engine.templates import source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from tasks.engine.facts import Facts, Tls
    from tasks.engine.login import Login
    from tasks.engine.settings import Settings

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"

DAY = 86400  # seconds


@dataclass(frozen=True)
class Certified:
    """A name that a host is to serve, and where its certificate comes from.

    `own` are the operator's certificate and key as files on the host; an authority is told an
    address for its warnings, and `authority_ca` (PEM) vouches for its own TLS where the host knows
    it not.
    """

    tls: Tls
    own: Sequence[File] = ()
    email: str = ""
    authority_ca: str = ""


def own_files(settings: Settings, tls: Tls, chain: str, key: str) -> list[File]:
    """Return the operator's certificate and key as they are to lie on the host."""
    places = pair(settings, tls)
    return [File(places.certificate, "644", chain), File(places.key, "600", key)]


def enabling(
    settings: Settings, facts: Facts, login: Login | None, wanted: Certified
) -> list[Change]:
    """Return what is to be done for the host to serve a name, nothing where it does."""
    tls = wanted.tls
    # The key nobody but root can look at: it changes with the certificate.
    new = any(file.mode == "644" and not is_there(facts, file.path, file.text, "644")
              for file in wanted.own)  # fmt: skip
    served = facts.tls == tls and (facts.certificate_until or 0) > facts.now
    if served and not new and not deploy.changes(settings, facts, login):
        return []
    getting = [] if tls.own or served else [certifying(settings, facts, wanted)]
    note = File(f"{facts.root}/.tls", "600", f"{tls.name} {tls.authority}\n")
    shipped = shipping(settings, replace(facts, tls=tls), login, [*wanted.own, note])
    return [*getting, shipped, *forgetting(settings, facts, tls)]


def certifying(settings: Settings, facts: Facts, wanted: Certified) -> Change:
    """Return the change that has an authority certify the name, by nginx's answer on port 80."""
    tls = wanted.tls
    script = "\n".join(
        (
            f"unit={settings.unit} name={sh(tls.name)} email={sh(wanted.email)}",
            f"challenge={challenge_file(settings, facts)}",
            f"authority={sh(tls.authority)} addresses={sh(' '.join(facts.addresses))}",
            f"install_packages() {{\n{source('install_packages.sh')}}}",
            source("certbot.sh"),
            source("certify.sh"),
        )
    )
    staged: dict[str, str | bytes] = {"challenge.conf": challenge(settings, facts, tls.name)}
    if wanted.authority_ca:
        staged["authority.pem"] = wanted.authority_ca
    return Change(f"get a certificate for {tls.name}", script, staged, announce=False)


def shipping(
    settings: Settings, after: Facts, login: Login | None, more: Sequence[File] = ()
) -> Change:
    """Return the change that has site and server go by the facts as they are to be `after` it.

    `more` is shipped with what differs.
    """
    auth = auth_file(settings, after)
    wanted = [*files(settings, after), auth]
    differing = [file for file in wanted
                 if not is_there(after, file.path, file.text, file.mode)]  # fmt: skip
    stamp = deploy_digest(wanted, after)
    restart = must_restart(settings, differing)
    what = "; ".join([*(f"put {file.path}" for file in (*differing, *more)), proofs.CHECK])
    shipment = deploy.Shipment(what, [*differing, *more], auth, stamp, restart)
    return deploy.deploying(settings, after, shipment, login)


def forgetting(settings: Settings, facts: Facts, now: Tls | None) -> list[Change]:
    """Return what takes away what the former name or certificate needed alone, if anything.

    `now` is what the host serves from here on, None without TLS.
    """
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
        f"{source('forget_tls.sh')}"
    )
    return [Change("take away what nobody needs any more", script)]


def authority_path(settings: Settings) -> str:
    """Return the file in which the host keeps whom to trust for an authority's own TLS."""
    return f"/usr/local/share/ca-certificates/{settings.unit}-authority.crt"


def disabling(settings: Settings, facts: Facts, login: Login | None) -> list[Change]:
    """Return what takes TLS away: the doors first, then what nobody needs any more."""
    without = shipping(settings, replace(facts, tls=None), login)
    return [without, *forgetting(settings, facts, None)]


def row_of(tls: Tls, now: int, found: Mapping[str, str]) -> dict[str, Any]:
    """Return what tls.show tells of a certificate, in plain values; None where nobody knows.

    `found` is what files/host/tls/show_tls.sh reports, `now` the host's clock in seconds.
    """

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
