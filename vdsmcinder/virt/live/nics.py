# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugging NICs into a running VM, unplugging them, and changing their network and link."""

from __future__ import annotations

import libvirt
from lxml import etree

from vdsmcinder.errors import (
    HotplugNicFailed,
    HotunplugNicFailed,
    UpdateDeviceFailed,
    VdsmCinderError,
    VMIsDown,
)
from vdsmcinder.hypervisor.long_xml import aside
from vdsmcinder.hypervisor.xmldoc import child_attribute, parse
from vdsmcinder.virt.disk.drive_rules import USER_ALIAS
from vdsmcinder.virt.live import device_ops
from vdsmcinder.virt.live.nic_query import NicChange, NicQuery
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.vm import VM


async def plug(vm: VM, interface: etree._Element) -> None:
    """Plug an <interface> into the VM, for as long as it runs.

    Raises VMIsDown (6), HotplugNicFailed (49) if it is plugged already or libvirt does not take
    it. A plug that failed leaves the VM as it was.
    """
    async with vm.lock:
        vm.require_running("given a NIC")
        await _refuse_twice(vm, interface)
        try:
            await device_ops.plug(vm, _text(interface))
        except libvirt.libvirtError as e:
            action = (
                f"NIC {_name(interface)} could not be plugged into VM {vm.id}, which is as it was"
            )
            raise libvirt_errors.explain(e, action, HotplugNicFailed) from e


async def unplug(vm: VM, query: NicQuery) -> None:
    """Unplug the NIC that is meant, and wait until the guest has let go of it.

    Raises VMIsDown (6), HotunplugNicFailed (50) if the NIC is not plugged or the guest keeps it.
    """
    async with vm.lock:
        vm.require_running("unplugged from")
        interface = await _plugged(vm, query, HotunplugNicFailed)
        name = _name(interface)
        try:
            await device_ops.unplug(vm, child_attribute(interface, "alias", "name") or "")
        except device_ops.StillPlugged as e:
            raise HotunplugNicFailed(
                f"NIC {name} is still plugged into VM {vm.id}: {e}; take it down in the guest and "
                "call again",
                nic=name,
            ) from None
        except VMIsDown as e:
            raise VMIsDown(f"NIC {name} was not unplugged: {e.message}") from None
        except libvirt.libvirtError as e:
            action = f"NIC {name} could not be unplugged from VM {vm.id}"
            raise libvirt_errors.explain(e, action, HotunplugNicFailed) from e


async def update(vm: VM, change: NicChange) -> None:
    """Change the network, the link state or the filter of a NIC.

    Raises VMIsDown (6), UpdateDeviceFailed (56) if there is no such NIC or libvirt refuses.
    """
    async with vm.lock:
        vm.require_running("changed")
        interface = await _plugged(vm, change.query, UpdateDeviceFailed)
        name = _name(interface)
        change.apply(interface)
        try:
            await device_ops.change(vm, _text(interface))
        except libvirt.libvirtError as e:
            await vm.refresh()
            action = f"NIC {name} of VM {vm.id} could not be changed"
            raise libvirt_errors.explain(e, action, UpdateDeviceFailed) from e


async def _refuse_twice(vm: VM, interface: etree._Element) -> None:
    # libvirt gives several NICs one alias of its own, but not one of an engine's.
    alias = child_attribute(interface, "alias", "name") or ""
    query = NicQuery(
        alias=alias if alias.startswith(USER_ALIAS) else None,
        mac=child_attribute(interface, "mac", "address"),
    )
    plugged = query.find(await _interfaces(vm))
    if plugged is not None:
        raise HotplugNicFailed(
            f"NIC {query} is plugged into VM {vm.id} already, as {_name(plugged)}; nothing was "
            "changed",
            nic=_name(plugged),
        )


async def _plugged(vm: VM, query: NicQuery, failure: type[VdsmCinderError]) -> etree._Element:
    """The <interface> of the VM's document that the request means."""
    interfaces = await _interfaces(vm)
    found = query.find(interfaces)
    if found is None:
        known = ", ".join(map(_name, interfaces)) or "none"
        raise failure(
            f"NIC {query} is not plugged into VM {vm.id}, whose NICs are: {known}; name one of them"
        )
    return found


async def _interfaces(vm: VM) -> list[etree._Element]:
    return (await aside(parse, vm.xml, "domain xml")).findall("devices/interface")


def _name(interface: etree._Element) -> str:
    """What operators call a NIC: its address, and its alias where it has one."""
    mac = child_attribute(interface, "mac", "address") or "without address"
    alias = child_attribute(interface, "alias", "name")
    return f"{mac} ({alias})" if alias else mac


def _text(interface: etree._Element) -> str:
    return etree.tostring(interface, encoding="unicode")
