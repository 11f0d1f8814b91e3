# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor's check that nobody but the daemon starts our VMs or suspends them.

What libvirt starts by itself runs without anybody having asked who else has its images.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vdsmcinder.ceph.findings import Check, Finding
from vdsmcinder.client import system
from vdsmcinder.client.doctor.host import Host

AUTOSTART = Check("autostart")
GUESTS = "libvirt-guests.service"
# What `make install` and the packages put beside it.
DROP_IN = "libvirt-guests.service.d/50-vdsm-cinder.conf"
QEMU_CONF = Path("/etc/libvirt/qemu.conf")
# libvirt's daemon of VMs does the same by itself where these are not "none", from 11.2 on.
_BY_ITSELF = re.compile(r'\s*(auto_shutdown_(?:try_save|try_shutdown|poweroff))\s*=\s*"(?!none")')


async def autostart(host: Host) -> list[Finding]:
    """Whether libvirt would start or suspend VMs here by itself."""
    told = await host.libvirt()
    vms = told.get("domains")
    if not isinstance(vms, list):
        return [AUTOSTART.unknown("libvirt does not tell which VMs there are")]
    shown = await system.unit(GUESTS, "LoadState", "UnitFileState", "ActiveState", "DropInPaths")
    found = [
        *(finding for vm in vms for finding in _of_vm(vm)),
        *_of_service(shown),
        *await system.in_thread(_of_configuration),
    ]
    return found or [AUTOSTART.ok("nobody but the daemon starts the VMs here")]


def _of_vm(vm: dict[str, Any]) -> Iterator[Finding]:
    name = vm.get("name", "")
    if vm.get("autostart") is True:
        message = f"libvirt starts {name} by itself, with the host"
        yield AUTOSTART.wrong(message, f"virsh autostart --disable {name}")
    if vm.get("saved") is True:
        message = f"libvirt has a saved image of {name}: who starts it takes it back to that time"
        yield AUTOSTART.wrong(message, f"virsh managedsave-remove {name}")


def _of_service(shown: dict[str, str]) -> Iterator[Finding]:
    if shown.get("LoadState") != "loaded" or DROP_IN in shown.get("DropInPaths", ""):
        return
    if shown.get("UnitFileState", "").startswith("enabled") or shown.get("ActiveState") == "active":
        message = f"{GUESTS} starts VMs with the host, and shuts them down or suspends them with it"
        yield AUTOSTART.wrong(message, system.reinstall())


def _of_configuration() -> list[Finding]:
    try:
        lines = QEMU_CONF.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    options = [match[1] for match in map(_BY_ITSELF.match, lines) if match]
    return [
        AUTOSTART.wrong(
            f"libvirt's {option} in {QEMU_CONF} ends VMs with the host or suspends them",
            f"set {option} to none, and systemctl restart {system.libvirt_units()}",
        )
        for option in options
    ]
