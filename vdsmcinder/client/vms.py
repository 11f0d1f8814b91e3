# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's VMs and their disks as the operator's tables show them, from the daemon's answers.

Also finds the VM that an operator names by something shorter than its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vdsmcinder.client.exit_codes import CommandFailed
from vdsmcinder.client.session import Session

SHORT_ID = 8


@dataclass(frozen=True)
class VmSummary:
    """One VM in a line. Rates are of all its disks together; None is 'not known', as of a VM that
    is Down. The names of fields are those of --json."""

    id: str
    name: str
    status: str
    pause_code: str | None
    migration_pct: int | None  # how far it is on its way to another host
    exit_message: str | None
    vcpus: int
    cpu_pct: float | None  # of one processor: up to 100 for each of vcpus
    memory_mib: int
    memory_used_pct: float | None
    disks: int
    read_bytes_per_s: float | None
    write_bytes_per_s: float | None
    uptime_s: int | None


@dataclass(frozen=True)
class DiskSummary:
    """One disk of a VM in a line. latencies are means per operation in the last interval."""

    target: str
    device: str
    source: str
    monitors: list[str]
    readonly: bool
    size_bytes: int | None
    read_bytes_per_s: float | None
    write_bytes_per_s: float | None
    read_latency_ns: float | None
    write_latency_ns: float | None


def summaries(session: Session) -> list[VmSummary]:
    """All VMs of the host, by name."""
    definitions = session.call("Host.getVMList", {"fullStatus": True})
    stats = {s["vmId"]: s for s in session.call("Host.getAllVmStats", {})}
    found = [_summary(d, stats.get(d["vmId"], {})) for d in definitions]
    return sorted(found, key=lambda vm: (vm.name, vm.id))


def disks(session: Session, vm_id: str) -> list[DiskSummary]:
    """The disks of one VM, by target."""
    definition = session.call("VM.getInfo", {"vmID": vm_id})
    (stats,) = session.call("VM.getStats", {"vmID": vm_id})
    rates = stats.get("disks", {})
    devices = [d for d in definition.get("devices", ()) if d.get("deviceType") == "disk"]
    found = [_disk(device, rates.get(device["name"], {})) for device in devices]
    return sorted(found, key=lambda disk: (len(disk.target), disk.target))


def names(session: Session) -> dict[str, str]:
    """The names of all VMs by id."""
    definitions = session.call("Host.getVMList", {"fullStatus": True})
    return {vm["vmId"]: vm["vmName"] for vm in definitions}


def find(session: Session, wanted: str) -> str:
    """The id of the VM that the operator means: by id, by a beginning of it, or by name.

    Raises CommandFailed if that is none, or more than one.
    """
    known = names(session)
    for matches in (
        [vm_id for vm_id in known if vm_id == wanted.lower()],
        [vm_id for vm_id, name in known.items() if name == wanted],
        [vm_id for vm_id in known if vm_id.startswith(wanted.lower())],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            matching = ", ".join(f"{vm_id} ({known[vm_id]})" for vm_id in sorted(matches))
            raise CommandFailed(f"{wanted} could be any of {matching}; give more of its id")
    raise CommandFailed(
        f"no VM of this host has the name or id {wanted}; vdsm-cinder vms lists them"
    )


def _summary(definition: Mapping[str, Any], stats: Mapping[str, Any]) -> VmSummary:
    rates = stats.get("disks", {}).values()
    devices = definition.get("devices", ())
    status = str(stats.get("status", definition["status"]))
    paused = stats.get("pauseCode") if status == "Paused" else None
    return VmSummary(
        id=definition["vmId"],
        name=definition["vmName"],
        status=status,
        pause_code=paused if paused != "NOERR" else None,
        migration_pct=stats.get("migrationProgress"),
        exit_message=stats.get("exitMessage") or None,
        vcpus=definition["smp"],
        cpu_pct=_total([_number(stats, "cpuUser"), _number(stats, "cpuSys")]),
        memory_mib=definition["memSize"],
        memory_used_pct=_number(stats, "memUsage"),
        disks=sum(1 for d in devices if d.get("device") in ("disk", "lun")),
        read_bytes_per_s=_total([_number(r, "readRate") for r in rates]),
        write_bytes_per_s=_total([_number(r, "writeRate") for r in rates]),
        uptime_s=None if "elapsedTime" not in stats else int(float(stats["elapsedTime"])),
    )


def _disk(device: Mapping[str, Any], rates: Mapping[str, Any]) -> DiskSummary:
    size = int(_number(rates, "apparentsize") or device.get("apparentsize") or 0)
    return DiskSummary(
        target=device["name"],
        device=device["device"],
        source=device.get("path", ""),
        monitors=[_address(host) for host in device.get("hosts", ())],
        readonly=device["readonly"],
        size_bytes=size or None,
        read_bytes_per_s=_number(rates, "readRate"),
        write_bytes_per_s=_number(rates, "writeRate"),
        read_latency_ns=_number(rates, "readLatency"),
        write_latency_ns=_number(rates, "writeLatency"),
    )


def _address(host: Mapping[str, Any]) -> str:
    name = f"[{host['name']}]" if ":" in host["name"] else host["name"]
    return f"{name}:{host['port']}" if host.get("port") else name


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    """A figure that travels as a decimal string."""
    try:
        return float(fields[name])
    except (KeyError, ValueError):
        return None


def _total(parts: list[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
