"""What is known of certificates on the operator's machine, before anything is done with one."""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from invoke import Exit

from tasks.engine.console import console

if TYPE_CHECKING:
    from typing import Any

# RFC 1123, section 2.1; an authority also wants a dot.
LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"

NAME = re.compile(rf"(?=.{{1,253}}$){LABEL}(\.{LABEL})+", re.IGNORECASE)


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
    """Return the operator's certificate (with its chain) and key; raise Exit where they do not fit.

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
    """List the DNS names that a certificate, read by `cryptography`, is for."""
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
    """Return a local file's text; raise Exit where it cannot be read or holds no PEM.

    `option` is what the file was given by. The text ends with a newline.
    """
    try:
        text = Path(file).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise Exit(f"{option} {file} cannot be read: {why}. Name a PEM file.") from None
    if "-----BEGIN " not in text:
        raise Exit(f"{option} {file} is not PEM. Convert it: openssl x509 -inform der -in FILE")
    return text if text.endswith("\n") else text + "\n"
