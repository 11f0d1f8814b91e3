# SPDX-License-Identifier: GPL-2.0-or-later
"""What an engine's token holds besides its secret: the fingerprint of the engine's authority.

join1. and the base64url of 32 secret bytes and the SHA-256 of the authority's certificate.
"""

from __future__ import annotations

import base64
import binascii

from vdsmcinder.client.exit_codes import UsageError

PREFIX = "join1."
_SECRET_BYTES, _FINGERPRINT_BYTES = 32, 32


def fingerprint(token: str) -> bytes:
    """That of the engine's authority. Raises UsageError, which does not repeat the token."""
    encoded = token[len(PREFIX) :]
    try:
        padded = encoded + "=" * (-len(encoded) % 4)
        held = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        held = b""
    if not token.startswith(PREFIX) or len(held) != _SECRET_BYTES + _FINGERPRINT_BYTES:
        raise UsageError("that is no token of an engine; take the whole line that it gave")
    return held[_SECRET_BYTES:]
