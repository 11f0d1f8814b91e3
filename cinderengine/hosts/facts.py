# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host tells of itself, read once from its answers; kept in memory alone.

What it leaves out, or writes in a way that cannot be read, is None or empty: a host that tells less
is no reason for a fault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MIB = 1024 * 1024

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Version:
    """Of a package; release: what the distribution added to it, may be empty."""

    version: str
    release: str

    def __str__(self) -> str:
        return f"{self.version}-{self.release}" if self.release else self.version


@dataclass(frozen=True)
class Capabilities:
    """Host.getCapabilities. cpu_speed_mhz and sizes: None if unknown.

    engines: the versions of engines that it works with. overhead_bytes: of memory, for each VM.
    """

    hardware_id: str = ""
    boot_id: str = ""
    os_name: str = ""
    os_version: str = ""
    os_release: str = ""
    kernel_arguments: str = ""
    packages: Mapping[str, Version] = field(default_factory=dict)
    engines: tuple[str, ...] = ()
    cluster_levels: tuple[str, ...] = ()
    cpu_model: str = ""
    cpu_flags: frozenset[str] = frozenset()
    cpu_speed_mhz: float | None = None
    sockets: int | None = None
    cores: int | None = None
    threads: int | None = None
    online_cpus: int | None = None
    memory_bytes: int | None = None
    reserved_bytes: int | None = None
    overhead_bytes: int | None = None
    has_virtualization: bool = False
    iscsi_initiator: str = ""
    selinux: str = ""

    @classmethod
    def read(cls, raw: Raw) -> Capabilities:
        """From the answer."""
        system = _map(raw.get("operatingSystem"))
        online = _text(raw.get("onlineCpus"))
        return cls(
            hardware_id=_text(raw.get("uuid")),
            boot_id=_text(raw.get("boot_uuid")),
            os_name=_text(system.get("name")),
            os_version=_text(system.get("version")),
            os_release=_text(system.get("release")),
            kernel_arguments=_text(raw.get("kernelArgs")),
            packages={
                name: Version(_text(_map(of).get("version")), _text(_map(of).get("release")))
                for name, of in _map(raw.get("packages2")).items()
            },
            engines=_texts(raw.get("supportedENGINEs")),
            cluster_levels=_texts(raw.get("clusterLevels")),
            cpu_model=_text(raw.get("cpuModel")),
            cpu_flags=frozenset(filter(None, _text(raw.get("cpuFlags")).split(","))),
            cpu_speed_mhz=_number(raw.get("cpuSpeed")),
            sockets=_whole(raw.get("cpuSockets")),
            cores=_whole(raw.get("cpuCores")),
            threads=_whole(raw.get("cpuThreads")),
            online_cpus=len(online.split(",")) if online else None,
            memory_bytes=_mib(raw.get("memSize")),
            reserved_bytes=_mib(raw.get("reservedMem")),
            overhead_bytes=_mib(raw.get("guestOverhead")),
            has_virtualization=_text(raw.get("kvmEnabled")).lower() == "true",
            iscsi_initiator=_text(raw.get("ISCSIInitiatorName")),
            selinux=_text(_map(raw.get("selinux")).get("mode")),
        )


@dataclass(frozen=True)
class Cluster:
    """A Ceph cluster that VMs of the host use. reason: why it cannot be reached, or empty."""

    fsid: str
    user: str
    is_reachable: bool
    health: str
    reason: str


@dataclass(frozen=True)
class Statistics:
    """Host.getStats. Of processors: percent in the last interval. booted_s: since the epoch."""

    cpu_user: float | None = None
    cpu_system: float | None = None
    cpu_idle: float | None = None
    cpu_load: float | None = None
    memory_used_percent: int | None = None
    memory_free_bytes: int | None = None
    memory_shared_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    ksm_cpu: float | None = None
    booted_s: int | None = None
    vms: int | None = None
    active_vms: int | None = None
    migrating_vms: int | None = None
    incoming_migrations: int | None = None
    outgoing_migrations: int | None = None
    clusters: tuple[Cluster, ...] = ()

    @classmethod
    def read(cls, raw: Raw) -> Statistics:
        """From the answer."""
        return cls(
            cpu_user=_number(raw.get("cpuUser")),
            cpu_system=_number(raw.get("cpuSys")),
            cpu_idle=_number(raw.get("cpuIdle")),
            cpu_load=_number(raw.get("cpuLoad")),
            memory_used_percent=_whole(raw.get("memUsed")),
            memory_free_bytes=_mib(raw.get("memFree")),
            memory_shared_bytes=_mib(raw.get("memShared")),
            swap_total_bytes=_mib(raw.get("swapTotal")),
            swap_free_bytes=_mib(raw.get("swapFree")),
            ksm_cpu=_number(raw.get("ksmCpu")),
            booted_s=_whole(raw.get("bootTime")),
            vms=_whole(raw.get("vmCount")),
            active_vms=_whole(raw.get("vmActive")),
            migrating_vms=_whole(raw.get("vmMigrating")),
            incoming_migrations=_whole(raw.get("incomingVmMigrations")),
            outgoing_migrations=_whole(raw.get("outgoingVmMigrations")),
            clusters=tuple(map(_cluster, _list(raw.get("cephClusters")))),
        )


@dataclass(frozen=True)
class HostFacts:
    """All that is known of a host from itself. heard_ms: when it last said something, 0 if never.

    is_connected: whether a session stands; if not, the rest is what it told before. vms: the status
    of each VM there, in the host's words, by id.
    """

    host_id: str
    is_connected: bool = False
    heard_ms: int = 0
    capabilities: Capabilities = Capabilities()
    statistics: Statistics = Statistics()
    vms: Mapping[str, str] = field(default_factory=dict)


def _cluster(raw: Any) -> Cluster:
    of = _map(raw)
    return Cluster(
        fsid=_text(of.get("fsid")),
        user=_text(of.get("user")),
        is_reachable=of.get("reachable") is True,
        health=_text(of.get("health")),
        reason=_text(of.get("reason")),
    )


def _map(raw: Any) -> Raw:
    return raw if isinstance(raw, Mapping) else {}


def _list(raw: Any) -> list[Any]:
    return raw if isinstance(raw, list) else []


def _texts(raw: Any) -> tuple[str, ...]:
    return tuple(map(_text, _list(raw)))


def _text(raw: Any) -> str:
    return "" if raw is None or isinstance(raw, Mapping | list) else str(raw)


def _number(raw: Any) -> float | None:
    """A decimal number; hosts write many of them as text."""
    text = _text(raw).strip()
    return float(text) if re.fullmatch(r"-?\d{1,15}(\.\d{1,15})?", text) else None


def _whole(raw: Any) -> int | None:
    number = _number(raw)
    return None if number is None else int(number)


def _mib(raw: Any) -> int | None:
    number = _whole(raw)
    return None if number is None else number * MIB
