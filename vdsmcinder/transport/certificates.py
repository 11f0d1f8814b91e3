# SPDX-License-Identifier: GPL-2.0-or-later
"""The certificates in force: read at start, again when their files change, and how long they hold.

Each new TLS connection takes its context from here, so that those which stand are not touched.
CertificatesUnusable names the option and the file that is of no use.
"""

from __future__ import annotations

import asyncio
import base64
import calendar
import enum
import logging
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from vdsmcinder.config import CertificatesUnusable, Listen
from vdsmcinder.transport import identity, peer, tls

log = logging.getLogger(__name__)

# How often the files are looked at, in seconds. A renewal writes several files, so they are read
# when nothing has changed between two looks.
POLL_S = 2.0

# What tells that a file is another one: inode, size, time of its last change.
_Stamp = Optional[tuple[int, int, int]]
# The three labels that OpenSSL takes for a certificate.
_PEM_BLOCK = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END ", re.DOTALL)
_CONTEXT_0, _UTC_TIME = 0xA0, 0x17


class Owner(enum.Enum):
    """Whose a certificate is, as metrics and events name it."""

    HOST = "host"
    CA = "ca"
    HOSTS_CA = "hosts_ca"


@dataclass(frozen=True)
class Held:
    """A certificate in force. expires_at: when it ceases to be valid, seconds since the epoch.

    subject: of a CA, of which there may be several; empty for the host's.
    """

    owner: Owner
    file: str
    subject: str
    expires_at: float

    def __str__(self) -> str:
        if self.owner is Owner.HOST:
            return f"the host's certificate ({self.file})"
        return f"the certificate of the CA {self.subject} ({self.file})"


class Certificates:
    """The TLS context for connections from now on.

    held: the certificates that it is made of. authorities: whose certificates are whose. revoked:
    those that listen.crl lists. trouble: why the files as they are now are not in force; empty
    while they are.
    """

    def __init__(self, listen: Listen) -> None:
        """Read the files. Raises CertificatesUnusable, with the option and the file that it is."""
        self._listen = listen
        self._reading = asyncio.Lock()
        self.trouble = ""
        self._stamps = _look(listen)
        self._use(_read(listen))

    async def reload(self) -> None:
        """Read the files again; if they are of no use, what is in force stays so, and one line
        in the log says why.
        """
        async with self._reading:
            # In threads, here and below: the files may be on a disk that is slow, or gone.
            self._stamps = await asyncio.to_thread(_look, self._listen)
            try:
                self._use(await asyncio.to_thread(_read, self._listen))
            except CertificatesUnusable as e:
                self.trouble = str(e)
                log.error("the certificates read before stay in force: %s", e)
                return
        self.trouble = ""
        ends = self.expiry(Owner.HOST)
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(ends))
        log.info("the certificates were read again; the host's is valid until %s", until)

    def _use(self, files: _Files) -> None:
        self.context, self.held = files.context, files.held
        self.authorities, self.revoked = files.authorities, files.revoked

    async def watch(self) -> None:
        """Reload when the files have changed, for ever."""
        seen = self._stamps
        while True:
            await asyncio.sleep(POLL_S)
            before, seen = seen, await asyncio.to_thread(_look, self._listen)
            if seen == before and seen != self._stamps:
                await self.reload()

    def expiry(self, owner: Owner) -> float:
        """When the first certificate of that owner ceases to be valid, seconds since the epoch."""
        return min(held.expires_at for held in self.held if held.owner is owner)


@dataclass(frozen=True)
class Authorities:
    """The subjects of the CAs of clients and of hosts; of the latter none where all are clients."""

    clients: frozenset[str]
    hosts: frozenset[str]

    def is_host(self, issuer: str) -> bool:
        """Whether that CA is the hosts'."""
        return issuer in self.hosts

    def knows(self, issuer: str) -> bool:
        """Whether it is known whose CA that is; with one CA for all it need not be."""
        return not self.hosts or issuer in self.clients | self.hosts


@dataclass(frozen=True)
class _Files:
    """What the files say."""

    context: ssl.SSLContext
    held: tuple[Held, ...]
    authorities: Authorities
    revoked: frozenset[identity.Number]


def _read(listen: Listen) -> _Files:
    """What the files say. Raises CertificatesUnusable."""
    try:
        context = tls.server_context(listen)
        ends = not_after(Path(listen.certificate).read_bytes())
        stores = [_store(path) for path in (listen.ca, listen.hosts_ca) if path]
        authorities, revoked = _authorities(listen, *stores), _revoked(listen)
    except OSError as e:
        raise CertificatesUnusable(
            "listen.certificate, listen.key, listen.ca, listen.hosts_ca and listen.crl: a file of "
            f"theirs was replaced while it was read ({e}); they are read again"
        ) from e
    own = Held(Owner.HOST, listen.certificate, "", ends)
    of = zip((Owner.CA, Owner.HOSTS_CA), (listen.ca, listen.hosts_ca), stores)
    cas = (_of_ca(ca, owner, file) for owner, file, store in of for ca in store.get_ca_certs())
    held = (own, *cas)
    return _Files(context, held, authorities, revoked)


def _store(path: str) -> ssl.SSLContext:
    """The CAs of one file: all that OpenSSL takes from it, whatever their labels are."""
    store = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    store.load_verify_locations(path)
    return store


def _authorities(
    listen: Listen, of_clients: ssl.SSLContext, of_hosts: ssl.SSLContext | None = None
) -> Authorities:
    if of_hosts is None:
        return Authorities(frozenset(), frozenset())
    try:
        clients = identity.subjects(of_clients.get_ca_certs(binary_form=True))
        hosts = identity.subjects(of_hosts.get_ca_certs(binary_form=True))
    except identity.Unreadable as e:
        raise CertificatesUnusable(f"listen.ca and listen.hosts_ca: {e}; have them mended") from e
    if clients & hosts:
        raise CertificatesUnusable(
            f"listen.hosts_ca: {listen.hosts_ca} and {listen.ca} hold a CA of the same name, so "
            "that hosts and clients cannot be told apart; make the hosts one of their own, with "
            "vdsm-cinder pki hosts"
        )
    return Authorities(clients, hosts)


def _revoked(listen: Listen) -> frozenset[identity.Number]:
    if not listen.crl:
        return frozenset()
    try:
        return identity.revoked(Path(listen.crl).read_bytes())
    except identity.Unreadable as e:
        raise CertificatesUnusable(
            f"listen.crl: {listen.crl}: {e}; have its CA make it anew"
        ) from e


def _look(listen: Listen) -> tuple[_Stamp, ...]:
    files = (listen.certificate, listen.key, listen.ca, listen.hosts_ca, listen.crl)
    return tuple(_stamp(path) for path in files if path)


def _of_ca(certificate: Mapping[str, Any], owner: Owner, file: str) -> Held:
    ends = ssl.cert_time_to_seconds(certificate["notAfter"])
    return Held(owner, file, peer.subject(certificate), ends)


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def not_after(pem: bytes) -> float:
    """When the first certificate of a PEM file ceases to be valid, in seconds since the epoch.

    The file is one that OpenSSL has taken. RFC 5280, section 4.1, says where the date stands; the
    ssl module tells it of a peer's certificate alone.
    """
    block = _PEM_BLOCK.search(pem)
    assert block is not None, "OpenSSL found a certificate in it"
    _, certificate = next(_elements(base64.b64decode(block[1])))
    _, to_be_signed = next(_elements(certificate))
    # A version number, which the oldest certificates lack, comes before all else.
    fields = [value for tag, value in _elements(to_be_signed) if tag != _CONTEXT_0]
    _serial, _algorithm, _issuer, validity = fields[:4]
    _not_before, (tag, date) = _elements(validity)
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return float(calendar.timegm(time.strptime(date.decode(), form)))


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of the elements that follow one another in DER (X.690, section 8.1)."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        yield tag, der[at : at + length]
        at += length
