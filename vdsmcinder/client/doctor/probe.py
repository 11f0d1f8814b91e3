# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon's user can do on this host: read its files, reach libvirt, see its VMs.

Run by its path as that user, and ended when it overruns: libvirt may hang, and root is not asked by
polkit. It imports nothing of ours. {files} or {uri} comes in on stdin as JSON; what is found goes
out on stdout.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, Callable

import libvirt

# Marks the domains that are ours; virt/domain/metadata.py reads more of it.
NAMESPACE = "http://ovirt.org/vm/1.0"


def main() -> None:
    """Answer, and end at once, whatever libvirt has left behind."""
    asked = json.load(sys.stdin)
    answer = _unreadable(asked["files"]) if "files" in asked else _libvirt(asked["uri"])
    print(json.dumps(answer), flush=True)
    os._exit(0)


def _unreadable(paths: Sequence[str]) -> dict[str, str]:
    """Those of the files that cannot be read, and why not."""
    found = {}
    for path in paths:
        try:
            with open(path, "rb"):
                pass
        except OSError as e:
            found[path] = e.strerror or str(e)
    return found


def _libvirt(uri: str) -> dict[str, Any]:
    """What libvirt tells, part by part; {error} where it cannot be reached."""
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        connection = libvirt.open(uri)
        version = connection.getLibVersion()
    except libvirt.libvirtError as e:
        return {"error": str(e)}
    found = {
        "version": version,
        "kvm": _or_error(_emulator, connection, "kvm"),
        "emulation": _or_error(_emulator, connection, "qemu"),
        "secrets": _or_error(_secrets, connection),
        "domains": _or_error(_domains, connection),
    }
    # Other drivers, such as libvirt's own for tests, have VMs without networks.
    if uri.startswith("qemu"):
        found["networks"] = _or_error(_networks, connection)
        found["filters"] = _or_error(_filters, connection)
    return found


def _or_error(ask: Callable[..., Any], *args: Any) -> Any:
    """The answer, or {error}."""
    try:
        return ask(*args)
    except libvirt.libvirtError as e:
        return {"error": str(e)}


def _emulator(connection: libvirt.virConnect, virt_type: str) -> str:
    """The path of QEMU; empty where it cannot run VMs of that type."""
    try:
        document = connection.getDomainCapabilities(None, os.uname().machine, None, virt_type, 0)
    except libvirt.libvirtError as e:
        if e.get_error_code() in (libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_NO_SUPPORT):
            return ""
        raise
    return str(document.partition("<path>")[2].partition("</path>")[0])


def _secrets(connection: libvirt.virConnect) -> list[str]:
    return [secret.UUIDString() for secret in connection.listAllSecrets()]


def _networks(connection: libvirt.virConnect) -> list[str]:
    running = connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
    return [network.name() for network in running]


def _filters(connection: libvirt.virConnect) -> list[str]:
    return [known.name() for known in connection.listAllNWFilters()]


def _domains(connection: libvirt.virConnect) -> list[dict[str, Any]]:
    found = []
    for domain in connection.listAllDomains():
        # One may have gone since it was listed.
        xml = _or_error(domain.XMLDesc, 0)
        if isinstance(xml, str) and NAMESPACE in xml:
            found.append(
                {
                    "running": "id=" in xml.partition(">")[0],
                    "xml": xml,
                    "name": domain.name(),
                    "autostart": _or_error(domain.autostart) == 1,
                    "saved": _or_error(domain.hasManagedSaveImage, 0) == 1,
                }
            )
    return found


if __name__ == "__main__":
    main()
