# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's NUMA nodes: their processors, memory, huge pages and distances, from sysfs.

It is what an engine pins VMs by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vdsmcinder.host.files import cpu_list, key_values, number, numbered, text


@dataclass(frozen=True)
class Node:
    """One NUMA node; distances to all nodes in their order, 10 is the node itself (ACPI SLIT)."""

    cpus: tuple[int, ...]
    memory_mib: int
    huge_pages: Mapping[int, int]  # how many there are, by size in KiB
    distances: tuple[int, ...]


def nodes(sys: Path = Path("/sys")) -> dict[int, Node]:
    """All nodes by number; none where the kernel is built without NUMA."""
    return {n: _node(path) for n, path in numbered(sys / "devices/system/node", "node")}


def cpus_of_nodes(sys: Path = Path("/sys")) -> dict[int, list[int]]:
    """The logical processors of each node."""
    return {
        n: cpu_list(text(path / "cpulist"))
        for n, path in numbered(sys / "devices/system/node", "node")
    }


def huge_page_pools(folder: Path) -> list[tuple[int, Path]]:
    """The pools in a folder of sysfs: page size in KiB, and the pool's own folder."""
    pools = (folder / "hugepages").glob("hugepages-*kB")
    return sorted((int(pool.name[len("hugepages-") : -len("kB")]), pool) for pool in pools)


def huge_page_sizes(sys: Path = Path("/sys")) -> list[int]:
    """Sizes of the huge pages that this kernel can make, in KiB."""
    return [size for size, _ in huge_page_pools(sys / "kernel/mm")]


def balancing(proc: Path = Path("/proc")) -> int:
    """Automatic NUMA balancing as engines number it: 0 off, 1 on, 2 unknown."""
    path = proc / "sys/kernel/numa_balancing"
    # Later kernels write 2 (tiering) and 3 (both), which are forms of on.
    return min(number(path), 1) if path.exists() else 2


def _node(path: Path) -> Node:
    meminfo = key_values(text(path / "meminfo"), ":")
    total = next((v for k, v in meminfo.items() if k.endswith("MemTotal")), "0 kB")
    return Node(
        cpus=tuple(cpu_list(text(path / "cpulist"))),
        memory_mib=int(total.split()[0]) // 1024,
        huge_pages={size: number(pool / "nr_hugepages") for size, pool in huge_page_pools(path)},
        distances=tuple(int(word) for word in text(path / "distance").split()),
    )
