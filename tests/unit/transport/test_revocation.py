# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists of revoked certificates where a CA stands between the one that is trusted and clients."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vdsmcinder.revocation import refuse_revoked

NOW = datetime.datetime.utcnow()
DAY = datetime.timedelta(days=1)
PEM = serialization.Encoding.PEM


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@dataclass
class Owner:
    """A name, its key, and its certificate by whoever signed it."""

    common: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def signed(cls, common: str, by: Owner | None, *, is_ca: bool = False) -> Owner:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateBuilder(
            issuer_name=name(by.common if by else common),
            subject_name=name(common),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=NOW - DAY,
            not_valid_after=NOW + DAY,
        ).add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        return cls(common, key, builder.sign(by.key if by else key, hashes.SHA256()))

    def revokes(self, *others: Owner) -> bytes:
        """Its list."""
        builder = x509.CertificateRevocationListBuilder(name(self.common), NOW, NOW + DAY)
        for other in others:
            number = other.certificate.serial_number
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder(number, NOW).build()
            )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(PEM)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(PEM)

    @property
    def key_pem(self) -> bytes:
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return self.key.private_bytes(PEM, form, plain)


ROOT = Owner.signed("root", None, is_ca=True)
BETWEEN = Owner.signed("between", ROOT, is_ca=True)
CLIENT, SERVER = Owner.signed("client", BETWEEN), Owner.signed("server", ROOT)


def shake_hands(directory: Path, lists: bytes) -> None:
    """A client of the CA between comes to a server that trusts the root. Raises ssl.SSLError."""
    for file, content in {
        "ca": ROOT.pem,
        "crl": lists,
        "server": SERVER.pem + SERVER.key_pem,
        "client": CLIENT.pem + BETWEEN.pem + CLIENT.key_pem,
    }.items():
        (directory / file).write_bytes(content)
    host = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(directory / "ca"))
    host.load_cert_chain(directory / "server")
    host.verify_mode = ssl.CERT_REQUIRED
    refuse_revoked(host, str(directory / "crl"))
    own = ssl.create_default_context(cafile=str(directory / "ca"))
    own.check_hostname = False
    own.load_cert_chain(directory / "client")
    to_host, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (own.wrap_bio(to_client, to_host), host.wrap_bio(to_host, to_client, server_side=True))
    left = set(ends)
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            left.discard(end)
    assert not left


def test_who_is_on_no_list_is_let_in(tmp_path: Path) -> None:
    shake_hands(tmp_path, ROOT.revokes() + BETWEEN.revokes())


@pytest.mark.parametrize(
    "lists",
    [
        ROOT.revokes(BETWEEN) + BETWEEN.revokes(),
        ROOT.revokes() + BETWEEN.revokes(CLIENT),
        BETWEEN.revokes(),
        ROOT.revokes(),
    ],
    ids=["the CA between", "the client", "no list of the root's", "no list of the CA between"],
)
def test_one_that_is_revoked_or_of_which_that_is_not_known_shuts_out_all_below(
    tmp_path: Path, lists: bytes
) -> None:
    with pytest.raises(
        ssl.SSLCertVerificationError, match=r"revoked|unable to get certificate CRL"
    ):
        shake_hands(tmp_path, lists)
