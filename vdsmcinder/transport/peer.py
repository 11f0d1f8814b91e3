# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is at the other end of a connection.

Address, certificate or local user, and the names that roles are given to.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from typing import Any, Callable, Protocol

from vdsmcinder.rpc import access
from vdsmcinder.rpc.dispatch import Caller
from vdsmcinder.transport import identity

# RFC 4514, section 3: the short names of the attribute types that certificates carry.
_SHORT_NAMES: Mapping[str, str] = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class Authorities(Protocol):
    """Whose certificates are whose, by the canonical name of who signed them."""

    def is_host(self, issuer: str) -> bool:
        """Whether they are hosts'."""

    def knows(self, issuer: str) -> bool:
        """Whether it is known whose they are."""


# Who is at the other end of a connection, by its transport and protocol.
Known = Callable[[asyncio.BaseTransport, str], Caller]
# The OU of the hosts' certificates that are for daemons, and not for libvirt or QEMU.
DAEMON_UNIT = "vdsm-cinder"


def caller(
    transport: asyncio.BaseTransport, protocol: str, authorities: Authorities | None = None
) -> Caller:
    """Who is at the other end of a connection that speaks protocol ('stomp' or 'http').

    Over TCP: address and port, and the certificate's subject and names. Over the unix socket: the
    process and the user it runs as. Raises identity.Unreadable for a certificate without readable
    names.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_UNIX:
        pid, uid, _ = _UCRED.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        )
        names = (access.name(access.UID, str(uid)),)
        return Caller(f"pid {pid}", f"uid {uid}", protocol, names)
    where, tls = transport.get_extra_info("peername"), transport.get_extra_info("ssl_object")
    der = None if tls is None else tls.getpeercert(binary_form=True)
    if der is None:
        return Caller(address(where), "", protocol)
    certificate = transport.get_extra_info("peercert")
    known = identity.of_certificate(der)
    issuer = known.number[0]
    is_host = authorities is not None and authorities.is_host(issuer)
    trouble = ""
    if authorities is not None and not authorities.knows(issuer):
        trouble = (
            "its certificate was signed by a CA that is neither in listen.ca nor in "
            "listen.hosts_ca; add that one to the file where it belongs"
        )
    elif is_host and DAEMON_UNIT not in known.units:
        trouble = "its certificate is a host's, but not one for the daemon; give it its own"
    return Caller(
        is_host=is_host,
        trouble=trouble,
        address=address(where),
        subject=subject(certificate),
        transport=protocol,
        names=(*known.names, *alternative_names(certificate)),
        certificate=known.number,
        expires_at=known.expires_at,
    )


def alternative_names(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """Those that roles are given to, of a certificate as ssl.getpeercert() returns it."""
    alternatives = certificate.get("subjectAltName", ())
    return tuple(
        access.name(kind, value) for kind, value in alternatives if kind in access.ALTERNATIVE_NAMES
    )


def subject(certificate: Mapping[str, Any] | None) -> str:
    """The distinguished name of a certificate as ssl.getpeercert() returns it, per RFC 4514.

    The most specific part comes first: 'CN=engine.example.com,O=Example'. Empty without one.
    """
    if not certificate:
        return ""
    parts = reversed(certificate.get("subject", ()))
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(name, name)}={_escape(value)}" for name, value in part)
        for part in parts
    )


def _escape(value: str) -> str:
    """RFC 4514, section 2.4: also a blank at either end, and a number sign at the beginning."""
    last = len(value) - 1
    return "".join(
        f"\\{c}" if c in ',+"\\<>;' or (c == " " and i in (0, last)) or (c == "#" and i == 0) else c
        for i, c in enumerate(value)
    )


def address(name: Any) -> str:
    """A socket's name for log lines: '192.0.2.7:54321', '[2001:db8::7]:54321'."""
    if not isinstance(name, tuple):
        return "unknown address" if not name else str(name)
    host = str(name[0])
    # An IPv4 client of a listener on '::'.
    host = host[7:] if host.startswith("::ffff:") and "." in host else host
    return f"[{host}]:{name[1]}" if ":" in host else f"{host}:{name[1]}"
