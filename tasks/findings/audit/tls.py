"""Whether passwords pass in the clear, and how good the encryption is, as nginx's files say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tasks.engine.facts import site_of
from tasks.findings.case import Remedy
from tasks.findings.proxy import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.findings.case import Case, Finding

OLD = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1")  # RFC 8996

HALF_A_YEAR = 15_768_000  # seconds: what Mozilla's "intermediate" asks of HSTS is four times that

LOOPBACK = re.compile(r"listen\s+(127\.|\[::1\]|localhost|unix:)")


def tls(case: Case) -> Iterator[Finding]:
    listens = [line for line in case.audited.site if line.startswith("listen")]
    ciphered = [line for line in listens if re.search(r"\bssl\b", line)]
    wide = [line for line in listens if not LOOPBACK.match(line)]
    site = site_of(case.settings, case.facts).included
    # A port 80 beside a 443 sends clients there, and takes no password.
    plain = [line for line in wide if line not in ciphered and not (ciphered and _port(line) == 80)]
    if plain:
        yield case.finding(
            "passwords-in-clear",
            "Passwords pass over the network in the clear.",
            f"{site}: {'; '.join(line.rstrip(';') for line in plain)}",
            Remedy(
                "Leave `bind:` in fabric.yaml away and use the tunnel, or give the server a name "
                "and a certificate.",
                type=(case.fab("deploy"),),
            ),
        )
    for one in case.symptoms.certificates:
        yield from certificate(case, one.path, one.ends)
    for mode, owner, path in case.audited.keys:
        if int(mode, 8) & 0o077:
            yield case.finding(
                "key-readable",
                f"Others than {owner} may read the certificate's private key {path}.",
                f"mode {mode}",
                Remedy(script=f"sudo chmod go= {path}"),
            )
    if ciphered:
        yield from _grade(case, site)


def _grade(case: Case, site: str) -> Iterator[Finding]:
    protocols = next((line for line in case.audited.site if line.startswith("ssl_protocols")), "")
    old = [word for word in protocols.rstrip(";").split()[1:] if word in OLD]
    if old:
        yield case.finding(
            "tls-old",
            f"{' and '.join(old)} can be spoken, which is long broken.",
            f"{site}, else nginx.conf: {protocols}",
            Remedy(
                "Say `ssl_protocols TLSv1.2 TLSv1.3;` there.",
                type=(case.ssh("sudo nginx -t && sudo systemctl reload nginx"),),
            ),
        )
    hsts = next((line for line in case.audited.site if "Strict-Transport-Security" in line), "")
    age = re.search(r"max-age=(\d+)", hsts)
    if not age or int(age[1]) < HALF_A_YEAR:
        yield case.finding(
            "hsts-missing",
            "Browsers are not told to come back by HTTPS alone.",
            f"{site}: {hsts or 'no Strict-Transport-Security'}",
            Remedy('Say `add_header Strict-Transport-Security "max-age=63072000" always;` there.'),
            severity="note",
        )


def _port(line: str) -> int:
    found = re.search(r"(\d+)\s*(;|$| )", line.rpartition(":")[2] if ":" in line else line)
    return int(found[1]) if found else 80
