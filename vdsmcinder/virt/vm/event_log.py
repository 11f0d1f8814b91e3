# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's story in the log: what it is, what becomes of it and of its devices, and for how long.

Whoever reads `journalctl VM_ID=...` at night gets these sentences between the lines of the verbs
that were called.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from vdsmcinder.virt.disk.bus_rules import Device
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.source import NetworkSource
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.domain.domain_devices import Interface
from vdsmcinder.virt.vm.lifecycle import Change
from vdsmcinder.virt.vm.status import ExitCode, PauseCode, Status

_FROM_OUTSIDE = "somebody did that through libvirt, not through this daemon"
_PAUSED: Mapping[PauseCode, str] = {
    PauseCode.EIO: "QEMU stopped it at an I/O error (EIO); see to its storage, then VM.cont",
    PauseCode.ENOSPC: "QEMU stopped it, for a disk has no space left (ENOSPC)",
    PauseCode.EPERM: "another host has opened its image (EPERM), and it is not continued any more",
    PauseCode.EOTHER: "libvirt tells no reason (EOTHER)",
}


def described(domain: Domain) -> str:
    """What a VM consists of, in a line."""
    parts = [
        f"{domain.vcpus} CPU{'' if domain.vcpus == 1 else 's'}",
        f"{domain.memory_mib} MiB",
        *(f"{_kind(drive)} {_disk(drive)}" for drive in domain.drives),
        *(f"NIC {_nic(nic)}" for nic in domain.interfaces),
    ]
    return ", ".join(parts)


def severity(change: Change) -> int:
    """The level at which a change is logged: what an operator should look at stands out."""
    failed = change.exit is not None and change.exit.code is ExitCode.ERROR
    return logging.WARNING if failed or change.pause_code in _PAUSED else logging.INFO


def changed(
    before: Status, lasted_s: float, now: Status, change: Change, *, asked_for: bool
) -> str:
    """That a VM's status is another, and why. asked_for: it comes of a verb that was called."""
    why = _why(before, now, change, asked_for)
    return f"is {now.value}, was {before.value} for {span(lasted_s)}{f': {why}' if why else ''}"


def found(now: Status, change: Change, age_s: float) -> str:
    """How a VM is that was there when the daemon started."""
    since = "" if now is Status.DOWN else f", running for {span(age_s)}"
    why = _why(None, now, change, asked_for=True)
    return f"was found as it is in libvirt: {now.value}{since}{f': {why}' if why else ''}"


def devices_changed(before: Domain, now: Domain) -> Iterator[str]:
    """What was plugged, unplugged and changed, a clause for each."""
    old, new = ({drive.target: drive for drive in domain.drives} for domain in (before, now))
    for target in old.keys() - new.keys():
        yield f"{_kind(old[target])} {_disk(old[target])} was unplugged"
    for target, drive in new.items():
        if target not in old:
            yield f"{_kind(drive)} {_disk(drive)} was plugged"
        elif drive.source.path != old[target].source.path:
            yield f"{_kind(drive)} {target} holds {drive.source.path or 'nothing'} now"
    was, has = ({nic.mac: nic for nic in domain.interfaces} for domain in (before, now))
    for mac in was.keys() - has.keys():
        yield f"NIC {_nic(was[mac])} was unplugged"
    for mac, nic in has.items():
        if mac not in was:
            yield f"NIC {_nic(nic)} was plugged"
        elif _nic(nic) != _nic(was[mac]):
            yield f"NIC {_nic(nic)} was changed"
    if before.vcpus != now.vcpus:
        yield f"it has {now.vcpus} CPUs, had {before.vcpus}"


def span(time_s: float) -> str:
    """A time span as exactly as it matters."""
    if time_s < 1:
        return f"{time_s * 1000:.0f} ms"
    if time_s < 120:
        return f"{time_s:.1f} s"
    if time_s < 2 * 3600:
        return f"{time_s / 60:.0f} min"
    return f"{time_s / 3600:.1f} h" if time_s < 2 * 86400 else f"{time_s / 86400:.1f} days"


def _why(before: Status | None, now: Status, change: Change, asked_for: bool) -> str:
    if change.exit is not None:
        return change.exit.message
    trouble = None if change.pause_code is None else _PAUSED.get(change.pause_code)
    if now is Status.PAUSED and trouble is not None:
        return trouble
    if asked_for:
        return ""
    if now is Status.POWERING_DOWN:
        return "the guest shuts itself down"
    return _FROM_OUTSIDE if Status.PAUSED in {before, now} else ""


def _kind(drive: Drive) -> str:
    return "disk" if drive.device is Device.DISK else drive.device.value


def _disk(drive: Drive) -> str:
    where = " on Ceph" if isinstance(drive.source, NetworkSource) else ""
    return f"{drive.target} ({drive.source.path or 'empty'}{where})"


def _nic(nic: Interface) -> str:
    cable = "" if nic.link_up else ", its link is down"
    return f"{nic.mac or 'without address'} (network {nic.network or 'none'}{cable})"
