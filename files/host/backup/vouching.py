"""The backup key: what vouches for a set, and encrypts what is secret in it.

Runs on the host, beside the programs that import it. The key is root's; a script lays it where its
programs alone see it, and names that file. The server's own process can read neither.
"""

import hashlib
import hmac
import json
import os
import re

import shapes

FILE = "REMOTE_MLFLOW_BACKUP_KEY_FILE"  # the variable that names the file of this server's key
KEY = re.compile(r"[0-9a-f]{64}")
NONCE = 12  # bytes, what AES-GCM takes (NIST SP 800-38D)

# One key for each purpose: what is made for one is worth nothing for another.
MANIFEST, NOTE, CONFIGURATION = "manifest", "note", "configuration"


class Key:
    """One server's key; `id` tells it from others and gives nothing of it away."""

    def __init__(self, text):
        self.id = hashlib.sha256(text.encode()).hexdigest()[:8]
        self._secret = bytes.fromhex(text)

    def _derived(self, purpose):
        """Derive 32 bytes by HKDF with SHA-256 (RFC 5869), without a salt."""
        extracted = hmac.digest(bytes(32), self._secret, "sha256")
        return hmac.digest(extracted, b"remote-mlflow backup " + purpose.encode() + b"\1", "sha256")

    def signed(self, purpose, content):
        """Return an object with the key's id and a signature over all that it says."""
        content = content | {"key": self.id}
        return content | {"signature": self._signature(purpose, content)}

    def vouches(self, purpose, content):
        """Tell whether this key signed an object that names a signature; raises Odd."""
        return hmac.compare_digest(self._signature(purpose, content), content["signature"])

    def _signature(self, purpose, content):
        return hmac.new(self._derived(purpose), spelled(content), "sha256").hexdigest()

    def sealed(self, body, id):
        """Encrypt what a set holds, for the set of this id alone."""
        nonce = os.urandom(NONCE)
        return nonce + self._cipher().encrypt(nonce, body, id.encode())

    def opened(self, body, id):
        """Decrypt what `sealed` returned; raises Odd where it is not that set's, or was changed."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher().decrypt(body[:NONCE], body[NONCE:], id.encode())
        except (InvalidTag, ValueError):
            raise shapes.Odd("was not encrypted for this backup by the key that it names") from None

    def _cipher(self):
        # Not at the top: only those that make or restore a set need it.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._derived(CONFIGURATION))


def spelled(content):
    """Spell an object, all but its signature, in the one way that is signed; raises Odd."""
    told = {name: value for name, value in content.items() if name != "signature"}
    try:
        return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        raise shapes.Odd("says nothing") from None


def digest(content):
    """Return the SHA-256 of all that an object says."""
    return hashlib.sha256(spelled(content)).hexdigest()


def own():
    """Return the key of this server, or None where it has none yet."""
    path = os.environ.get(FILE)
    if not path:
        return None
    with open(path) as stream:
        return named(stream.read(100).strip())


def named(text):
    """Return a key by its text; None where that is none."""
    return Key(text) if KEY.fullmatch(text) else None
