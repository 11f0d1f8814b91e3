# SPDX-License-Identifier: GPL-2.0-or-later
"""What a certificate says of its owner: names that roles are given to, its number, its end.

And the numbers of those that a list of revoked ones names. cryptography reads them; it is loaded
for the first that is read, as without TLS nobody needs its memory.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from vdsmcinder.rpc import access, distinguished_names

if TYPE_CHECKING:
    from cryptography import x509

# Issuer, in the form in which names are compared, and serial number.
Number = tuple[str, int]

_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
_COMMON_NAME, _UNIT = "2.5.4.3", "2.5.4.11"


class Unreadable(Exception):
    """A certificate or a list that OpenSSL took cannot be read; the message says why."""


@dataclass(frozen=True)
class Identity:
    """What a certificate says of its owner.

    names: its subject and its common names, as rpc/access.py compares them. number: what names the
    certificate, its issuer first. units: what its subject's OU say. expires_at: seconds since the
    epoch.
    """

    names: tuple[str, ...]
    number: Number
    units: tuple[str, ...]
    expires_at: float


@functools.lru_cache(maxsize=1024)
def of_certificate(der: bytes) -> Identity:
    """Read a certificate. Raises Unreadable: whoever has one that cannot be read has no name."""
    from cryptography import x509  # noqa: PLC0415

    try:
        certificate = x509.load_der_x509_certificate(der)
        attributes = tuple(_attributes(certificate.subject))
        common_names = (value for oid, value in attributes if oid == _COMMON_NAME)
        return Identity(
            names=(
                access.subject(attributes),
                *(access.name(access.COMMON_NAME, value) for value in common_names),
            ),
            number=(_name(certificate.issuer), certificate.serial_number),
            units=tuple(value for oid, value in attributes if oid == _UNIT),
            expires_at=_end(certificate).timestamp(),
        )
    except Exception as e:  # of many kinds, for what is read was made by anyone
        raise Unreadable(f"its certificate cannot be read ({type(e).__name__})") from e


def subjects(certificates: Iterable[bytes]) -> frozenset[str]:
    """The names that certificates (DER) are of, as in Number. Raises Unreadable."""
    from cryptography import x509  # noqa: PLC0415

    try:
        found = map(x509.load_der_x509_certificate, certificates)
        return frozenset(_name(one.subject) for one in found)
    except Exception as e:  # as above
        raise Unreadable(f"a certificate cannot be read ({type(e).__name__})") from e


def revoked(pem: bytes) -> frozenset[Number]:
    """The certificates that the lists in a PEM file revoke. Raises Unreadable."""
    from cryptography import x509  # noqa: PLC0415

    try:
        lists = [x509.load_pem_x509_crl(block) for block in _CRL.findall(pem)]
        return frozenset((_name(one.issuer), entry.serial_number) for one in lists for entry in one)
    except Exception as e:  # as above
        raise Unreadable(f"it holds a list that cannot be read ({type(e).__name__})") from e


def _end(certificate: x509.Certificate) -> datetime:
    # EL 9's cryptography does not have the first, EL 10's warns of the second.
    end: datetime | None = getattr(certificate, "not_valid_after_utc", None)
    return end or certificate.not_valid_after.replace(tzinfo=timezone.utc)


def _name(name: x509.Name) -> str:
    return distinguished_names.canonical(_attributes(name))


def _attributes(name: x509.Name) -> Iterator[tuple[str, str]]:
    for attribute in name:
        # Some are bits and no text.
        value: str | bytes = attribute.value
        text = value if isinstance(value, str) else f"#{value.hex()}"
        yield attribute.oid.dotted_string, text
