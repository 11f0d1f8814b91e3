# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of VM.create, in both of their forms, as a domain that libvirt can define.

registry.py calls parse_request. The forms are contract/wire.md's "vmParams": a domain document of
the engine's own, or a flat description for which the document is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from vdsmcinder.errors import InvalidParameter
from vdsmcinder.fields import BOOLEAN, TEXT, UUID, Fields
from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.virt.disk import disk_auth
from vdsmcinder.virt.domain import domain_writer, metadata
from vdsmcinder.virt.domain.emulation import emulate
from vdsmcinder.virt.domain.vm_description import NAME, VmDescription


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


def parse_request(
    vm_id: str,
    params: Mapping[str, Any],
    *,
    allow_emulation: bool,
    spare_pcie_ports: int,
    default_secret: str | None = None,
) -> DomainRequest:
    """Read vmParams.

    allow_emulation: make a VM for KVM one for QEMU's emulation. spare_pcie_ports: PCIe root ports
    for disks to be plugged later, in domains that are written here. default_secret: UUID of the
    secret that an answer of Cinder's without secret_uuid means.

    Raises MissingParameter, InvalidParameter and UnsupportedDrive; each names the field, its value
    and what was expected.
    """
    fields = Fields(params, f"VM {vm_id}")
    uuid = Fields({"vmID": vm_id}, "VM.create").need("vmID", UUID)
    if fields.get("vmId", UUID) not in (None, uuid):
        raise fields.invalid("vmId", f"the request's vmID, {uuid}")
    if "xml" in fields:
        domain = _read_document(uuid, fields)
    else:
        described = VmDescription.from_fields(fields, default_secret)
        domain = _write_document(uuid, described, spare_pcie_ports)
    ours = metadata.mark(domain)
    if fields.get("launchPaused", BOOLEAN):
        metadata.set_value(ours, "launchPaused", "true")
    if allow_emulation and domain.get("type") == "kvm":
        emulate(domain)
    return DomainRequest(
        vm_id=uuid,
        name=domain.findtext("name", ""),
        xml=etree.tostring(domain, encoding="unicode"),
        launch_paused=metadata.VmMetadata.of_request(domain).launch_paused,
    )


def _read_document(uuid: str, fields: Fields) -> etree._Element:
    domain = parse(fields.need("xml", TEXT), f"{fields.thing}: xml")
    if domain.tag != "domain":
        raise InvalidParameter(
            f"{fields.thing}: root of xml is <{domain.tag!s}>; expected <domain>", field="xml"
        )
    given = Fields({"uuid": domain.findtext("uuid"), "name": domain.findtext("name")}, fields.thing)
    if given.get("uuid", UUID) not in (None, uuid):
        raise given.invalid("uuid", f"the request's vmID, {uuid}")
    name = given.get("name", NAME) or fields.get("vmName", NAME) or uuid
    disk_auth.check_secrets(domain, fields.thing)
    _set_text(domain, "uuid", uuid)
    _set_text(domain, "name", name)
    return domain


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
