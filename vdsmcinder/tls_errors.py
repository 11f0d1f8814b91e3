# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a connection failed, in OpenSSL's or the system's own words, for servers and clients."""

from __future__ import annotations

import ssl


def reason(error: BaseException) -> str:
    """What went wrong, in OpenSSL's words but without its source positions."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, ssl.SSLError) and "PEM lib" in str(error):
        return "no PEM data"  # of what it read no part began as PEM does: no reason is given
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
