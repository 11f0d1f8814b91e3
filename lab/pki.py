# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates for the lab: a CA, a server certificate for each host, a client's for the engine.

A CA of their own signs those that hosts show one another.

By the openssl command, so that no code of ours vouches for itself. A second CA signs a client
certificate that no host may accept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.base import run

# Longer than the daemon warns of their end.
DAYS = "60"
# A host shows it to engines, and to other hosts that its VMs migrate to.
HOST_USAGE = "serverAuth,clientAuth"
# Programs of a host that have certificates of their own; their OU says which.
DAEMON, LIBVIRT, QEMU = "vdsm-cinder", "libvirt", "qemu"
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key, both PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Pki:
    """The certificates below one directory, by convention of their names."""

    directory: Path

    @property
    def ca(self) -> Path:
        """The certificate of the CA that hosts and engine trust."""
        return self.directory / "ca.pem"

    @property
    def hosts_ca(self) -> Path:
        """The certificate of the CA that hosts trust among themselves."""
        return self.directory / "hosts-ca.pem"

    @property
    def engine(self) -> Identity:
        """The client certificate that the hosts accept."""
        return self.identity("engine")

    @property
    def foreign(self) -> Identity:
        """A client certificate that another CA signed."""
        return self.identity("foreign")

    def identity(self, name: str) -> Identity:
        """The certificate and key of `name`, for instance those of host1."""
        return Identity(self.directory / f"{name}.pem", self.directory / f"{name}.key")

    def issue_client(self, name: str, alternatives: str = "DNS:client") -> Identity:
        """A client certificate that the hosts accept; alternatives as in x509v3_config(5)."""
        _sign(self.directory, "ca", name, "clientAuth", alternatives)
        return self.identity(name)

    def renew_host(self, name: str, address: str, days: int) -> None:
        """Give a host another key and certificate in place of the one that it has."""
        _sign(self.directory, "ca", name, HOST_USAGE, _host_names(name, address), days=str(days))


def make_pki(directory: Path, hosts: Mapping[str, str]) -> Pki:
    """Make all certificates for the hosts (name to IP address) in `directory`."""
    directory.mkdir(mode=0o755)
    _make_ca(directory, "ca")
    _make_ca(directory, "foreign-ca")
    _make_ca(directory, "hosts-ca")
    for name, address in hosts.items():
        certify_host(directory, name, address)
    _sign(directory, "ca", "engine", "clientAuth", "DNS:engine")
    _sign(directory, "foreign-ca", "foreign", "clientAuth", "DNS:engine")
    return Pki(directory)


def certify_host(directory: Path, name: str, address: str) -> None:
    """Make the server certificate of one more host, and those of its programs by the hosts' CA."""
    names = _host_names(name, address)
    _sign(directory, "ca", name, HOST_USAGE, names)
    for program in (DAEMON, LIBVIRT, QEMU):
        subject = f"/O=lab/OU={program}/CN={name}"
        _sign(directory, "hosts-ca", f"{name}-{program}", HOST_USAGE, names, subject=subject)


def _host_names(name: str, address: str) -> str:
    return f"DNS:{name},DNS:localhost,IP:{address},IP:127.0.0.1"


def _make_ca(directory: Path, name: str) -> None:
    out = ("-keyout", directory / f"{name}.key", "-out", directory / f"{name}.pem")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    run(
        [
            "openssl",
            "req",
            "-x509",
            *NEW_KEY,
            "-days",
            DAYS,
            "-subj",
            f"/O=lab/CN={name}",
            *usage,
            *out,
        ]
    )


def _sign(
    directory: Path,
    ca: str,
    name: str,
    usage: str,
    alternatives: str,
    *,
    days: str = DAYS,
    subject: str = "",
) -> None:
    request, extensions = directory / f"{name}.csr", directory / f"{name}.ext"
    identifiers = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    extensions.write_text(f"{identifiers}extendedKeyUsage={usage}\nsubjectAltName={alternatives}\n")
    key = ("-keyout", directory / f"{name}.key", "-out", request)
    run(["openssl", "req", "-new", *NEW_KEY, "-subj", subject or f"/O=lab/CN={name}", *key])
    signer = ("-CA", directory / f"{ca}.pem", "-CAkey", directory / f"{ca}.key", "-CAcreateserial")
    out = ("-extfile", extensions, "-out", directory / f"{name}.pem")
    run(["openssl", "x509", "-req", "-in", request, "-days", days, *signer, *out])
    request.unlink()
    extensions.unlink()
