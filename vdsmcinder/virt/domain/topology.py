# SPDX-License-Identifier: GPL-2.0-or-later
"""How a VM's virtual CPUs are arranged."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from vdsmcinder.fields import Fields, number
from vdsmcinder.hypervisor.xmldoc import child_attribute

COUNT = number(1, 8192)


@dataclass(frozen=True)
class Topology:
    """Sockets, cores of each socket, threads of each core."""

    sockets: int
    cores: int = 1
    threads: int = 1

    def write(self, cpu: etree._Element) -> None:
        """Append <topology>."""
        parts = {"sockets": self.sockets, "cores": self.cores, "threads": self.threads}
        etree.SubElement(cpu, "topology", {name: str(value) for name, value in parts.items()})

    @classmethod
    def read(cls, domain: etree._Element, vcpus: int, thing: str) -> Topology:
        """Read it from <domain>; without one, each of the vcpus is a socket."""
        cpu = domain.find("cpu")
        names = ("sockets", "dies", "cores", "threads")
        found = {} if cpu is None else {n: child_attribute(cpu, "topology", n) for n in names}
        values = Fields(found, thing, "cpu.topology")
        sockets = values.get("sockets", COUNT)
        if sockets is None:
            return cls(vcpus)
        # Engines know no dies: their cores are counted with the socket's.
        cores = (values.get("dies", COUNT) or 1) * (values.get("cores", COUNT) or 1)
        return cls(sockets, cores, values.get("threads", COUNT) or 1)
