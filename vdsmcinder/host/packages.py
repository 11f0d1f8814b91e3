# SPDX-License-Identifier: GPL-2.0-or-later
"""The versions of the packages that an engine asks about, on dpkg and on RPM hosts.

An engine refuses Ceph storage on a host that does not list librbd1 (packages2).
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import vdsmcinder

log = logging.getLogger(__name__)

# What engines call a package, and what distributions do; the first one installed counts.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "librbd1": ("librbd1",),
    "librados2": ("librados2",),
    "qemu-kvm": ("qemu-kvm-core", "qemu-kvm", "qemu-system-x86", "qemu-system-arm", "qemu-system"),
    "qemu-img": ("qemu-img", "qemu-utils"),
    "libvirt": ("libvirt-daemon-driver-qemu", "libvirt-daemon", "libvirt0"),
    "spice-server": ("spice-server", "libspice-server1"),
    "openvswitch": ("openvswitch", "openvswitch-switch"),
}

QUERY_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Version:
    """A package's version; release is what the distribution added, '' where there is none."""

    version: str
    release: str


@dataclass(frozen=True)
class PackageManager:
    """How one kind of host is asked; query prints a line 'name version-release' per package."""

    databases: tuple[str, ...]  # the first that exists; its time changes when packages do
    query: tuple[str, ...]


MANAGERS = (
    PackageManager(
        databases=("/var/lib/dpkg/status",),
        query=("dpkg-query", "-W", "-f=${db:Status-Abbrev}${Package} ${Version}\\n"),
    ),
    PackageManager(
        databases=("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite"),
        query=("rpm", "-q", "--qf", "ii %{NAME} %{VERSION}-%{RELEASE}\\n"),
    ),
)


class Packages:
    """The installed versions, asked anew only when the package manager has changed something."""

    def __init__(self, managers: tuple[PackageManager, ...] = MANAGERS) -> None:
        self._managers = managers
        self._known: dict[str, Version] = {}
        self._changed_ns: int | None = None

    def versions(self) -> dict[str, Version]:
        """The version of each package of PACKAGES that is installed, of the kernel and of us.

        Blocks for some ten milliseconds when packages changed since the last call.
        """
        for manager in self._managers:
            changed_ns = _changed_ns(manager)
            if changed_ns is None:
                continue
            if changed_ns != self._changed_ns:
                self._known = installed(manager)
                self._changed_ns = changed_ns
            break
        return {**self._known, "kernel": kernel_version(os.uname().release), **_ours()}


def installed(manager: PackageManager) -> dict[str, Version]:
    """Ask the package manager once for all packages; empty if it cannot be run."""
    try:
        # It exits 1 because of the names that this distribution does not have.
        answer = subprocess.run(
            [*manager.query, *names()],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=QUERY_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        log.error("The versions of packages are not known, %s failed: %s", manager.query[0], e)
        return {}
    return parse(answer.stdout.decode(errors="replace"))


def names() -> list[str]:
    """All that distributions call the packages of PACKAGES."""
    return [name for called in PACKAGES.values() for name in called]


def parse(listing: str) -> dict[str, Version]:
    """Lines 'ii name version-release' (ii: installed, as dpkg writes it) by the key of engines."""
    found = {}
    for line in listing.splitlines():
        words = line.split()
        # dpkg keeps a line for packages removed, 'rc', and for those that it never heard of, 'un'.
        if len(words) == 3 and words[0].endswith("i"):
            found[words[1]] = package_version(words[2])
    return {
        key: next(found[name] for name in names if name in found)
        for key, names in PACKAGES.items()
        if any(name in found for name in names)
    }


def package_version(full: str) -> Version:
    """'1:7.2+dfsg-7+deb12u18' is version 7.2+dfsg, release 7+deb12u18; an epoch is left out."""
    epoch, colon, rest = full.partition(":")
    upstream = rest if colon and epoch.isdigit() else full
    version, hyphen, release = upstream.rpartition("-")
    return Version(version, release) if hyphen else Version(upstream, "")


def kernel_version(full: str) -> Version:
    """'6.1.0-18-amd64' is version 6.1.0, release 18-amd64."""
    version, _, release = full.partition("-")
    return Version(version, release)


def _ours() -> dict[str, Version]:
    # Engines look for the daemon's version under vdsm, whose part it plays here.
    ours = Version(vdsmcinder.__version__, "1")
    return {"vdsm": ours, "vdsm-cinder": ours}


def _changed_ns(manager: PackageManager) -> int | None:
    for database in manager.databases:
        try:
            found = Path(database).stat()
        except OSError:
            continue
        # The other kind's tools may be installed too; their database is then empty.
        if found.st_size:
            return found.st_mtime_ns
    return None
