# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor's check that clients' certificates are of no use to libvirt, nor QEMU's to the daemon.

Who may speak to libvirt over TLS is root on the host: that must not be whoever is let in here, with
whatever role. And what QEMU's user can read, a guest that breaks out of QEMU can.
"""

from __future__ import annotations

import fnmatch
import os
import pwd
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vdsmcinder.ceph.findings import Check, Finding
from vdsmcinder.client import system
from vdsmcinder.client.exit_codes import CommandFailed
from vdsmcinder.client.pki import certificates as issuing
from vdsmcinder.client.pki import hosts as pki_hosts
from vdsmcinder.client.pki import libvirt_files as libvirt
from vdsmcinder.client.pki import show
from vdsmcinder.client.pki.files import HostLayout, Layout, Pair
from vdsmcinder.client.system import Identity
from vdsmcinder.config import Config

CERTIFICATES = Check("certificates")
MEND = "vdsm-cinder pki hosts --install"
RENEW = "vdsm-cinder pki hosts --force --install"
_ROOT = Path("/")
# The units that open libvirt's port without TLS.
_PLAIN = "etc/systemd/system/sockets.target.wants/{}-tcp.socket"
# A word for each of its arguments: whether whoever runs it may read that file.
_READABLE = 'for path; do if test -r "$path"; then echo yes; else echo no; fi; done'


async def look(settings: Config, root: Path = _ROOT) -> list[Finding]:
    """What is wrong with whom libvirt and the daemon let in; nothing if hosts and clients have
    authorities of their own, and programs keys of their own. root: where etc is.
    """
    try:
        found = await system.in_thread(lambda: list(_of_files(settings, root)))
        return [*found, *await _of_readers(settings, root)]
    except CommandFailed as e:
        return [CERTIFICATES.unknown(str(e))]


def _of_files(settings: Config, root: Path) -> Iterator[Finding]:
    clients = _certificates(Path(settings.listen.ca))
    qemus = list(_qemu_certificates(root))
    found = [
        finding
        for text, file in _configurations(root)
        for finding in _of_libvirt(_Libvirt(text, file, root), clients, qemus)
    ]
    # What holds for both of libvirt's ways is said once.
    yield from dict.fromkeys(found)
    yield from _of_qemu(settings, root, clients, qemus)
    yield from _ending(settings, root)


def _ending(settings: Config, root: Path) -> Iterator[Finding]:
    """What hosts show one another and will not be able to before long."""
    directory = HostLayout.below(Path(settings.listen.key).parent.parent)
    ours = [settings.migration.certificate] if settings.migration.certificate else []
    shown = [Path(path) for path in ours] or [directory.daemon.certificate]
    shown += [libvirt.server_file(text, "cert_file", root) for text, _ in _configurations(root)]
    shown += [libvirt.below(root, "/etc/pki/libvirt/clientcert.pem")]
    shown += [one.path for one in _qemu_certificates(root)]
    for path in dict.fromkeys(path for path in shown if path.exists()):
        left_days = show.days_left(_certificates(path)[0])
        if left_days <= 0:
            yield CERTIFICATES.wrong(f"{path} has expired, and VMs cannot migrate", RENEW)
        elif left_days <= settings.listen.expiry_warning_days:
            yield CERTIFICATES.warning(f"{path} is valid for {left_days:.0f} days", RENEW)


# --- libvirt ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Libvirt:
    """One that listens: what its configuration says."""

    text: str
    file: Path
    root: Path

    @property
    def ca(self) -> Path:
        """Whom it trusts."""
        return libvirt.server_file(self.text, "ca_file", self.root)

    @property
    def has_tls(self) -> bool:
        """Whether it can listen: without these files it cannot."""
        certificate = libvirt.server_file(self.text, "cert_file", self.root)
        return certificate.exists() and self.ca.exists()

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches its port without TLS is let in."""
        unit = self.root / _PLAIN.format(self.file.stem)
        listens = unit.is_symlink() or libvirt.one(self.text, "listen_tcp") == "1"
        return listens and libvirt.one(self.text, "auth_tcp") == "none"


def _configurations(root: Path) -> Iterator[tuple[str, Path]]:
    found = [root / name for name in libvirt.CONFIGURATIONS if (root / name).exists()]
    for file in found:
        yield _bytes(file).decode(errors="replace"), file
    if not found:
        yield "", root / libvirt.CONFIGURATIONS[-1]


def _of_libvirt(
    of: _Libvirt, clients: Sequence[x509.Certificate], qemus: Sequence[_Shown]
) -> Iterator[Finding]:
    if of.is_open:
        yield CERTIFICATES.wrong(
            "whoever reaches libvirt's port without TLS is root on this host: auth_tcp is none in "
            f"{of.file}",
            f"sed --in-place '/^ *auth_tcp/d' {of.file}",
        )
    if not of.has_tls:
        return
    if libvirt.one(of.text, "tls_no_verify_certificate") == "1":
        yield CERTIFICATES.wrong(
            "libvirt lets in whoever has no certificate: tls_no_verify_certificate is 1 in "
            f"{of.file}",
            f"sed --in-place '/^ *tls_no_verify_certificate/d' {of.file}",
        )
    trusted = _certificates(of.ca)
    if any(_same_key(ca, other) or _issued(other, ca) for ca in clients for other in trusted):
        yield CERTIFICATES.wrong(
            f"libvirt trusts the CA that clients have ({of.ca}): whoever has a certificate of it, "
            "in whatever role, may be root at libvirt's port",
            MEND,
        )
        return
    names = libvirt.setting(of.text, pki_hosts.LIST)
    if names is None:
        yield CERTIFICATES.wrong(
            "libvirt lets in every certificate of the hosts' CA, QEMU's too: there is no "
            f"{pki_hosts.LIST} in {of.file}",
            MEND,
        )
        return
    for shown in qemus:
        if any(_fits(name, shown.certificate.subject) for name in names):
            yield CERTIFICATES.wrong(
                f"libvirt lets in QEMU's certificate ({shown.path}), by {pki_hosts.LIST} in "
                f"{of.file}",
                f"edit {of.file}",
            )


def _fits(pattern: str, name: x509.Name) -> bool:
    """Whether libvirt's list lets that name in, in whichever order it is written there."""
    parts = [part.rfc4514_string() for part in name.rdns]
    # Of what fnmatch knows, libvirt's patterns have no brackets.
    plain = pattern.replace("[", "[[]")
    return any(fnmatch.fnmatchcase(",".join(order), plain) for order in (parts, parts[::-1]))


# --- QEMU -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shown:
    """A certificate of QEMU's, and that of the CA beside it, if there is one."""

    path: Path
    certificate: x509.Certificate
    beside: tuple[x509.Certificate, ...]

    def is_of(self, authorities: Sequence[x509.Certificate]) -> bool:
        """Whether one of them has signed it, or the CA beside it."""
        own = [ca for ca in self.beside if _issued(self.certificate, ca)]
        return any(_issued(one, ca) for one in (self.certificate, *own) for ca in authorities)


def _of_qemu(
    settings: Config, root: Path, clients: Sequence[x509.Certificate], qemus: Sequence[_Shown]
) -> Iterator[Finding]:
    hosts = _certificates(Path(settings.listen.hosts_ca)) if settings.listen.hosts_ca else []
    for shown in qemus:
        is_daemons = shown.is_of(hosts) and pki_hosts.DAEMON in _units(shown.certificate)
        if _is_for_clients(shown.certificate) and (shown.is_of(clients) or is_daemons):
            yield CERTIFICATES.wrong(f"the daemon takes QEMU's certificate, {shown.path}", MEND)
    keys = {key for path in _private(settings, root) for key in _public_of_key(path)}
    for directory in _qemu_directories(root):
        for path in sorted(directory.glob("*-key.pem")):
            if keys & set(_public_of_key(path)):
                yield CERTIFICATES.wrong(
                    f"QEMU has the daemon's own key, or libvirt's, in {path}", MEND
                )


def _qemu_certificates(root: Path) -> Iterator[_Shown]:
    for directory in _qemu_directories(root):
        ca = directory / "ca-cert.pem"
        beside = tuple(_certificates(ca)) if ca.exists() else ()
        for path in sorted(directory.glob("*-cert.pem")):
            if path != ca:
                yield _Shown(path, _certificates(path)[0], beside)


def _qemu_directories(root: Path) -> list[Path]:
    text = _qemu_configuration(root)
    found = [libvirt.qemu_directory(text, name, root) for name in libvirt.QEMU_DIRECTORIES]
    return list(dict.fromkeys(found))


def _qemu_configuration(root: Path) -> str:
    file = root / libvirt.QEMU_CONFIGURATION
    return _bytes(file).decode(errors="replace") if file.exists() else ""


def _private(settings: Config, root: Path) -> list[Path]:
    """The keys that are not for QEMU: the daemon's, the CAs', libvirt's."""
    listen = settings.listen
    own = Pair(Path(listen.certificate), Path(listen.key))
    beside = HostLayout.below(own.key.parent.parent)
    servers = [libvirt.server_file(text, "key_file", root) for text, _ in _configurations(root)]
    found = [
        own.key,
        *([Path(settings.migration.key)] if settings.migration.key else []),
        beside.daemon.key,
        beside.libvirt.key,
        beside.ca.key,
        Layout.beside(Path(listen.ca), own).ca.key,
        *servers,
        libvirt.below(root, "/etc/pki/libvirt/private/clientkey.pem"),
    ]
    return [path for path in dict.fromkeys(found) if path.exists()]


async def _of_readers(settings: Config, root: Path) -> list[Finding]:
    """What QEMU's user can read and must not; only root can see that."""
    who = qemu_identity(_qemu_configuration(root))
    if who is None or os.geteuid() != 0:
        return []
    if who.uid == 0:
        file = root / libvirt.QEMU_CONFIGURATION
        remedy = f"sed --in-place '/^ *user *=/d' {file}"
        return [CERTIFICATES.wrong(f"QEMU runs as root, by user in {file}: it reads all", remedy)]
    paths = _private(settings, root)
    # As that user, so that the directories and the lists of who may read count, too.
    tried = await system.run("sh", "-c", _READABLE, "sh", *map(str, paths), identity=who)
    return [
        CERTIFICATES.wrong(
            f"QEMU's user {who.name} may read {path}", _keep_from(who, path, settings)
        )
        for path, readable in zip(paths, tried.out.split())
        if readable == "yes"
    ]


def _keep_from(who: Identity, path: Path, settings: Config) -> str:
    owner = f"chown root {path}; " if path.stat().st_uid == who.uid else ""
    is_daemons = str(path) in (settings.listen.key, settings.migration.key)
    group = f"chgrp {system.USER} {path}; chmod g=r,o= {path}"
    return owner + (group if is_daemons else f"chmod go= {path}")


def qemu_identity(text: str) -> Identity | None:
    """The user that QEMU's processes run as, by the text of qemu.conf; None if there is none."""
    wanted = libvirt.one(text, "user")
    for name in (wanted,) if wanted else libvirt.QEMU_USERS:
        try:
            number = name.lstrip("+")
            user = pwd.getpwuid(int(number)) if number.isdigit() else pwd.getpwnam(name)
        except KeyError:
            continue
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
        return Identity(user.pw_name, user.pw_uid, user.pw_gid, groups)
    return None


# --- certificates and keys ----------------------------------------------------------------------


def _issued(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    """Whether a CA has signed a certificate, by the names and identifiers of keys in both."""
    if certificate.issuer != ca.subject:
        return False
    signer, mine = issuing.signer_of(certificate), issuing.key_identifier(ca)
    return signer is None or mine is None or signer == mine


def _same_key(one: x509.Certificate, other: x509.Certificate) -> bool:
    return issuing.encoded(one.public_key()) == issuing.encoded(other.public_key())


def _is_for_clients(certificate: x509.Certificate) -> bool:
    """Whether a server takes it of a client; one that does not say what it is for is for all."""
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return (
        ExtendedKeyUsageOID.CLIENT_AUTH in uses
        or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in uses
    )


def _units(certificate: x509.Certificate) -> list[object]:
    found = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return [attribute.value for attribute in found]


def _certificates(path: Path) -> list[x509.Certificate]:
    """Those of a file. Raises CommandFailed."""
    return issuing.certificates_of(_bytes(path), str(path))


def _public_of_key(path: Path) -> list[bytes]:
    """The public half of a key; nothing of one that cannot be read by us."""
    try:
        return [issuing.encoded(issuing.key_of(path.read_bytes(), str(path)).public_key())]
    except (OSError, CommandFailed):
        return []


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise CommandFailed(f"{path} cannot be read: {e.strerror}") from e
