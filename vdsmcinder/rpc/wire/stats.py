# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's statistics as the wire's RunningVmStats and ExitedVmStats (contract/types.txt).

All figures are from the VM's last sample.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from vdsmcinder.rpc import envelope
from vdsmcinder.rpc.wire import common, iotune
from vdsmcinder.rpc.wire.clock import monotonic_ms
from vdsmcinder.rpc.wire.listing import Listings
from vdsmcinder.uuids import is_uuid
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.domain.domain_devices import Interface
from vdsmcinder.virt.domain.policy import CpuLimit
from vdsmcinder.virt.domain.stats import DiskSample, MemorySample, NicSample, VmSample
from vdsmcinder.virt.vm.status import PauseCode, Status
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# A virtual NIC has no speed of its own; engines reckon its load by this one.
_NIC_SPEED_MBPS = "1000"

# What only a guest agent of oVirt's could tell, in the words for 'unknown'.
_GUEST_UNKNOWN = {
    "guestCPUCount": -1,
    "guestFQDN": "",
    "guestIPs": "",
    "session": "Unknown",
    "username": "Unknown",
}


def vm_stats(vm: VM) -> dict[str, Any]:
    """The VM as VmStats: ExitedVmStats if it is Down, else RunningVmStats."""
    return _exited(vm) if vm.status is Status.DOWN else _running(vm)


class EncodedStats:
    """Statistics of all VMs as JSON; what has not changed since they were asked for is kept."""

    def __init__(self, listings: Listings) -> None:
        self._listings = listings
        self._written: dict[str, _Written] = {}

    def prepare(self, vm: VM) -> None:
        """Write what has changed in a VM's statistics; after each sample, so that of() is quick."""
        if vm.status is not Status.DOWN:
            self._lasting(vm)

    async def of(self, vms: Sequence[VM]) -> envelope.Written:
        """The list of vm_stats() of each; vms are all that there are. Raises OutOfResources."""
        written = await self._listings.array(vms, self._one)
        for vm_id in self._written.keys() - {vm.id for vm in vms}:
            del self._written[vm_id]
        return written

    def _one(self, vm: VM) -> bytes:
        try:
            return self._encoded(vm)
        except Exception:
            # What cannot be told of one keeps nobody from the others.
            log.exception("statistics of %s cannot be told", vm.name)
            return envelope.encode(_exited(vm))

    def _encoded(self, vm: VM) -> bytes:
        if vm.status is Status.DOWN:
            return envelope.encode(_exited(vm))
        return b'{"statusTime":"%d",%b' % (monotonic_ms(), self._lasting(vm)[1:])

    def _lasting(self, vm: VM) -> bytes:
        """All but statusTime."""
        state = _state(vm)
        known = self._written.get(vm.id)
        if known is None or known.domain is not vm.domain or known.sample is not vm.sample:
            figures = envelope.encode(_figures(vm.domain, vm.sample))
        elif known.state != state:
            figures = known.figures
        else:
            return known.whole
        whole = b"%b,%b" % (envelope.encode(state)[:-1], figures[1:])
        self._written[vm.id] = _Written(vm.domain, vm.sample, state, figures, whole)
        return whole


class _Written(NamedTuple):
    """What was written of a running VM, and what it was made of: figures of domain and sample."""

    domain: Domain
    sample: VmSample | None
    state: dict[str, Any]
    figures: bytes
    whole: bytes


def _exited(vm: VM) -> dict[str, Any]:
    return {**_now(), "vmId": vm.id, "timeOffset": vm.domain.time_offset_s, **common.state(vm)}


def _now() -> dict[str, Any]:
    """Engines order what they hear of a VM by it, and ignore what has none."""
    return {"statusTime": str(monotonic_ms())}


def _running(vm: VM) -> dict[str, Any]:
    now = _now()
    return {**now, **_state(vm), **_figures(vm.domain, vm.sample)}


def _state(vm: VM) -> dict[str, Any]:
    """What may be different each time."""
    domain, sample = vm.domain, vm.sample
    return {
        "vmId": vm.id,
        "vmName": vm.name,
        "vmType": "kvm",
        "status": vm.status.value,
        "pauseCode": (vm.pause_code or PauseCode.NOERR).value,
        **({"failedDisks": vm.failed_disks} if vm.failed_disks else {}),
        **_migration(vm),
        "hash": vm.hash,
        "pid": str(vm.pid),
        "elapsedTime": str(vm.elapsed_s),
        "monitorResponse": "0" if vm.monitor_responsive else "-1",
        "kvmEnable": _boolean(domain.hypervisor == "kvm"),
        "acpiEnable": _boolean(domain.acpi),
        "timeOffset": str(domain.time_offset_s),
        "clientIp": "",
        "cpuActual": sample is not None,
        **_GUEST_UNKNOWN,
        **_balloon(vm, sample),
        "ioTune": [t for t in iotune.values(vm) if any(t["ioTune"].values())],
    }


def _migration(vm: VM) -> dict[str, Any]:
    """How far it is on its way to another host."""
    if vm.migration is None or vm.status is not Status.MIGRATION_SOURCE:
        return {}
    return {"migrationProgress": vm.migration.progress.percent}


def _figures(domain: Domain, sample: VmSample | None) -> dict[str, Any]:
    """What changes with the domain and the sample alone, and is most of it."""
    return {
        **_display(domain),
        **_usage(sample),
        **_cpu_limit(domain.cpu_limit),
        "disks": _disks(domain, sample),
        "network": _network(domain, sample),
    }


def _balloon(vm: VM, sample: VmSample | None) -> dict[str, Any]:
    # oVirt's engine takes a VM of which this is told for one with a balloon.
    if sample is None or not vm.domain.balloon:
        return {}
    return {
        "balloonInfo": {
            "balloon_cur": str(sample.balloon_current_kib),
            "balloon_max": str(sample.balloon_max_kib),
            "balloon_min": str((vm.domain.metadata.min_guaranteed_mib or 0) * 1024),
            "balloon_target": str(vm.balloon_target_kib or sample.balloon_current_kib),
        }
    }


def _usage(sample: VmSample | None) -> dict[str, Any]:
    if sample is None:
        return {"cpuUser": "0.00", "cpuSys": "0.00", "memUsage": "0"}
    fields: dict[str, Any] = {
        "cpuUser": _decimal(sample.cpu_user_pct),
        "cpuSys": _decimal(sample.cpu_sys_pct),
        "cpuUsage": str(sample.cpu_time_ns),
        "vcpuCount": str(sample.vcpu_count),
        "memUsage": "0",
    }
    if sample.memory is not None:
        fields["memUsage"] = str(_used_pct(sample.memory))
        fields["memoryStats"] = _memory(sample.memory)
    return fields


def _cpu_limit(limit: CpuLimit) -> dict[str, Any]:
    """What the policy allows, and the quota that is in force."""
    fields = {
        "vcpuUserLimit": limit.limit_pct,
        "vcpuPeriod": limit.period_us,
        "vcpuQuota": None if limit.quota_us is None else str(limit.quota_us),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _free_kib(memory: MemorySample) -> int:
    # Older guests do not tell what is available; caches then count as used.
    return memory.available or memory.unused


def _used_pct(memory: MemorySample) -> int:
    return 100 - 100 * _free_kib(memory) // memory.total if memory.total else 0


def _memory(memory: MemorySample) -> dict[str, Any]:
    return {
        "mem_total": str(memory.total),
        "mem_free": str(_free_kib(memory)),
        "mem_unused": str(memory.unused),
        "mem_cached": str(memory.cached),
        "swap_in": memory.swap_in,
        "swap_out": memory.swap_out,
        "majflt": memory.major_faults,
        "minflt": memory.minor_faults,
        "pageflt": memory.major_faults + memory.minor_faults,
    }


def _disks(domain: Domain, sample: VmSample | None) -> dict[str, Any]:
    sampled = sample.disks if sample else {}
    disks = {
        target: _disk(sampled.get(target, common.NOT_SAMPLED)) for target in sorted(domain.targets)
    }
    for drive in domain.drives:
        # The engine finds its disk by this id, which is the one that it gave the device.
        if is_uuid(drive.device_id):
            disks[drive.target]["imageID"] = drive.device_id
    return disks


def _disk(disk: DiskSample) -> dict[str, Any]:
    return {
        "apparentsize": str(disk.capacity),
        "truesize": str(disk.allocation),
        "readBytes": str(disk.read_bytes),
        "writtenBytes": str(disk.write_bytes),
        "readOps": str(disk.read_ops),
        "writeOps": str(disk.write_ops),
        "readRate": _decimal(disk.read_rate),
        "writeRate": _decimal(disk.write_rate),
        "readLatency": str(disk.read_latency_ns),
        "writeLatency": str(disk.write_latency_ns),
        "flushLatency": str(disk.flush_latency_ns),
        # Those of a VM whose QEMU does not tell are older than others.
        **({"sampleTime": disk.taken_ms / 1000} if disk.taken_ms else {}),
    }


def _network(domain: Domain, sample: VmSample | None) -> dict[str, Any]:
    if sample is None:
        return {}
    return {
        nic.name: _nic(nic, sample.nics[nic.name])
        for nic in domain.interfaces
        if nic.name is not None and nic.name in sample.nics
    }


def _nic(nic: Interface, totals: NicSample) -> dict[str, Any]:
    return {
        "name": nic.name,
        "macAddr": nic.mac or "",
        "state": "up" if nic.link_up else "down",
        "speed": _NIC_SPEED_MBPS,
        "rx": str(totals.rx_bytes),
        "rxErrors": str(totals.rx_errors),
        "rxDropped": str(totals.rx_dropped),
        "tx": str(totals.tx_bytes),
        "txErrors": str(totals.tx_errors),
        "txDropped": str(totals.tx_dropped),
        "sampleTime": totals.taken_ms / 1000,
    }


def _display(domain: Domain) -> dict[str, Any]:
    graphics = [
        {
            "type": g.type,
            "port": _port(g.port),
            "tlsPort": _port(g.tls_port),
            "ipAddress": g.listen or "0",
        }
        for g in common.known_graphics(domain)
    ]
    if not graphics:
        return {"displayInfo": [], "displayPort": _port(None)}
    first = graphics[0]
    return {
        "displayInfo": graphics,
        "displayType": common.DISPLAY_TYPES[first["type"]],
        "displayIp": first["ipAddress"],
        "displayPort": first["port"],
        "displaySecurePort": first["tlsPort"],
    }


def _port(port: int | None) -> str:
    return str(port or -1)


def _decimal(number: float) -> str:
    return f"{number:.2f}"


def _boolean(value: bool) -> str:
    return "true" if value else "false"
