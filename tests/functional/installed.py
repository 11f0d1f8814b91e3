# SPDX-License-Identifier: GPL-2.0-or-later
"""A host of its own that has just booted, with the daemon installed, configured and started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.host.hypervisor import address_of
from lab.pki import certify_host
from lab.running import Lab
from lab.systemd.host import boot
from lab.systemd.installed import SERVICE, InstalledDaemon


@contextmanager
def installed(lab: Lab, kind: type[InstalledDaemon]) -> Iterator[InstalledDaemon]:
    """The daemon as that kind of package puts it on the host, which ends with it."""
    certify_host(lab.pki.directory, kind.HOST, address_of(kind.HOST))
    host = boot(lab, kind.HOST)
    try:
        daemon = kind(host, lab.pki)
        daemon.install()
        daemon.configure()
        host.systemctl("enable", "--now", SERVICE)
        yield daemon
    finally:
        host.end()
