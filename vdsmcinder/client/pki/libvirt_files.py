# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt's configuration files say of certificates, and where they are without a word of it.

A setting is `NAME = VALUE` at a line's begin: a string, a number, or a list of strings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

# Who QEMU's processes run as: of EL, of Debian.
QEMU_USERS = ("qemu", "libvirt-qemu")
# Those of the daemons that listen: of a libvirt with a daemon for each driver, and of one for all.
CONFIGURATIONS = ("etc/libvirt/virtproxyd.conf", "etc/libvirt/libvirtd.conf")
QEMU_CONFIGURATION = "etc/libvirt/qemu.conf"
# What the daemons that listen show and trust, by the settings that say so.
SERVER_FILES: Mapping[str, str] = {
    "ca_file": "/etc/pki/CA/cacert.pem",
    "cert_file": "/etc/pki/libvirt/servercert.pem",
    "key_file": "/etc/pki/libvirt/private/serverkey.pem",
}
# Where QEMU's certificates are, by the settings that say so.
QEMU_DIRECTORIES: Mapping[str, str] = {
    "default_tls_x509_cert_dir": "/etc/pki/qemu",
    **{
        f"{use}_tls_x509_cert_dir": f"/etc/pki/libvirt-{use}"
        for use in ("vnc", "spice", "chardev", "vxhs", "nbd", "migrate", "backup")
    },
}
MIGRATE = "migrate_tls_x509_cert_dir"

_VALUE = r"(\[[^\]]*\]|\"[^\"\n]*\"|'[^'\n]*'|[0-9]+)"
_STRING = re.compile(r"\"([^\"\n]*)\"|'([^'\n]*)'|([0-9]+)")


def setting(text: str, name: str) -> list[str] | None:
    """The values of a setting, one if it is no list; None where it is not set."""
    found = re.search(rf"^[ \t]*{name}[ \t]*=[ \t]*{_VALUE}", text, re.MULTILINE)
    if found is None:
        return None
    return ["".join(parts) for parts in _STRING.findall(found[1])]


def one(text: str, name: str, default: str = "") -> str:
    """The value of a setting that is no list."""
    values = setting(text, name)
    return values[0] if values else default


def below(root: Path, path: str) -> Path:
    """An absolute path of a machine whose files are below root."""
    return root / path.lstrip("/")


def server_file(text: str, name: str, root: Path) -> Path:
    """A file of the daemon that listens, by its setting's name and its configuration's text."""
    return below(root, one(text, name, SERVER_FILES[name]))


def qemu_directory(text: str, name: str, root: Path) -> Path:
    """A directory of QEMU's certificates, by its setting's name and the text of qemu.conf."""
    return below(root, one(text, name, QEMU_DIRECTORIES[name]))
