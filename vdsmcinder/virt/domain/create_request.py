# SPDX-License-Identifier: GPL-2.0-or-later
"""What VM.create asks for, as a domain that libvirt can define.

It asks with a domain document of the engine's own, or with a flat description for which the
document is written here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from lxml import etree

from vdsmcinder.errors import InvalidParameter, UnsupportedDrive
from vdsmcinder.fields import UUID, Fields, number
from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.virt.disk import bus_rules, disk_auth, drive_rules
from vdsmcinder.virt.disk import target as targets
from vdsmcinder.virt.disk.domain_disks import check_groups
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.driver import MOST_IO_THREADS
from vdsmcinder.virt.domain import domain_writer, metadata
from vdsmcinder.virt.domain.emulation import emulate
from vdsmcinder.virt.domain.vm_description import NAME, VmDescription
from vdsmcinder.virt.storage.consent import NO_CONSENT, Consent

# What oVirt's engine writes for a disk whose image the host is to make, such as cloud-init's.
_PAYLOAD = "PAYLOAD:"


@dataclass(frozen=True)
class VmDocument:
    """A VM with a domain document of the engine's own, which may hold the passwords of displays.

    name: for a document without one. launch_paused: as in DomainRequest. consent: what is vouched
    for of its images.
    """

    xml: str = field(repr=False)
    name: str | None
    launch_paused: bool
    consent: Consent = NO_CONSENT


@dataclass(frozen=True)
class DomainRequest:
    """A VM to be created.

    xml: the complete domain document, for virConnect.defineXML alone: it may hold the passwords of
    displays, so it is not for showing (domain.without_passwords). launch_paused: whether the VM is
    to wait for VM.cont before it runs.
    """

    vm_id: str
    name: str
    xml: str = field(repr=False)
    launch_paused: bool


def make_domain(
    vm_id: str,
    request: VmDocument | VmDescription,
    *,
    allow_emulation: bool,
    spare_pcie_ports: int,
    host_words: Mapping[str, str] = MappingProxyType({}),
) -> DomainRequest:
    """Make the domain that a request asks for.

    allow_emulation: make a VM for KVM one for QEMU's emulation. spare_pcie_ports: PCIe root ports
    for disks to be plugged later, in domains that are written here. host_words: what stands in
    documents for the host to replace, and by what.

    Raises InvalidParameter for a document that is none, or that is of another VM, UnsupportedDrive
    for one with an image that is to be made here.
    """
    if isinstance(request, VmDocument):
        domain = _read_document(vm_id, request)
        _replace_words(domain, host_words)
    else:
        domain = _write_document(vm_id, request, spare_pcie_ports)
    ours = metadata.mark(domain)
    if request.launch_paused:
        metadata.set_value(ours, "launchPaused", "true")
    if allow_emulation and domain.get("type") == "kvm":
        emulate(domain)
    return DomainRequest(
        vm_id=vm_id,
        name=domain.findtext("name", ""),
        xml=etree.tostring(domain, encoding="unicode"),
        launch_paused=metadata.VmMetadata.of_request(domain).launch_paused,
    )


def _read_document(vm_id: str, request: VmDocument) -> etree._Element:
    thing = f"VM {vm_id}"
    domain = parse(request.xml, f"{thing}: xml")
    if domain.tag != "domain":
        raise InvalidParameter(
            f"{thing}: root of xml is <{domain.tag!s}>; expected <domain>", field="xml"
        )
    given = Fields({"uuid": domain.findtext("uuid"), "name": domain.findtext("name")}, thing)
    if given.get("uuid", UUID) not in (None, vm_id):
        raise given.invalid("uuid", f"the request's vmID, {vm_id}")
    disk_auth.check_secrets(domain, thing)
    _check_devices(domain, thing)
    _set_text(domain, "uuid", vm_id)
    _set_text(domain, "name", given.get("name", NAME) or request.name or vm_id)
    return domain


def _replace_words(domain: etree._Element, host_words: Mapping[str, str]) -> None:
    """Give the guest's SMBIOS what only the host knows."""
    for entry in domain.iterfind("sysinfo//entry"):
        for word, known in host_words.items():
            entry.text = (entry.text or "").replace(word, known)


def _check_devices(domain: etree._Element, thing: str) -> None:
    """Raise InvalidParameter for what no VM is given, for aliases that libvirt would drop, and for
    numbers up to which it would make I/O threads or controllers."""
    for source in domain.iterfind("devices/disk/source"):
        if (source.get("file") or "").startswith(_PAYLOAD):
            # libvirt would leave it out, and the guest start without it.
            raise UnsupportedDrive(
                f"{thing}: the source of a disk is {_PAYLOAD}, for which an image was to be made; "
                "expected none, payloads are not supported",
                field="devices.disk.source",
            )
    drives: list[Drive] = []
    for disk in domain.iterfind("devices/disk"):
        # Kinds of disks that are not known here are for libvirt to judge, and told as they are.
        with contextlib.suppress(UnsupportedDrive):
            drives.append(Drive.wanted(disk))
    check_groups(drives)
    io_threads = Fields({"iothreads": domain.findtext("iothreads")}, thing)
    io_threads.get("iothreads", number(0, MOST_IO_THREADS))
    for disk in domain.iterfind("devices/disk/target"):
        name = disk.get("dev") or ""
        index = targets.index(name) if targets.is_target(name) else None
        Fields({"index": index}, thing, "target").get("index", bus_rules.INDEX)
    for address in domain.iterfind("devices/*/address"):
        where = Fields({"controller": address.get("controller")}, thing, "address")
        where.get("controller", bus_rules.CONTROLLER)
    for alias in domain.iterfind("devices/*/alias"):
        Fields({"name": alias.get("name")}, thing, "alias").get("name", drive_rules.ALIAS)


def _write_document(uuid: str, described: VmDescription, spare_pcie_ports: int) -> etree._Element:
    domain = domain_writer.write(uuid, described, spare_pcie_ports)
    if not described.kvm:
        emulate(domain)
    return domain


def _set_text(domain: etree._Element, tag: str, text: str) -> None:
    element = domain.find(tag)
    if element is None:
        element = etree.Element(tag)
        domain.insert(0, element)
    element.text = text
