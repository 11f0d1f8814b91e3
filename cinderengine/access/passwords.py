# SPDX-License-Identifier: GPL-2.0-or-later
"""Passwords as they are kept: scrypt (RFC 7914), with its parameters and its salt beside the hash.

Each takes some tenths of a second of a processor and 16 MiB: call them in a thread.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from cinderengine.model.secret import Secret

N, R, P = 2**14, 8, 5
SALT_BYTES, HASH_BYTES = 16, 32
# Of others' parameters: no more memory and time than this.
_MOST_MEMORY_BYTES = 128 * 2**20


def hashed(password: Secret) -> str:
    """What is kept of a password: scrypt$N$r$p$salt$hash, the last two in base 64."""
    salt = os.urandom(SALT_BYTES)
    parts = (salt, _scrypt(password, salt, N, R, P))
    return "$".join(["scrypt", str(N), str(R), str(P), *(map(_text, parts))])


def matches(password: Secret, kept: str) -> bool:
    """Whether it is the password of which that was kept; False for what cannot be read."""
    try:
        kind, n, r, p, salt, expected = kept.split("$")
        if kind != "scrypt":
            return False
        found = _scrypt(password, base64.b64decode(salt), int(n), int(r), int(p))
        return hmac.compare_digest(found, base64.b64decode(expected))
    except ValueError:
        return False


def is_current(kept: str) -> bool:
    """Whether it was kept with the parameters of now."""
    return kept.startswith(f"scrypt${N}${R}${P}$")


def _scrypt(password: Secret, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password.reveal().encode(),
        salt=salt,
        n=n,
        r=r,
        p=p,
        maxmem=_MOST_MEMORY_BYTES,
        dklen=HASH_BYTES,
    )


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
