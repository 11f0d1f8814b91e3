# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS with mutual authentication: the server's context, and why a client was refused."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from vdsmcinder import revocation
from vdsmcinder.config import CertificatesUnusable, Listen
from vdsmcinder.tls_errors import reason


def server_context(listen: Listen) -> ssl.SSLContext:
    """A context for TLS 1.2 and later that refuses clients without a certificate of our CA.

    Raises CertificatesUnusable naming the option and the file that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    for name in ("certificate", "key", "ca"):
        _check_readable(name, getattr(listen, name))
    try:
        context.load_verify_locations(listen.ca)
    except ssl.SSLError as e:
        raise CertificatesUnusable(
            f"listen.ca: {listen.ca} holds no usable CA certificate ({reason(e)}); set it to the "
            "PEM file of the CA that signs clients' certificates"
        ) from e
    if listen.hosts_ca:
        _load_hosts_ca(context, listen.hosts_ca)
    if listen.crl:
        _check_readable("crl", listen.crl)
        revocation.refuse_revoked(context, listen.crl)
    try:
        # An empty password makes an encrypted key an error; the default asks on the terminal.
        context.load_cert_chain(listen.certificate, listen.key, password="")
    except ssl.SSLError as e:
        raise CertificatesUnusable(
            f"listen.certificate and listen.key: {listen.certificate} and {listen.key} are not a "
            f"certificate and its unencrypted private key ({reason(e)}); set them to PEM files "
            "that belong together"
        ) from e
    return context


def _load_hosts_ca(context: ssl.SSLContext, path: str) -> None:
    _check_readable("hosts_ca", path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as e:
        raise CertificatesUnusable(
            f"listen.hosts_ca: {path} holds no usable CA certificate ({reason(e)}); set it to the "
            "PEM file of the CA that signs hosts' certificates"
        ) from e


def below(transport: asyncio.Transport) -> asyncio.Transport | None:
    """The TCP transport that a TLS one writes to; the transport itself where there is no TLS.

    None if the connection is lost. asyncio has no other way to end a stream without TLS's own
    close_notify.
    """
    if transport.get_extra_info("ssl_object") is None:
        return transport
    tcp: asyncio.Transport | None = transport._ssl_protocol._transport  # type: ignore[attr-defined]
    return tcp


def unread_bytes(transport: asyncio.Transport, tcp: asyncio.Transport | None) -> int:
    """What was written to a transport and not sent yet; tcp: the one below it, of below().

    asyncio's TLS transport tells of what it holds itself, before Python 3.11 of what is below.
    """
    own = transport.get_write_buffer_size()
    return own if tcp is None or tcp is transport else max(own, tcp.get_write_buffer_size())


def _check_readable(option: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            return
    except OSError as e:
        raise CertificatesUnusable(
            f"listen.{option}: {path} cannot be read: {e.strerror}; create it, or set "
            f"listen.{option} to the PEM file to use"
        ) from e


def refusal(error: OSError) -> str:
    """Why a client was refused, and, where a certificate is at fault, what is needed instead."""
    why = reason(error)
    if isinstance(error, ssl.SSLCertVerificationError) or "not return a certificate" in why:
        return f"{why}; it needs a valid certificate that the CA in listen.ca signed"
    if "alert unknown ca" in why:
        return f"{why}; it needs to trust the CA that signed listen.certificate"
    return why
