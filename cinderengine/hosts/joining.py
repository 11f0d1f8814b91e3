# SPDX-License-Identifier: GPL-2.0-or-later
"""How a host joins: tokens, and what goes over the wire between it and the engine.

The host posts Request.as_sent() as JSON to PATH and gets Answer.as_sent(). Before that it fetches
the certificate of the clients' authority from CA_PATH, over a connection that it does not trust,
and goes on only if that is the one whose fingerprint its token has: so it knows the engine, and
nobody else is sent the token.

A token is of use to the first host that presents it, and to that one again, until it expires: an
answer that was lost on its way can be had anew with the same keys.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cinderengine.errors import Conflict, Incomplete, Invalid, Unauthenticated
from cinderengine.model.hosts import Host
from cinderengine.model.secret import Secret

PATH = "/ovirt-engine/hosts/join"
CA_PATH = "/ovirt-engine/services/pki-resource?resource=ca-certificate&format=X509-PEM-CA"

LIFE_MS = 24 * 3600 * 1000
# The certificates of a host: what its daemon shows to clients, what it shows to other hosts'
# daemons, and those of libvirt and QEMU.
LISTENER, DAEMON, LIBVIRT, QEMU = UNITS = ("listener", "vdsm-cinder", "libvirt", "qemu")

_PREFIX = "join1."  # no option of a command begins so
_SECRET_BYTES = 32
_FINGERPRINT_BYTES = hashlib.sha256().digest_size
_MOST_NAMES = 32
_LONGEST_NAME = 253
_LONGEST_REQUEST = 16384

# Signs for a host: its names, the one that it is called by first, and requests for certificates
# (PEM) by unit; gives the certificates (PEM). Raises EngineError.
Sign = Callable[[Sequence[str], Mapping[str, bytes]], Mapping[str, str]]


@dataclass(frozen=True)
class Token:
    """What a host may join with. text: for the operator alone. digest: what is kept of it."""

    text: Secret
    digest: str
    expires_ms: int

    @classmethod
    def made(cls, fingerprint: str, now_ms: int, life_ms: int = LIFE_MS) -> Token:
        """A new one. fingerprint: of the clients' authority, hexadecimal SHA-256."""
        held = secrets.token_bytes(_SECRET_BYTES) + bytes.fromhex(fingerprint)
        text = _PREFIX + base64.urlsafe_b64encode(held).decode("ascii").rstrip("=")
        return cls(Secret(text), digest(text), now_ms + life_ms)

    def given_to(self, host: Host) -> Host:
        """The host as it is to be kept: it may join with this token, and with no other."""
        return dataclasses.replace(
            host, token_digest=self.digest, token_expires_ms=self.expires_ms, fingerprint=""
        )


def digest(text: str) -> str:
    """What is kept of a token's text, from which nobody can guess its 256 random bits."""
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint_in(text: str) -> str:
    """The fingerprint that a token has. Raises Invalid for what is none."""
    try:
        padded = text.removeprefix(_PREFIX) + "=" * (-len(text.removeprefix(_PREFIX)) % 4)
        held = base64.b64decode(padded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        held = b""
    if not text.startswith(_PREFIX) or len(held) != _SECRET_BYTES + _FINGERPRINT_BYTES:
        raise Invalid("that is no token of an engine; take the whole line that it gave")
    return held[_SECRET_BYTES:].hex()


def line(url: str, token: Token) -> str:
    """What is to be run on the host."""
    return f"vdsm-cinder join {url} {token.text.reveal()}"


@dataclass(frozen=True)
class Request:
    """What a host sends. names: its names and addresses as it knows them, the best one first.

    port: where its daemon listens. requests: for certificates, PEM, by unit.
    """

    token: Secret
    names: Sequence[str]
    port: int
    hardware_id: str
    requests: Mapping[str, bytes]

    @classmethod
    def read(cls, raw: Any) -> Request:
        """From JSON. Raises Incomplete, Invalid."""
        if not isinstance(raw, Mapping):
            raise Invalid("a host that joins sends a JSON object; use vdsm-cinder join")
        missing = [name for name in ("token", "names", "requests") if not raw.get(name)]
        if missing:
            raise Incomplete(
                f"a host that joins has to send {', '.join(missing)}; use vdsm-cinder join"
            )
        token, names, port = raw["token"], raw["names"], raw.get("port", 54321)
        requests, hardware_id = raw["requests"], raw.get("hardware_id", "")
        _expect(isinstance(token, str), "token", "a text")
        _expect(_are_names(names), "names", f"a list of at most {_MOST_NAMES} names")
        _expect(type(port) is int and 0 < port < 65536, "port", "a number from 1 to 65535")
        _expect(isinstance(hardware_id, str) and len(hardware_id) <= 64, "hardware_id", "a UUID")
        _expect(_are_requests(requests), "requests", f"PEM for each of {', '.join(UNITS)}")
        by_unit = {unit: requests[unit].encode() for unit in UNITS}
        return cls(Secret(token), tuple(names), port, hardware_id, by_unit)

    def as_sent(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "token": self.token.reveal(),
            "names": list(self.names),
            "port": self.port,
            "hardware_id": self.hardware_id,
            "requests": {unit: pem.decode() for unit, pem in self.requests.items()},
        }


@dataclass(frozen=True)
class Trust:
    """Whom a host is to let in. engine: the subject of the engine's certificate (RFC 4514).

    clients_pem, hosts_pem: the certificates of the two authorities.
    """

    engine: str
    clients_pem: str
    hosts_pem: str


@dataclass(frozen=True)
class Answer:
    """What a host gets. certificates: PEM, by unit."""

    host: Host
    trust: Trust
    certificates: Mapping[str, str]

    def as_sent(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "host": {"id": self.host.id, "name": self.host.name, "address": self.host.address},
            "engine": self.trust.engine,
            "clients_ca": self.trust.clients_pem,
            "hosts_ca": self.trust.hosts_pem,
            "certificates": dict(self.certificates),
        }


def join(
    request: Request,
    hosts: Sequence[Host],
    trust: Trust,
    sign: Sign,
    *,
    now_ms: int,
    reserved: Sequence[str] = (),
) -> Answer:
    """Have a host join; the answer's host is what is to be kept of it.

    hosts: all that there are. reserved: names that no host may have, such as the engine's own.
    Raises Unauthenticated for a token that is of no use, Conflict for one that another host used.
    """
    host = _of_token(request.token, hosts, now_ms)
    key = _key_of(request.requests[LISTENER])
    if host.fingerprint and host.fingerprint != key:
        raise Conflict(
            f"the token of host {host.name} was used by another machine already, or by this one "
            "before it lost its keys; make a new one with cinder-engine host token"
        )
    names = _names(host, request, hosts, reserved)
    certificates = sign(names, request.requests)
    joined = dataclasses.replace(
        host,
        address=names[0],
        port=request.port,
        hardware_id=request.hardware_id or host.hardware_id,
        fingerprint=key,
    )
    return Answer(joined, trust, certificates)


def _of_token(token: Secret, hosts: Sequence[Host], now_ms: int) -> Host:
    wanted = digest(token.reveal())
    for host in hosts:
        if host.token_digest and hmac.compare_digest(host.token_digest, wanted):
            if host.token_expires_ms <= now_ms:
                break
            return host
    raise Unauthenticated(
        "the token is not good, or is not good any more; make a new one with cinder-engine host "
        "token, or by adding the host anew"
    )


def _names(
    host: Host, request: Request, hosts: Sequence[Host], reserved: Sequence[str]
) -> list[str]:
    """What its certificates are to name: what it was added as, and what nobody else has."""
    others = {other.address.lower() for other in hosts if other.id != host.id}
    others |= {name.lower() for name in reserved}
    own = [name for name in dict.fromkeys(request.names) if name.lower() not in others]
    names = list(dict.fromkeys([host.address, *own] if host.address else own))
    if not names:
        raise Invalid(
            f"host {host.name} has no name or address that is not another's; add it with its "
            "address"
        )
    return names


def _key_of(pem: bytes) -> str:
    """SHA-256 of the public key that a certificate is asked for."""
    try:
        public = x509.load_pem_x509_csr(pem).public_key()
        encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid(
            "a host that joins sent a certificate request that cannot be read; use vdsm-cinder join"
        ) from None
    return hashlib.sha256(encoded).hexdigest()


def _are_names(names: Any) -> bool:
    return (
        isinstance(names, list)
        and len(names) <= _MOST_NAMES
        and all(isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME for name in names)
    )


def _are_requests(requests: Any) -> bool:
    return isinstance(requests, Mapping) and all(
        isinstance(requests.get(unit), str) and len(requests[unit]) <= _LONGEST_REQUEST
        for unit in UNITS
    )


def _expect(fits: bool, name: str, expected: str) -> None:
    if not fits:
        raise Invalid(f"{name} of a host that joins is not {expected}; use vdsm-cinder join")
