# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates and keys as objects: makes a CA, has it sign, and reads what PEM files hold.

What a certificate says follows RFC 5280; keys are of the curve P-256. What cannot be used is
refused by InputRefused, whose words never quote a key.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, Union

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vdsmcinder.client.exit_codes import InputRefused

Key = Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey]
PublicKey = Union[ec.EllipticCurvePublicKey, rsa.RSAPublicKey]
E = TypeVar("E", bound=x509.ExtensionType)

ORGANIZATION = "vdsm-cinder"
# Clocks that are a little behind take a new certificate at once.
BACKDATED = datetime.timedelta(hours=1)
# A host shows its certificate as a client too, to the host that a VM migrates to.
HOST_USES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
CLIENT_USES = (ExtendedKeyUsageOID.CLIENT_AUTH,)

_LONGEST_COMMON_NAME = 64  # RFC 5280, appendix A.1, ub-common-name
_PEM = re.compile(
    rb"-----BEGIN (?P<label>(?:X509 |TRUSTED )?CERTIFICATE)-----.+?-----END (?P=label)-----",
    re.DOTALL,
)
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True)
class Wish:
    """What a certificate is to say. alternatives: names and addresses of a host; uses: of TLS."""

    subject: x509.Name
    alternatives: x509.SubjectAlternativeName | None
    uses: x509.ExtendedKeyUsage

    @classmethod
    def of_host(cls, names: Sequence[str]) -> Wish:
        """For a host of these names and addresses, the first of which is its common name.

        Raises InputRefused for what is neither a name nor an address.
        """
        # First, because what is refused as a common name is so in cryptography's words.
        checked = alternatives(names)
        return cls(_subject(names[0]), checked, x509.ExtendedKeyUsage(HOST_USES))

    @classmethod
    def of_client(cls, name: str) -> Wish:
        """For a client that is called so. Raises InputRefused for a name that cannot be one."""
        if not (name.isprintable() and 0 < len(name) <= _LONGEST_COMMON_NAME):
            raise InputRefused(
                f"{name!r} cannot be a client's name; give up to {_LONGEST_COMMON_NAME} "
                "printable characters"
            )
        return cls(_subject(name), None, x509.ExtendedKeyUsage(CLIENT_USES))

    @classmethod
    def of_service(cls, names: Sequence[str], unit: str) -> Wish:
        """For one program of a host, as of_host; unit: the program, which its OU says."""
        checked = alternatives(names)
        return cls(_subject(names[0], unit), checked, x509.ExtendedKeyUsage(HOST_USES))

    @classmethod
    def like(cls, old: x509.Certificate) -> Wish:
        """For what another certificate is for."""
        names = _extension(old, x509.SubjectAlternativeName)
        uses = _extension(old, x509.ExtendedKeyUsage)
        return cls(old.subject, names, uses or x509.ExtendedKeyUsage(HOST_USES))


@dataclass(frozen=True)
class Authority:
    """A CA that can sign: its certificate and its key."""

    certificate: x509.Certificate
    key: Key

    @classmethod
    def made(cls, name: str, days: int, what: str = "CA") -> Authority:
        """A new one. days: how long its certificate is valid. what: follows the name in its own."""
        key = new_key()
        short = name[: _LONGEST_COMMON_NAME - len(what) - 1]
        return cls(_self_signed(_subject(f"{short} {what}"), key, days), key)

    def renewed(self, days: int) -> Authority:
        """The same with a later end: what it has signed stays valid."""
        return Authority(_self_signed(self.certificate.subject, self.key, days), self.key)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate is of this CA."""
        signer, mine = signer_of(certificate), key_identifier(self.certificate)
        is_ours = certificate.issuer == self.certificate.subject
        return is_ours and signer is not None and signer == mine

    def sign(self, wish: Wish, public: PublicKey, days: float) -> x509.Certificate:
        """A certificate for a public key, valid for days, but never for longer than the CA is."""
        now = _now()
        until = min(now + datetime.timedelta(days=days), ends(self.certificate))
        mine = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(mine)
        builder = (
            _begun(wish.subject, self.certificate.subject, now, until)
            .public_key(public)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(wish.uses, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(identifier, critical=False)
        )
        if wish.alternatives is not None:
            builder = builder.add_extension(wish.alternatives, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def new_key() -> Key:
    """A private key that nobody has yet."""
    return ec.generate_private_key(ec.SECP256R1())


def alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    """Names and addresses, each as what it is. Raises InputRefused for what is neither."""
    return x509.SubjectAlternativeName([_alternative(name) for name in dict.fromkeys(names)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        pass
    labels = name.rstrip(".").split(".")
    if len(name) <= 253 and all(_LABEL.fullmatch(label) for label in labels):
        return x509.DNSName(name.rstrip("."))
    raise InputRefused(
        f"{name!r} is neither a host name nor an IP address; give each by a --name of its own, "
        "names with other letters than ASCII as IDNA writes them (xn--...)"
    )


def certificates_of(pem: bytes, where: str) -> list[x509.Certificate]:
    """The certificates of a PEM file, in its order. Raises InputRefused if there is none."""
    try:
        # Not load_pem_x509_certificates(), which EL 9's version lacks.
        found = [x509.load_pem_x509_certificate(block) for block in _blocks(pem)]
    except ValueError:
        found = []
    if not found:
        raise InputRefused(f"{where} holds no certificate that can be read; give a PEM file")
    return found


def _blocks(pem: bytes) -> list[bytes]:
    return [block[0] for block in _PEM.finditer(pem)]


def key_of(pem: bytes, where: str) -> Key:
    """The private key of a PEM file. Raises InputRefused, which never quotes it."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise InputRefused(f"{where} is encrypted, which is not supported; decrypt it") from None
    except ValueError:
        raise InputRefused(f"{where} holds no private key that can be read; restore it") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
        raise InputRefused(f"{where} is a key of a kind that is not supported; use EC or RSA")
    return key


def belong(certificate: x509.Certificate, key: Key) -> bool:
    """Whether a certificate is of that key."""
    return encoded(certificate.public_key()) == encoded(key.public_key())


def public_key(certificate: x509.Certificate, where: str) -> PublicKey:
    """The key that a certificate is of. Raises InputRefused for a kind that is not supported."""
    public = certificate.public_key()
    if not isinstance(public, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise InputRefused(f"{where} is of a key that is not supported; use EC or RSA")
    return public


def signer_of(certificate: x509.Certificate) -> bytes | None:
    """The identifier of the key that signed it, if it says so."""
    found = _extension(certificate, x509.AuthorityKeyIdentifier)
    return None if found is None else found.key_identifier


def key_identifier(certificate: x509.Certificate) -> bytes | None:
    """The identifier of its own key, if it says so."""
    found = _extension(certificate, x509.SubjectKeyIdentifier)
    return None if found is None else found.digest


def encoded(public: Any) -> bytes:
    """A public key as bytes, to compare it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    encoded: bytes = public.public_bytes(serialization.Encoding.DER, form)
    return encoded


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """The certificate as its file holds it."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: Key) -> bytes:
    """The private key as its file holds it, not encrypted: a daemon has nobody to ask."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def ends(certificate: x509.Certificate) -> datetime.datetime:
    """When it ceases to be valid."""
    return _moment(certificate, "not_valid_after")


def begins(certificate: x509.Certificate) -> datetime.datetime:
    """When it begins to be valid."""
    return _moment(certificate, "not_valid_before")


def _moment(certificate: x509.Certificate, name: str) -> datetime.datetime:
    # From version 42 on the plain attribute is deprecated; EL 9's lacks the other one.
    if hasattr(certificate, f"{name}_utc"):
        aware: datetime.datetime = getattr(certificate, f"{name}_utc")
        return aware
    naive: datetime.datetime = getattr(certificate, name)
    return naive.replace(tzinfo=datetime.timezone.utc)


def names_of(certificate: x509.Certificate) -> list[str]:
    """The names and addresses that it is valid for."""
    names = _extension(certificate, x509.SubjectAlternativeName)
    return [] if names is None else [str(name.value) for name in names]


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _subject(common_name: str, unit: str | None = None) -> x509.Name:
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
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
