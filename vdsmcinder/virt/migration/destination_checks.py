# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether this host can run a VM that another host offers: asked before anything moves."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import libvirt
from lxml import etree

from vdsmcinder.errors import MigrationFailed, OutOfMemory
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.hypervisor.xmldoc import child_attribute, parse
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.vm import libvirt_errors

_INCOMPATIBLE = libvirt.VIR_CPU_COMPARE_INCOMPATIBLE
# What QEMU takes beside the memory that the guest sees.
_OVERHEAD_MIB = 128
# Memory that a guest waits for is brought by userfaultfd, which QEMU, not being root, may use if
# this is 1. Kernels that have no such file let everybody.
_USERFAULTFD = Path("/proc/sys/vm/unprivileged_userfaultfd")

_OF_LIBVIRT = "libvirt's network"
# What a NIC is on, by its type, and the attribute of its <source> that names it.
_NETWORKS: Mapping[str, tuple[str, str]] = {
    "bridge": ("bridge", "bridge"),
    "direct": ("device", "dev"),
    "network": (_OF_LIBVIRT, "network"),
}


@dataclass(frozen=True)
class Host:
    """What this host has to offer. available_mib: memory that VMs could be given now."""

    connection: Connection
    secrets: Secrets
    available_mib: Callable[[], int]

    async def check(
        self, domain: Domain, xml: str, announced: Collection[Domain], *, post_copy: bool
    ) -> None:
        """Raise for what this host lacks to run the VM; its disks are virt/storage/preflight.py's.

        announced: VMs that are to come as well and have not got their memory yet. post_copy:
        whether it may come to be moved so, for which only the destination needs anything.
        Raises OutOfMemory (14); MigrationFailed (12), with missingSecrets where those are missing.
        """
        try:
            await self.connection.call(_check_here, self.connection.handle, xml)
        except libvirt.libvirtError as e:
            raise libvirt_errors.explain(
                e,
                f"this host cannot run VM {domain.uuid}",
                MigrationFailed,
                remedy="migrate it to a host that is like its own",
            ) from e
        _check_memory(domain, self.available_mib(), announced)
        if post_copy:
            _check_post_copy(domain)
        missing = await self.secrets.missing(sorted(domain.ceph.secrets, key=str))
        if missing:
            raise MigrationFailed(
                f"VM {domain.uuid} needs secrets that are not registered on this host: "
                f"{', '.join(map(str, missing))}; register them with Host.registerSecrets and "
                "migrate again",
                missingSecrets=[name.uuid for name in missing if name.uuid is not None],
            )


def _check_memory(domain: Domain, available_mib: int, announced: Collection[Domain]) -> None:
    promised = sum(other.memory_mib + _OVERHEAD_MIB for other in announced)
    free = available_mib - promised
    if domain.memory_mib + _OVERHEAD_MIB > free:
        raise OutOfMemory(
            f"VM {domain.uuid} needs {domain.memory_mib} MiB, but this host has "
            f"{max(free, 0)} MiB left; stop other VMs here, or choose another host",
            availableMiB=max(free, 0),
        )


def _check_post_copy(domain: Domain) -> None:
    if _USERFAULTFD.exists() and _USERFAULTFD.read_text().strip() == "0":
        raise MigrationFailed(
            f"this host cannot take VM {domain.uuid} in by post-copy: its sysctl "
            "vm.unprivileged_userfaultfd is 0; set it to 1 in /etc/sysctl.d and by 'sysctl "
            "--system', or migrate without a postcopy step"
        )


# What follows runs in the connection's thread pool.


def _check_here(handle: libvirt.virConnect, xml: str) -> None:
    """Raise libvirt.libvirtError or MigrationFailed for a domain that cannot be run here."""
    root = parse(xml, "domain xml")
    _check_name(handle, root)
    _check_networks(handle, root)
    _check_machine(handle, root)


def _check_name(handle: libvirt.virConnect, root: etree._Element) -> None:
    """libvirt wants names to be as unique as UUIDs are."""
    uuid, name = root.findtext("uuid"), root.findtext("name")
    try:
        other = handle.lookupByName(name).UUIDString()
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
            raise
        return
    if other != uuid:
        raise MigrationFailed(
            f"VM {uuid} cannot come to this host, whose VM {other} has the same name, {name}; "
            "remove or rename one of them",
            vmId=other,
        )


def _check_networks(handle: libvirt.virConnect, root: etree._Element) -> None:
    for nic in root.iterfind("devices/interface"):
        source = nic.find("source")
        where, attribute = _NETWORKS.get(nic.get("type", ""), ("", ""))
        name = None if source is None else source.get(attribute)
        if name and not _is_there(handle, where, name):
            mac = child_attribute(nic, "mac", "address")
            raise MigrationFailed(
                f"VM {root.findtext('uuid')} has NIC {mac} on {where} {name}, which this host does "
                "not have, or not in use; set it up here, or choose another host",
                network=name,
            )


def _is_there(handle: libvirt.virConnect, where: str, name: str) -> bool:
    try:
        if where == _OF_LIBVIRT:
            return bool(handle.networkLookupByName(name).isActive())
        socket.if_nametoindex(name)
    except (OSError, libvirt.libvirtError):
        return False
    return True


def _check_machine(handle: libvirt.virConnect, root: etree._Element) -> None:
    kind = root.find("os/type")
    arch, machine = (None, None) if kind is None else (kind.get("arch"), kind.get("machine"))
    hypervisor = root.get("type")
    # Raises for an emulator, an architecture, a machine or KVM that is not there.
    handle.getDomainCapabilities(root.findtext("devices/emulator"), arch, machine, hypervisor)
    cpu = root.find("cpu")
    if cpu is None or cpu.get("mode", "custom") != "custom" or cpu.find("model") is None:
        return
    if _compare(handle, root, arch, machine, cpu) == _INCOMPATIBLE:
        raise MigrationFailed(
            f"the processor of this host lacks what VM {root.findtext('uuid')} has been given: "
            f"{cpu.findtext('model')} with its features; migrate it to a host whose processor is "
            "at least like its own"
        )


def _compare(
    handle: libvirt.virConnect,
    root: etree._Element,
    arch: str | None,
    machine: str | None,
    cpu: etree._Element,
) -> int:
    document = etree.tostring(cpu, encoding="unicode")
    emulator, hypervisor = root.findtext("devices/emulator"), root.get("type")
    try:
        return int(handle.compareHypervisorCPU(emulator, arch, machine, hypervisor, document))
    except libvirt.libvirtError as e:
        # Of other architectures libvirt does not know; it will find out when QEMU starts.
        if e.get_error_code() in (
            libvirt.VIR_ERR_NO_SUPPORT,
            libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        ):
            return int(libvirt.VIR_CPU_COMPARE_SUPERSET)
        raise
