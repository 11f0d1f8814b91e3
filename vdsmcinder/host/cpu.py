# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine's processors: model, flags and how they are arranged, from /proc and sysfs.

What libvirt can make of them for VMs is in host/hypervisor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vdsmcinder.host.files import cpu_list, number, numbered, text
from vdsmcinder.host.numa import cpus_of_nodes


@dataclass(frozen=True)
class LogicalCpu:
    """One logical processor and where it sits; die is 0 where the machine has no dies."""

    cpu: int
    node: int
    socket: int
    die: int
    core: int


@dataclass(frozen=True)
class Processors:
    """All online processors of the machine."""

    model: str
    speed_mhz: str  # as the kernel writes it, with decimals; '0' where it does not tell
    flags: tuple[str, ...]
    online: tuple[int, ...]
    topology: tuple[LogicalCpu, ...]

    @property
    def sockets(self) -> int:
        """Number of sockets in use."""
        return len({cpu.socket for cpu in self.topology})

    @property
    def cores(self) -> int:
        """Number of cores in all sockets; a core may run several threads."""
        return len({(cpu.socket, cpu.die, cpu.core) for cpu in self.topology})

    @property
    def threads(self) -> int:
        """Number of logical processors."""
        return len(self.topology)


def processors(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Processors:
    """Read the processors; blocks for about a millisecond per ten of them."""
    info = _first_processor(text(proc / "cpuinfo"))
    online = cpu_list(text(sys / "devices/system/cpu/online"))
    return Processors(
        model=info.get("model name") or info.get("cpu") or "unknown",
        speed_mhz=info.get("cpu MHz") or info.get("clock", "0").removesuffix("MHz"),
        flags=tuple((info.get("flags") or info.get("Features", "")).split()),
        online=tuple(online),
        topology=_topology(set(online), sys),
    )


def _topology(online: set[int], sys: Path) -> tuple[LogicalCpu, ...]:
    node_of = {cpu: node for node, cpus in cpus_of_nodes(sys).items() for cpu in cpus}
    return tuple(
        LogicalCpu(
            cpu=n,
            node=node_of.get(n, 0),
            socket=max(number(path / "topology/physical_package_id"), 0),
            die=max(number(path / "topology/die_id"), 0),
            core=number(path / "topology/core_id", n),
        )
        for n, path in numbered(sys / "devices/system/cpu", "cpu")
        if n in online
    )


def _first_processor(cpuinfo: str) -> dict[str, str]:
    """/proc/cpuinfo up to the first blank line: what one processor says of itself."""
    info = {}
    for line in cpuinfo.partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        info[name.strip()] = value.strip()
    return info
