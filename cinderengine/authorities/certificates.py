# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates, keys and requests for certificates as objects; an authority signs them.

What a certificate says follows RFC 5280; keys made here are of the curve P-256. What cannot be used
is refused by Invalid, whose words never quote a key.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cinderengine.errors import Invalid

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
E = TypeVar("E", bound=x509.ExtensionType)

# What libvirt's daemons on our hosts let in says so, too.
ORGANIZATION = "vdsm-cinder"
# Clocks that are a little behind take a new certificate at once.
BACKDATED = datetime.timedelta(hours=1)
SMALLEST_RSA_BITS = 2048
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

_LONGEST_COMMON_NAME = 64  # RFC 5280, appendix A.1, ub-common-name
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_SERVER, _CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


class Unit(StrEnum):
    """What a certificate is for, as its OU says; hosts' daemons and libvirt tell them by it."""

    # What a host's daemon shows to engines and operators, and to other hosts that call it.
    LISTENER = "listener"
    # What it shows to other hosts when it calls them.
    DAEMON = "vdsm-cinder"
    LIBVIRT = "libvirt"
    QEMU = "qemu"
    # What the engine shows to hosts, and to those who call it.
    ENGINE = "engine"
    WEB = "web"


# A listener's and the engine's own port show theirs to clients alone: it makes nobody a client.
USES = {
    Unit.LISTENER: (_SERVER,),
    Unit.DAEMON: (_SERVER, _CLIENT),
    Unit.LIBVIRT: (_SERVER, _CLIENT),
    Unit.QEMU: (_SERVER, _CLIENT),
    Unit.ENGINE: (_CLIENT,),
    Unit.WEB: (_SERVER,),
}


@dataclass(frozen=True)
class Wish:
    """What a certificate is to say. names: host names and addresses, the first its common name."""

    unit: Unit
    names: Sequence[str]

    @property
    def subject(self) -> x509.Name:
        """O, OU and CN."""
        return _subject(self.names[0], self.unit)


@dataclass(frozen=True)
class Authority:
    """One that can sign: its certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @classmethod
    def made(cls, name: str, days: int) -> Authority:
        """A new one of this name. days: how long its certificate is valid."""
        return cls.of_key(name, new_key(), days)

    @classmethod
    def of_key(cls, name: str, key: Key, days: int) -> Authority:
        """One of this name whose key there is already."""
        return cls(_self_signed(_subject(name), key, days), key)

    def renewed(self, days: int) -> Authority:
        """The same with a later end: what it has signed stays valid."""
        return Authority(_self_signed(self.certificate.subject, self.key, days), self.key)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate is of this authority."""
        if certificate.issuer != self.certificate.subject:
            return False
        ours = _extension(self.certificate, x509.SubjectKeyIdentifier)
        signer = _extension(certificate, x509.AuthorityKeyIdentifier)
        return ours is not None and signer is not None and signer.key_identifier == ours.digest

    def sign(self, wish: Wish, public: PublicKey, days: int) -> x509.Certificate:
        """A certificate for a public key, valid for days, but never for longer than ours is."""
        now = _now()
        until = min(now + datetime.timedelta(days=days), ends(self.certificate))
        mine = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(mine)
        return (
            _begun(wish.subject, self.certificate.subject, now, until)
            .public_key(public)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(USES[wish.unit]), critical=False)
            .add_extension(alternatives(wish.names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(identifier, critical=False)
            .sign(self.key, hashes.SHA256())
        )


def requested_key(pem: bytes, who: str) -> PublicKey:
    """The public key of a request for a certificate (a CSR, PEM), whose sender has the other half.

    All else that it says is left out: what is signed is what the engine knows. who: whose it is.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
        public = request.public_key()
        is_whole = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise Invalid(
            f"what {who} sent is no certificate request that can be read; send one as PEM"
        ) from None
    if not is_whole:
        raise Invalid(
            f"the certificate request of {who} is not signed by its own key; make it anew"
        )
    return _strong(public, f"the certificate request of {who}")


def _strong(public: Any, what: str) -> PublicKey:
    """A key that is good enough. Raises Invalid."""
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= SMALLEST_RSA_BITS:
        return public
    if isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, CURVES):
        return public
    raise Invalid(
        f"{what} is of a key that is too weak or not supported; use EC P-256, P-384 or P-521, or "
        f"RSA of {SMALLEST_RSA_BITS} bits or more"
    )


def new_key() -> Key:
    """A private key that nobody has yet."""
    return ec.generate_private_key(ec.SECP256R1())


def alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    """Names and addresses, each as what it is. Raises Invalid for what is neither."""
    return x509.SubjectAlternativeName([_alternative(name) for name in dict.fromkeys(names)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    plain = name.rstrip(".")
    if len(plain) <= 253 and all(_LABEL.fullmatch(label) for label in plain.split(".")):
        return x509.DNSName(plain)
    raise Invalid(
        f"{name!r} is neither a host name nor an IP address; write names with other letters than "
        "ASCII as IDNA does (xn--...)"
    )


def certificate_of(pem: bytes, where: str) -> x509.Certificate:
    """The first certificate of a PEM file. Raises Invalid."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise Invalid(f"{where} holds no certificate that can be read; restore it") from None


def key_of(pem: bytes, where: str) -> Key:
    """The private key of a PEM file. Raises Invalid."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise Invalid(f"{where} is encrypted, which is not supported; decrypt it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid(f"{where} holds no private key that can be read; restore it") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise Invalid(f"{where} is a key of a kind that is not supported; use EC or RSA")
    return key


def belong(certificate: x509.Certificate, key: Key) -> bool:
    """Whether a certificate is of that key."""
    return _encoded(certificate.public_key()) == _encoded(key.public_key())


def _encoded(public: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = public.public_bytes(serialization.Encoding.DER, form)
    return encoded


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """The certificate as its file holds it."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: Key) -> bytes:
    """The private key as its file holds it, not encrypted: a service has nobody to ask."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of it, in lower-case hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def ends(certificate: x509.Certificate) -> datetime.datetime:
    """When it ceases to be valid."""
    # From version 42 on the plain attribute is deprecated; Debian 12's lacks the other one.
    if hasattr(certificate, "not_valid_after_utc"):
        aware: datetime.datetime = certificate.not_valid_after_utc
        return aware
    return certificate.not_valid_after.replace(tzinfo=datetime.UTC)


def ends_ms(certificate: x509.Certificate) -> int:
    """The same in milliseconds since the epoch."""
    return int(ends(certificate).timestamp() * 1000)


def days_left(certificate: x509.Certificate) -> int:
    """Whole days until it ceases to be valid; less than 0 where that is past."""
    return (ends(certificate) - _now()).days


def names_of(certificate: x509.Certificate) -> list[str]:
    """The names and addresses that it is valid for."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    return [] if names is None else [str(name.value) for name in names]


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _subject(common_name: str, unit: Unit | None = None) -> x509.Name:
    # A host's name may be longer; its alternative names hold all of it.
    fits = len(common_name) <= _LONGEST_COMMON_NAME
    short = common_name if fits else common_name.partition(".")[0]
    units = [] if unit is None else [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)]
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            *units,
            x509.NameAttribute(NameOID.COMMON_NAME, short[:_LONGEST_COMMON_NAME]),
        ]
    )


def _self_signed(subject: x509.Name, key: Key, days: int) -> x509.Certificate:
    now = _now()
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _begun(subject, subject, now, now + datetime.timedelta(days=days))
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def _begun(
    subject: x509.Name, issuer: x509.Name, now: datetime.datetime, until: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        # What no key of ours is used for; but without it libvirt 9.0 does not take a certificate.
        key_encipherment=not signs_certificates,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)
