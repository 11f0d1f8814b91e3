# SPDX-License-Identifier: GPL-2.0-or-later
"""The NICs that verbs are asked about: one to plug, to unplug, or to change.

Each has two forms (contract/wire.md): {vmId, nic: {...}} and {vmId, xml: "<hotplug>..." or a
fragment}; for VM.updateDevice contract/types.txt's vmUpdateInterfaceDeviceParams and
vmUpdateXMLDeviceParams.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxml import etree

from vdsmcinder.errors import UnsupportedOperation
from vdsmcinder.fields import BOOLEAN, TEXT, Fields, Kind, choice, matching
from vdsmcinder.hypervisor.xmldoc import child_attribute, only
from vdsmcinder.virt.disk import disk_params
from vdsmcinder.virt.disk.address import Address
from vdsmcinder.virt.disk.drive_rules import ALIAS
from vdsmcinder.virt.domain.devices import Nic
from vdsmcinder.virt.live.nic_query import MAC_ADDRESS, NicChange, NicQuery, is_mac

# Whose first byte is odd are addresses of groups (IEEE 802), which no NIC has.
MAC = matching(
    f"(?=.[02468ACEace]){MAC_ADDRESS}",
    "a MAC address such as 00:1a:4a:16:01:51, whose first byte is even",
)
BRIDGE = matching(r"[^/\s]{1,15}", "the name of a bridge on this host")
_MODELS = {"pv": "virtio", "virtio": "virtio", "e1000": "e1000", "e1000e": "e1000e"}
_MODEL = choice(*_MODELS, "rtl8139")
_XML = Kind(TEXT.convert, "the description of one NIC, in nic or in xml")


def read_nic(nic: Fields) -> Nic:
    """Read a device of type interface. Raises MissingParameter (11), InvalidParameter (91)."""
    nic.get("device", Kind(choice("bridge").convert, "bridge"))
    model = nic.get("nicModel", _MODEL) or "virtio"
    return Nic(
        bridge=nic.need("network", BRIDGE),
        mac=nic.get("macAddr", MAC),
        model=_MODELS.get(model, model),
        link_up=nic.get("linkActive", BOOLEAN) is not False,
        boot_order=nic.get("bootOrder", disk_params.BOOT_ORDER),
        filter=nic.get("filter", TEXT),
        alias=disk_params.alias(nic),
        address=Address.from_fields(nic.section("address")) if "address" in nic else None,
    )


def read_plug(params: Mapping[str, Any]) -> etree._Element:
    """Read the NIC that is to be plugged, as an <interface>.

    Raises MissingParameter and InvalidParameter for what is not one.
    """
    fields = Fields(params, "hot-plug")
    if "nic" not in fields:
        interface = _only_nic(fields)
        alias = Fields({"name": child_attribute(interface, "alias", "name")}, fields.thing, "alias")
        alias.get("name", ALIAS)
        return interface
    nic = fields.section("nic")
    devices = etree.Element("devices")
    mac = nic.values.get("macAddr")
    thing = f"NIC {mac}" if isinstance(mac, str) and is_mac(mac) else "NIC"
    read_nic(Fields(nic.values, thing)).write(devices)
    return devices[0]


def read_unplug(params: Mapping[str, Any]) -> NicQuery:
    """Read which NIC is to be unplugged. Raises as read_plug does."""
    fields = Fields(params, "hot-unplug")
    query = (
        _query_of_params(fields.section("nic")) if "nic" in fields else _query(_only_nic(fields))
    )
    return _certain(query, fields)


def read_change(params: Mapping[str, Any]) -> NicChange:
    """Read what is to be changed of which NIC.

    Raises MissingParameter, InvalidParameter, and UnsupportedOperation (75) for port mirroring.
    """
    fields = Fields(params, "update of a NIC")
    if "xml" in fields:
        return _change_of_xml(_only_nic(fields), fields)
    if fields.values.get("portMirroring"):
        raise UnsupportedOperation(
            "update of a NIC: portMirroring is set, but mirroring is not supported on this host; "
            "send it empty",
            field="portMirroring",
        )
    # An engine takes a NIC off all networks by naming none.
    off = "network" in params and "network" not in fields
    return NicChange(
        query=_certain(_query_of_params(fields), fields),
        network=fields.get("network", BRIDGE),
        link_up=False if off else fields.get("linkActive", BOOLEAN),
        filter=_filter(fields),
    )


def _change_of_xml(interface: etree._Element, fields: Fields) -> NicChange:
    state = child_attribute(interface, "link", "state")
    network = Fields({"bridge": child_attribute(interface, "source", "bridge")}, fields.thing)
    return NicChange(
        query=_certain(_query(interface), fields),
        network=network.get("bridge", BRIDGE),
        link_up=None if state is None else state != "down",
        filter=interface.find("filterref"),
    )


def _filter(fields: Fields) -> etree._Element | None:
    name = fields.get("filter", TEXT)
    if name is None:
        return None
    filterref = etree.Element("filterref", {"filter": name})
    for parameter in fields.sections("filterParameters"):
        attributes = {key: parameter.need(key, TEXT) for key in ("name", "value")}
        etree.SubElement(filterref, "parameter", attributes)
    return filterref


def _query_of_params(nic: Fields) -> NicQuery:
    return NicQuery(alias=disk_params.alias(nic), mac=nic.get("macAddr", MAC))


def _query(interface: etree._Element) -> NicQuery:
    return NicQuery(
        alias=child_attribute(interface, "alias", "name"),
        mac=child_attribute(interface, "mac", "address"),
    )


def _certain(query: NicQuery, fields: Fields) -> NicQuery:
    if query == NicQuery():
        raise fields.missing("alias", "an alias, a deviceId or a macAddr that names the NIC")
    return query


def _only_nic(fields: Fields) -> etree._Element:
    return only(fields.need("xml", _XML), "interface", f"{fields.thing} xml")
