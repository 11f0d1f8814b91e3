# SPDX-License-Identifier: GPL-2.0-or-later
"""The memory devices that verbs plug and unplug: by a description, or by <memory> as XML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxml import etree

from vdsmcinder.fields import TEXT, Fields, Kind, matching, number
from vdsmcinder.hypervisor.xmldoc import child_attribute, only
from vdsmcinder.virt.disk import disk_params
from vdsmcinder.virt.disk.drive_rules import ALIAS
from vdsmcinder.virt.live.memory import MemoryPlug, MemoryUnplug

_SIZE_MIB = number(1, 2**34)
_NODE = number(0, 1023)
_GUARANTEED_MIB = number(0, 2**34)
_XML = Kind(TEXT.convert, "the description of one memory device, in memory or in xml")
_ALIAS = matching(r"[A-Za-z0-9_.-]+", "letters, digits, '_', '-' and '.'")


def read_plug(params: Mapping[str, Any]) -> MemoryPlug:
    """Read HotplugMemoryParams. Raises MissingParameter (11), InvalidParameter (91)."""
    fields = Fields(params, "hot-plug of memory")
    guaranteed = fields.get("memGuaranteedSize", _GUARANTEED_MIB)
    if "memory" not in fields:
        given = _only_memory(fields)
        named = Fields({"name": child_attribute(given, "alias", "name")}, fields.thing, "alias")
        named.get("name", ALIAS)
        return MemoryPlug(given, guaranteed)
    memory = fields.section("memory")
    device = etree.Element("memory", {"model": "dimm"})
    target = etree.SubElement(device, "target")
    size = etree.SubElement(target, "size", {"unit": "MiB"})
    size.text = str(memory.need("size", _SIZE_MIB))
    node = memory.get("node", _NODE)
    etree.SubElement(target, "node").text = str(node or 0)
    alias = disk_params.alias(memory)
    if alias is not None:
        etree.SubElement(device, "alias", {"name": alias})
    return MemoryPlug(device, guaranteed)


def read_unplug(params: Mapping[str, Any]) -> MemoryUnplug:
    """Read HotplugMemoryParams of a device that is plugged: its alias or deviceId is enough."""
    fields = Fields(params, "hot-unplug of memory")
    if "memory" in fields:
        alias = disk_params.alias(fields.section("memory"))
    else:
        given = {"alias": child_attribute(_only_memory(fields), "alias", "name")}
        alias = Fields(given, fields.thing).get("alias", _ALIAS)
    if alias is None:
        raise fields.missing("alias", "the alias or the deviceId of a memory device")
    return MemoryUnplug(alias, fields.get("memGuaranteedSize", _GUARANTEED_MIB))


def _only_memory(fields: Fields) -> etree._Element:
    return only(fields.need("xml", _XML), "memory", f"{fields.thing} xml")
