# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's two authorities, and its own certificates: made once, opened, renewed.

One is for clients: hosts let in whom it signed, and it signs what hosts and the engine show to
clients. The other is for hosts among themselves: daemon, libvirt, QEMU. So no client's certificate
is of use at libvirt's port, and nothing that a host has makes it a client of another host.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from cinderengine.authorities import certificates
from cinderengine.authorities.certificates import Authority, Unit, Wish
from cinderengine.authorities.files import (
    CERTIFICATE_MODE,
    KEY_MODE,
    Draft,
    Unusable,
    read,
    write,
)
from cinderengine.errors import Invalid

# Which authority signs what; a host's listener faces clients, who know that one alone.
BY_CLIENTS = frozenset({Unit.LISTENER, Unit.ENGINE, Unit.WEB})
# What the engine is called where it is a client.
ENGINE = "engine"
OF_HOSTS = (Unit.LISTENER, Unit.DAEMON, Unit.LIBVIRT, Unit.QEMU)


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and its key."""

    certificate: Path
    key: Path

    @property
    def exists(self) -> bool:
        """Whether both are there. Raises Unusable for a certificate without its key."""
        if self.certificate.exists() and not self.key.exists():
            raise Unusable(
                f"{self.key} does not exist, though {self.certificate.name} beside it does; "
                "restore it from a backup"
            )
        return self.certificate.exists()

    def drafts(self, certificate: x509.Certificate, key: certificates.Key) -> list[Draft]:
        """The files, to be written: first the key, so that who has a certificate has that."""
        return [
            Draft(self.key, certificates.key_pem(key), KEY_MODE),
            Draft(self.certificate, certificates.certificate_pem(certificate), CERTIFICATE_MODE),
        ]


@dataclass(frozen=True)
class Layout:
    """Where the files are, by their names in one directory."""

    directory: Path

    @property
    def clients(self) -> Pair:
        """The authority for clients."""
        return self._pair("clients-ca")

    @property
    def hosts(self) -> Pair:
        """The authority for hosts."""
        return self._pair("hosts-ca")

    @property
    def engine(self) -> Pair:
        """What the engine shows to hosts."""
        return self._pair("engine")

    @property
    def web(self) -> Pair:
        """What it shows to browsers and clients."""
        return self._pair("web")

    def _pair(self, name: str) -> Pair:
        return Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")


@dataclass(frozen=True)
class Validity:
    """How long certificates are valid, authorities are, and before which end they are renewed."""

    days: int = 397
    authority_days: int = 3650
    renew_days: int = 60


@dataclass(frozen=True)
class Signed:
    """A certificate for a host's program, as it is sent there. fingerprint: SHA-256, hex."""

    certificate_pem: str
    fingerprint: str
    expires_ms: int


class Authorities:
    """Those of one engine, opened."""

    def __init__(self, layout: Layout, validity: Validity) -> None:
        """Read them. Raises Unusable or Invalid, with the file that is at fault."""
        self.layout = layout
        self._validity = validity
        self.clients = _opened(layout.clients)
        self.hosts = _opened(layout.hosts)

    @classmethod
    def make(
        cls, directory: Path, names: Sequence[str], validity: Validity | None = None
    ) -> list[Path]:
        """Make what is missing of them; the certificates that were made. names: the engine's."""
        layout, validity = Layout(directory), validity or Validity()
        certificates.alternatives(names)
        made = []
        for pair, what in ((layout.clients, "clients CA"), (layout.hosts, "hosts CA")):
            if not pair.exists:
                _establish(pair, f"{names[0][: 63 - len(what)]} {what}", validity.authority_days)
                made.append(pair.certificate)
        return made + cls(layout, validity).renew(names)

    def renew(self, names: Sequence[str]) -> list[Path]:
        """Make the engine's own certificates that are missing, end soon or are for other names.

        Those that were made.
        """
        made = []
        for unit, pair, wanted in (
            (Unit.ENGINE, self.layout.engine, [ENGINE]),
            (Unit.WEB, self.layout.web, list(names)),
        ):
            if self._holds(pair, wanted):
                continue
            key = certificates.new_key()
            public = key.public_key()
            signed = self.clients.sign(Wish(unit, wanted), public, self._validity.days)
            write(pair.drafts(signed, key))
            made.append(pair.certificate)
        return made

    def _holds(self, pair: Pair, names: Sequence[str]) -> bool:
        """Whether a certificate is well and good for some time."""
        try:
            certificate, key = _read(pair)
        except (Invalid, Unusable):
            return False
        # One that a short validity was wanted for is renewed in the last third of it.
        renew_days = min(self._validity.renew_days, self._validity.days // 3)
        return (
            certificates.belong(certificate, key)
            and self.clients.issued(certificate)
            and certificates.days_left(certificate) >= renew_days
            and certificates.names_of(certificate) == _plain(names)
        )

    def sign_host(self, names: Sequence[str], requests: Mapping[Unit, bytes]) -> dict[Unit, Signed]:
        """Certificates for the programs of a host; all or none.

        names: its names and addresses as the engine has them, the one that engines and other hosts
        call it by first. requests: PEM. Of these only the keys count. Raises Invalid.
        """
        keys = {}
        for unit, request in requests.items():
            if unit not in OF_HOSTS:
                raise Invalid(
                    f"host {names[0]} asks for a certificate of {unit}, which is no host's"
                )
            keys[unit] = certificates.requested_key(request, f"host {names[0]} for {unit}")
        signed = {}
        for unit, public in keys.items():
            authority = self.clients if unit in BY_CLIENTS else self.hosts
            certificate = authority.sign(Wish(unit, names), public, self._validity.days)
            signed[unit] = Signed(
                certificates.certificate_pem(certificate).decode("ascii"),
                certificates.fingerprint(certificate),
                certificates.ends_ms(certificate),
            )
        return signed

    @property
    def clients_pem(self) -> str:
        """The certificate of the clients' authority: whom hosts let in, and whom clients trust."""
        return certificates.certificate_pem(self.clients.certificate).decode("ascii")

    @property
    def hosts_pem(self) -> str:
        """That of the hosts' authority."""
        return certificates.certificate_pem(self.hosts.certificate).decode("ascii")

    @property
    def engine_subject(self) -> str:
        """Whom hosts let in as their engine: the subject of its certificate (RFC 4514)."""
        return Wish(Unit.ENGINE, [ENGINE]).subject.rfc4514_string()

    @property
    def fingerprint(self) -> str:
        """That of the clients' authority, by which a host knows the engine before it has joined."""
        return certificates.fingerprint(self.clients.certificate)

    def to_hosts(self) -> ssl.SSLContext:
        """What a connection to a host is made with: its listener's certificate must be ours.

        Made anew for each: the engine's own may have been renewed. Raises Unusable.
        """
        context = ssl.create_default_context(cadata=self.clients_pem)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        pair = self.layout.engine
        _loaded(context, pair)
        return context

    def ends(self) -> Mapping[str, int]:
        """When each certificate of the engine's ends, in milliseconds since the epoch."""
        layout = self.layout
        pairs = {
            "clients": layout.clients,
            "hosts": layout.hosts,
            "engine": layout.engine,
            "web": layout.web,
        }
        return {name: certificates.ends_ms(_read(pair)[0]) for name, pair in pairs.items()}


def web_context(pair: Pair) -> ssl.SSLContext:
    """What the engine's own port is served with. Raises Unusable."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _loaded(context, pair)
    return context


def reload_web(context: ssl.SSLContext, pair: Pair) -> None:
    """Have new connections served with what the files hold now. Raises Unusable, then as before."""
    _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair)
    _loaded(context, pair)


def _loaded(context: ssl.SSLContext, pair: Pair) -> None:
    read(pair.certificate)
    read(pair.key)
    try:
        # An empty password makes an encrypted key an error; the default asks on the terminal.
        context.load_cert_chain(pair.certificate, pair.key, password="")
    except (ssl.SSLError, OSError) as e:
        raise Unusable(
            f"{pair.certificate} and {pair.key} are not a certificate and its unencrypted private "
            f"key ({getattr(e, 'reason', None) or e}); put PEM files there that belong together"
        ) from e


def _establish(pair: Pair, name: str, days: int) -> None:
    """Make an authority, with the key that is there if it got no further than that."""
    if not pair.key.exists():
        made = Authority.made(name, days)
        write(pair.drafts(made.certificate, made.key), replace=False)
        return
    made = Authority.of_key(name, certificates.key_of(read(pair.key), str(pair.key)), days)
    pem = certificates.certificate_pem(made.certificate)
    write([Draft(pair.certificate, pem, CERTIFICATE_MODE)], replace=False)


def _opened(pair: Pair) -> Authority:
    certificate, key = _read(pair)
    if not certificates.belong(certificate, key):
        raise Unusable(
            f"{pair.key} is not the key of the authority in {pair.certificate}; restore the one "
            "that is"
        )
    return Authority(certificate, key)


def _read(pair: Pair) -> tuple[x509.Certificate, certificates.Key]:
    certificate = certificates.certificate_of(read(pair.certificate), str(pair.certificate))
    return certificate, certificates.key_of(read(pair.key), str(pair.key))


def _plain(names: Sequence[str]) -> list[str]:
    """Names as a certificate has them."""
    return [str(name.value) for name in certificates.alternatives(names)]
