# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists of revoked certificates (CRLs) in the contexts of servers and clients."""

from __future__ import annotations

import ssl

from vdsmcinder.config import CertificatesUnusable
from vdsmcinder.tls_errors import reason


def refuse_revoked(context: ssl.SSLContext, path: str) -> None:
    """Have whoever shows a revoked certificate refused.

    path: option listen.crl, a PEM file with the list of each CA, also of those between. Raises
    CertificatesUnusable for another file, OSError for one that cannot be read.
    """
    before = context.cert_store_stats()
    why = ""
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as e:
        why = f" ({reason(e)})"
    after = context.cert_store_stats()
    # OpenSSL would trust a certificate that stands in it.
    if after["crl"] == 0 or after["x509"] != before["x509"]:
        raise CertificatesUnusable(
            f"listen.crl: {path} holds no list of revoked certificates, or more than that{why}; "
            "set it to a PEM file with the CRL of each CA that signs certificates"
        )
    # A CA between may be revoked as well as a client.
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
