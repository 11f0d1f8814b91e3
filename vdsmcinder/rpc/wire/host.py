# SPDX-License-Identifier: GPL-2.0-or-later
"""A sample of the host as the wire's HostStats (contract/types.txt)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from vdsmcinder.ceph.cluster_monitor import ClusterState
from vdsmcinder.host.counters import Nic, NodeMemory
from vdsmcinder.host.stats import CpuShare, HostSample
from vdsmcinder.rpc.wire import ceph
from vdsmcinder.virt.vm.status import Status
from vdsmcinder.virt.vm.vm import VM

# Engines reckon a NIC's load by its speed, so there has to be one.
_DEFAULT_SPEED_MBPS = 1000


def host_stats(
    sample: HostSample, vms: Sequence[VM], clusters: Collection[ClusterState]
) -> dict[str, Any]:
    """The sample, the counts of VMs and the state of Ceph clusters as HostStats."""
    return {
        **_cpu(sample),
        **_memory(sample),
        **_vm_counts(vms),
        **_absent(),
        "storageDomains": ceph.vitals(clusters),
        "cephClusters": ceph.clusters(clusters),
        "network": {name: _nic(nic, sample) for name, nic in sample.nics.items()},
        "rxDropped": str(sum(nic.rx_dropped for nic in sample.nics.values())),
        "txDropped": str(sum(nic.tx_dropped for nic in sample.nics.values())),
        "diskStats": {path: {"free": str(free)} for path, free in sample.free_mib.items()},
        "elapsedTime": str(int(sample.elapsed_s)),
        "bootTime": str(sample.boot_time_s),
        "dateTime": time.strftime("%Y-%m-%dT%H:%M:%S GMT", time.gmtime(sample.taken_at)),
    }


def _cpu(sample: HostSample) -> dict[str, Any]:
    return {
        **_share(sample.cpu),
        "cpuLoad": _decimal(sample.load_1min),
        "cpuUserVdsmd": _decimal(sample.daemon_user_pct),
        "cpuSysVdsmd": _decimal(sample.daemon_sys_pct),
        "cpuStatistics": {
            str(core): {**_share(share), "nodeIndex": sample.core_node.get(core, 0)}
            for core, share in sample.cores.items()
        },
    }


def _share(share: CpuShare) -> dict[str, str]:
    return {
        "cpuUser": _decimal(share.user_pct),
        "cpuSys": _decimal(share.sys_pct),
        "cpuIdle": _decimal(share.idle_pct),
    }


def _memory(sample: HostSample) -> dict[str, Any]:
    memory, ksm = sample.memory, sample.ksm
    return {
        "memUsed": str(round(memory.used_pct)),
        "memFree": memory.available_kib // 1024,
        "memShared": memory.shared_kib // 1024,
        "swapTotal": memory.swap_total_kib // 1024,
        "swapFree": memory.swap_free_kib // 1024,
        "anonHugePages": str(memory.anon_huge_kib // 1024),
        "thpState": sample.thp,
        "ksmState": ksm.running,
        "ksmPages": ksm.pages_sharing,
        "ksmMergeAcrossNodes": ksm.merge_across_nodes,
        "ksmCpu": round(sample.ksm_cpu_pct),
        # Without it oVirt's engine does not reckon how much of the memory is taken.
        "hugepages": {
            str(size): {
                "nr_hugepages": pages.total,
                "free_hugepages": pages.free,
                "vm.free_hugepages": pages.free,
            }
            for size, pages in sample.huge_pages.items()
        },
        "numaNodeMemFree": {str(n): _node(node) for n, node in sample.nodes.items()},
    }


def _node(node: NodeMemory) -> dict[str, Any]:
    return {
        "memFree": str(node.free_kib // 1024),
        "memPercent": round(node.used_pct),
        "hugepages": {
            str(size): {"freePages": str(free)} for size, free in node.free_huge_pages.items()
        },
    }


def _nic(nic: Nic, sample: HostSample) -> dict[str, Any]:
    return {
        "name": nic.name,
        "state": nic.state,
        "speed": str(nic.speed_mbps or _DEFAULT_SPEED_MBPS),
        "rx": str(nic.rx_bytes),
        "rxErrors": str(nic.rx_errors),
        "rxDropped": str(nic.rx_dropped),
        "tx": str(nic.tx_bytes),
        "txErrors": str(nic.tx_errors),
        "txDropped": str(nic.tx_dropped),
        "sampleTime": sample.taken_ms / 1000,
    }


def _vm_counts(vms: Sequence[VM]) -> dict[str, int]:
    by_status = Counter(vm.status for vm in vms)
    incoming = by_status[Status.MIGRATION_DESTINATION]
    outgoing = by_status[Status.MIGRATION_SOURCE]
    return {
        "vmCount": len(vms),
        "vmActive": by_status[Status.UP],
        "vmMigrating": incoming + outgoing,
        "incomingVmMigrations": incoming,
        "outgoingVmMigrations": outgoing,
    }


def _absent() -> dict[str, Any]:
    """What engines ask of every host and this daemon has no part in."""
    return {
        "momStatus": "inactive",
        "netConfigDirty": "False",
        "haStats": {
            "configured": False,
            "active": False,
            "score": 0,
            "globalMaintenance": False,
            "localMaintenance": False,
        },
    }


def _decimal(number: float) -> str:
    return f"{number:.2f}"
