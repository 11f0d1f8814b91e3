# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host is and can do, in the shape that engines ask for when they activate it.

Host.getCapabilities and Host.getHardwareInfo.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import Any

import libvirt

import vdsmcinder
from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.host import counters, cpu, hypervisor, machine, netinfo, network, numa
from vdsmcinder.host.cpu import Processors
from vdsmcinder.host.files import text
from vdsmcinder.host.hypervisor import Hypervisor
from vdsmcinder.host.network import Network
from vdsmcinder.host.packages import Packages
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.tasks import Tasks

log = logging.getLogger(__name__)

CLUSTER_LEVELS = ["4.2", "4.3", "4.4", "4.5", "4.6", "4.7"]
ENGINE_VERSIONS = ["4.2", "4.3", "4.4", "4.5"]

# What the host and the processes around a VM need for themselves, MiB.
HOST_RESERVE_MIB = 256
VM_OVERHEAD_MIB = 65


class Capabilities:
    """Answers what this host can do; what is costly to find out is found out once.

    allow_emulation: VMs of type kvm are run under emulation, so the host says that it can run them.
    """

    def __init__(self, conn: Connection, tasks: Tasks, allow_emulation: bool = False) -> None:
        self._conn = conn
        self._tasks = tasks
        self._allow_emulation = allow_emulation
        self._packages = Packages()
        self._hypervisor: Hypervisor | None = None
        self._asked: libvirt.virConnect | None = None
        self._finding_out: asyncio.Future[dict[str, Any]] | None = None

    async def get(self) -> dict[str, Any]:
        """The host as VdsmCapabilities (contract/types.txt), as it stands now.

        Whoever asks while it is being found out gets the same answer. While libvirt cannot be
        reached, its last answer counts; ResourceUnavailable if there is none yet, or if the kernel
        does not tell the host's addresses.
        """
        if self._finding_out is None:
            self._finding_out = self._tasks.begin(self._find_out(), "find out")
            self._finding_out.add_done_callback(self._found_out)
        # Whoever gives up does so for himself alone.
        return await asyncio.shield(self._finding_out)

    def _found_out(self, _: asyncio.Future[dict[str, Any]]) -> None:
        self._finding_out = None

    async def _find_out(self) -> dict[str, Any]:
        known = await self._ask_libvirt()
        try:
            return await asyncio.to_thread(self._build, known)
        except OSError as e:
            raise ResourceUnavailable(
                f"the host's capabilities could not be read: {e}; ask again"
            ) from e

    async def hardware(self) -> dict[str, str]:
        """The host as HardwareInformation: what its firmware says, without what it leaves out."""
        found = await asyncio.to_thread(machine.hardware)
        fields = {
            "systemManufacturer": found.manufacturer,
            "systemProductName": found.product,
            "systemVersion": found.version,
            "systemFamily": found.family,
            "systemSerialNumber": found.serial,
            "systemUUID": found.uuid,
        }
        return {name: value for name, value in fields.items() if value}

    async def _ask_libvirt(self) -> Hypervisor:
        """libvirt's answer, asked anew on each new connection: QEMU may have been upgraded."""
        try:
            handle = self._conn.handle
            if self._hypervisor is None or self._asked is not handle:
                self._hypervisor = await self._conn.call(hypervisor.fetch, handle)
                self._asked = handle
        except (ResourceUnavailable, libvirt.libvirtError) as e:
            if self._hypervisor is None:
                raise _unavailable(e) from e
            log.warning("libvirt's last known capabilities are reported: %s", e)
        return self._hypervisor

    def _build(self, known: Hypervisor) -> dict[str, Any]:
        """Everything, read from files where libvirt did not tell; runs in a thread."""
        net = network.read()
        return {
            **_identity(known),
            **_software(self._packages),
            **_features(),
            **_processors(cpu.processors(), known),
            **_memory(),
            **netinfo.as_dict(net),
            "kvmEnabled": _word(known.kvm or self._allow_emulation),
            "emulatedMachines": list(known.machines),
            "tscFrequency": known.tsc_hz or "",
            "tscScaling": known.tsc_scaling,
            "connector_info": _connector(net),
        }


def _unavailable(error: Exception) -> ResourceUnavailable:
    if isinstance(error, ResourceUnavailable):
        return error
    return ResourceUnavailable(
        f"libvirt did not tell what it can run: {error}; see libvirtd's log, then ask again"
    )


def _identity(known: Hypervisor) -> dict[str, Any]:
    os_ = machine.operating_system()
    return {
        "uuid": machine.host_uuid(known.host_uuid),
        "boot_uuid": machine.boot_uuid(),
        "operatingSystem": {
            "name": os_.name,
            "version": os_.version,
            "release": os_.release,
            "pretty_name": os_.pretty_name,
        },
        "kernelArgs": text(Path("/proc/cmdline")),
        "realtimeKernel": machine.realtime_kernel(),
    }


def _software(packages: Packages) -> dict[str, Any]:
    versions = packages.versions()
    return {
        "packages2": {
            name: {"version": found.version, "release": found.release}
            for name, found in versions.items()
        },
        "software_version": vdsmcinder.__version__,
        "software_revision": "1",
        "version_name": "vdsm-cinder",
        "clusterLevels": CLUSTER_LEVELS,
        "supportedENGINEs": ENGINE_VERSIONS,
        "additionalFeatures": [],
        "hooks": {},
    }


def _features() -> dict[str, Any]:
    initiator = machine.iscsi_initiator()
    return {
        "vmTypes": ["kvm"],
        "rngSources": machine.rng_sources(),
        "nestedVirtualization": machine.nested_virtualization(),
        "hostdevPassthrough": _word(machine.iommu()),
        "kdumpStatus": machine.kdump_status(),
        "selinux": {"mode": machine.selinux_mode()},
        "fipsEnabled": text(Path("/proc/sys/crypto/fips_enabled")) == "1",
        "vncEncrypted": _word(machine.vnc_encrypted()),
        "ISCSIInitiatorName": initiator,
        "HBAInventory": {
            "FC": _fc_hbas(),
            "iSCSI": [{"InitiatorName": initiator}] if initiator else [],
        },
        "liveSnapshot": "false",
        "liveMerge": "false",
        "backupEnabled": False,
        "hostedEngineDeployed": False,
        "ovnConfigured": False,
        "zerocopy_migrations": False,
    }


def _processors(found: Processors, known: Hypervisor) -> dict[str, Any]:
    # Engines look for the CPU models that VMs can have among the flags, with a prefix.
    models = [f"model_{model}" for model in known.cpu_models]
    return {
        "cpuModel": found.model,
        "cpuSpeed": found.speed_mhz,
        "cpuFlags": ",".join(dict.fromkeys([*found.flags, *known.cpu_features, *models])),
        "cpuSockets": str(found.sockets),
        "cpuCores": str(found.cores),
        "cpuThreads": str(found.threads),
        "onlineCpus": ",".join(str(n) for n in found.online),
        "cpuTopology": [
            {
                "cpu_id": one.cpu,
                "numa_cell_id": one.node,
                "socket_id": one.socket,
                "die_id": one.die,
                "core_id": one.core,
            }
            for one in found.topology
        ],
        "vdsmToCpusAffinity": machine.pinned_cpus(),
    }


def _memory() -> dict[str, Any]:
    nodes = numa.nodes()
    total_kib = counters.parse_meminfo(text(Path("/proc/meminfo"))).total_kib
    return {
        "memSize": str(total_kib // 1024),
        "reservedMem": str(HOST_RESERVE_MIB + VM_OVERHEAD_MIB),
        "guestOverhead": str(VM_OVERHEAD_MIB),
        "hugepages": numa.huge_page_sizes(),
        "numaNodes": {
            str(n): {
                "cpus": list(node.cpus),
                "totalMemory": str(node.memory_mib),
                "hugepages": {
                    str(size): {"totalPages": str(pages)} for size, pages in node.huge_pages.items()
                },
            }
            for n, node in nodes.items()
        },
        "numaNodeDistance": {str(n): list(node.distances) for n, node in nodes.items()},
        "autoNumaBalancing": numa.balancing(),
    }


def _fc_hbas() -> list[dict[str, str]]:
    return [
        {
            "model": text(host / "symbolic_name"),
            "wwpn": text(host / "port_name").removeprefix("0x"),
            "wwnn": text(host / "node_name").removeprefix("0x"),
        }
        for host in sorted(Path("/sys/class/fc_host").glob("*"))
    ]


def _connector(net: Network) -> dict[str, Any]:
    """What Cinder asks of a host that a volume is exported to (os-brick's connector)."""
    return {
        "initiator": machine.iscsi_initiator(),
        "ip": netinfo.main_address(net),
        "platform": os.uname().machine,
        "os_type": "linux",
        "do_local_attach": False,
        "host": socket.gethostname(),
        "multipath": False,
    }


def _word(value: bool) -> str:
    return "true" if value else "false"
