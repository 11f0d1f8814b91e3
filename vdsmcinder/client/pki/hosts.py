# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinder pki hosts: an authority for hosts alone, and what it signs for a host's programs.

Clients' certificates are of another one, so that none of them is of use at libvirt's port, and
nothing that a host's libvirt or QEMU holds is of use at the daemon's. Whose a certificate is, its
OU says: vdsm-cinder, libvirt or qemu. Raises InputRefused for what cannot be done.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from vdsmcinder.client.exit_codes import InputRefused
from vdsmcinder.client.pki import certificates as issuing
from vdsmcinder.client.pki import files as pki_files
from vdsmcinder.client.pki import libvirt_files as libvirt
from vdsmcinder.client.pki.certificates import ORGANIZATION, Authority, Wish
from vdsmcinder.client.pki.files import Draft, HostLayout
from vdsmcinder.client.pki.show import days_left

DAEMON, LIBVIRT, QEMU = "vdsm-cinder", "libvirt", "qemu"
QEMU_KEY_MODE = 0o440
# The names that libvirt's daemon lets in, in the order in which GnuTLS writes them, and in RFC
# 4514's.
ALLOWED = (f"O={ORGANIZATION},OU={LIBVIRT},CN=*", f"CN=*,OU={LIBVIRT},O={ORGANIZATION}")
LIST = "tls_allowed_dn_list"


def make(layout: HostLayout, names: list[str], args: argparse.Namespace) -> list[Draft]:
    """The files for a host of these names, to be written: what there is stays without --force."""
    there = [pair.certificate for pair in layout.signed if pair.certificate.exists()]
    if there and not args.force:
        raise InputRefused(
            f"{there[0]} exists already; put what is there in place with --install, or make it "
            "anew with --force"
        )
    authority, drafts = _authority(layout, names[0], args)
    for unit in (DAEMON, LIBVIRT, QEMU):
        key = issuing.new_key()
        wish = Wish.of_service(names, unit)
        certificate = authority.sign(wish, key.public_key(), args.days)
        drafts += placed(layout, unit, key, issuing.certificate_pem(certificate))
    return drafts


def placed(layout: HostLayout, unit: str, key: issuing.Key, certificate: bytes) -> list[Draft]:
    """The files of a program, with who may read them."""
    pair, mode, ids = {
        DAEMON: (layout.daemon, pki_files.KEY_MODE, pki_files.ids_of(pki_files.USER) or ()),
        LIBVIRT: (layout.libvirt, pki_files.KEY_MODE, ()),
        QEMU: (layout.qemu, QEMU_KEY_MODE, _qemu_ids()),
    }[unit]
    owner = ids if os.geteuid() == 0 else ()
    return [
        Draft(pair.key, issuing.key_pem(key), mode, *owner),
        Draft(pair.certificate, certificate, pki_files.CERTIFICATE_MODE),
    ]


def _authority(
    layout: HostLayout, name: str, args: argparse.Namespace
) -> tuple[Authority, list[Draft]]:
    """Who signs: the one of --ca-from, the one that is here, or a new one."""
    origin = layout if args.ca_from is None else HostLayout.below(args.ca_from)
    if args.ca_from is not None or origin.ca.key.exists():
        pem = pki_files.read(origin.ca.certificate)
        (certificate, *_) = issuing.certificates_of(pem, str(origin.ca.certificate))
        key = issuing.key_of(pki_files.read(origin.ca.key), str(origin.ca.key))
        authority = Authority(certificate, key)
        if args.ca_from is None and days_left(certificate) < args.days:
            # With the key and the name that it has, so that what it has signed stays good.
            authority = authority.renewed(args.ca_days)
            pem = issuing.certificate_pem(authority.certificate)
        return authority, [Draft(layout.ca.certificate, pem, pki_files.CERTIFICATE_MODE)]
    authority = Authority.made(name, args.ca_days, "hosts CA")
    pem = issuing.certificate_pem(authority.certificate)
    return authority, [
        Draft(layout.ca.key, issuing.key_pem(authority.key), pki_files.KEY_MODE),
        Draft(layout.ca.certificate, pem, pki_files.CERTIFICATE_MODE),
    ]


def _qemu_ids() -> tuple[int, ...]:
    """Root, and the group of QEMU's user, who may read its key and not change it."""
    found = next(filter(None, map(pki_files.ids_of, libvirt.QEMU_USERS)), None)
    return () if found is None else (0, found[1])


def install(layout: HostLayout, root: Path) -> list[Path]:
    """Put the files where libvirt and QEMU look for them, below root; what was changed."""
    drafts = list(_placed(layout, root))
    pki_files.write(drafts, replace=True)
    return [draft.path for draft in drafts]


def check(root: Path) -> None:
    """Whether libvirt's files below root are so that install() can do its part: InputRefused."""
    list(_allowing(root))


def _placed(layout: HostLayout, root: Path) -> Iterator[Draft]:
    configurations = list(_allowing(root))
    qemu = _qemu_ids() if os.geteuid() == 0 else ()
    migrate = _migration_directory(root)
    ca, mode = pki_files.read(layout.ca.certificate), pki_files.CERTIFICATE_MODE
    yield Draft(root / "etc/pki/CA/cacert.pem", ca, mode)
    yield Draft(migrate / "ca-cert.pem", ca, mode)
    for end in ("client", "server"):
        key = pki_files.read(layout.libvirt.key)
        yield Draft(root / f"etc/pki/libvirt/private/{end}key.pem", key, pki_files.KEY_MODE)
        pem = pki_files.read(layout.libvirt.certificate)
        yield Draft(root / f"etc/pki/libvirt/{end}cert.pem", pem, mode)
        key = pki_files.read(layout.qemu.key)
        yield Draft(migrate / f"{end}-key.pem", key, QEMU_KEY_MODE, *qemu)
        pem = pki_files.read(layout.qemu.certificate)
        yield Draft(migrate / f"{end}-cert.pem", pem, mode)
    yield from configurations


def _migration_directory(root: Path) -> Path:
    """Where QEMU's certificates for migrations are."""
    file = root / libvirt.QEMU_CONFIGURATION
    text = pki_files.read(file).decode() if file.exists() else ""
    return libvirt.qemu_directory(text, libvirt.MIGRATE, root)


def _allowing(root: Path) -> Iterator[Draft]:
    """The configuration of each of libvirt's daemons that may listen on this host."""
    found = [root / name for name in libvirt.CONFIGURATIONS if (root / name).exists()]
    if not found:
        raise InputRefused(
            f"{root / libvirt.CONFIGURATIONS[-1]} does not exist, so that libvirt would let in "
            "every certificate of the hosts' CA; install libvirt first"
        )
    for file in found:
        text = pki_files.read(file).decode()
        others = [name for name in libvirt.SERVER_FILES if libvirt.setting(text, name) is not None]
        if others:
            raise InputRefused(
                f"{file} has libvirt look for certificates elsewhere ({', '.join(others)}); remove "
                "that, so that it takes those that are put in its usual places"
            )
        yield Draft.in_place_of(file, allowing(text, str(file)).encode())


def allowing(text: str, file: str) -> str:
    """The configuration of libvirt's daemon, which lets in the hosts' libvirt and nobody else."""
    names = ", ".join(f'"{name}"' for name in ALLOWED)
    line = f"{LIST} = [{names}]\n"
    old = libvirt.setting(text, LIST)
    if old is None:
        return f"{text.rstrip()}\n\n{line}" if text.strip() else line
    if not set(ALLOWED) <= set(old):
        raise InputRefused(
            f"{file} lets in names of its own by {LIST}; remove that, or add these by hand: {names}"
        )
    return text


def options(layout: HostLayout) -> str:
    """What the daemon's configuration has to say of them."""
    return (
        f"listen:\n  hosts_ca: {layout.ca.certificate}\n"
        f"migration:\n  certificate: {layout.daemon.certificate}\n  key: {layout.daemon.key}"
    )
