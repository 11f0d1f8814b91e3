# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugging, changing and unplugging a device of a running VM, for as long as it runs.

What a VM has the next time it starts is the engine's to say, which creates it anew: the persistent
definition is left alone.
"""

from __future__ import annotations

import asyncio

import libvirt

from vdsmcinder.errors import UnsupportedOperation
from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.tasks import within
from vdsmcinder.virt.domain.domain import Document
from vdsmcinder.virt.vm.vm import VM, described


class StillPlugged(Exception):
    """The guest keeps the device; the text says why, as the second half of a sentence."""


async def plug(vm: VM, xml: str) -> None:
    """Give the VM the device that the element describes.

    Raises InvalidParameter (91) for what the host's policy does not allow, libvirt.libvirtError.
    """
    _check(vm, xml)
    vm.take(await vm.call(_attach, xml))


async def change(vm: VM, xml: str, flags: int = 0) -> None:
    """Make a device of the VM what the element says; it names the device by address and alias.

    flags: VIR_DOMAIN_DEVICE_MODIFY_...; Raises as plug does.
    """
    _check(vm, xml)
    vm.take(await vm.call(_update, xml, flags | libvirt.VIR_DOMAIN_AFFECT_LIVE))


def _check(vm: VM, xml: str) -> None:
    vm.services.policy.check(parse(xml, "device xml"), f"a device of VM {vm.id}")


async def unplug(vm: VM, alias: str) -> None:
    """Have the guest let go of the device of that alias, and wait until it has.

    Raises StillPlugged if the guest refuses or takes too long; libvirt.libvirtError if it could
    not be asked; VMIsDown (6) if the VM ends meanwhile.
    """
    timeout_s = vm.services.options.hotunplug_timeout_s
    try:
        with vm.unplugs.expect(alias) as removed:
            await _request(vm, alias)
            await within(removed, timeout_s)
    except asyncio.TimeoutError:
        raise StillPlugged(f"the guest did not let go of it within {timeout_s:g} s") from None
    except UnsupportedOperation as e:
        raise StillPlugged(e.message) from None
    await vm.refresh()


async def _request(vm: VM, alias: str) -> None:
    try:
        await vm.call(_detach, alias)
    except libvirt.libvirtError as e:
        # Asked before and not answered yet: all there is to do is to go on waiting.
        if "in the process of unplug" not in str(e):
            raise


# What follows runs in the connection's thread pool.


def _attach(domain: libvirt.virDomain, xml: str) -> Document:
    domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    return described(domain)


def _update(domain: libvirt.virDomain, xml: str, flags: int) -> Document:
    domain.updateDeviceFlags(xml, flags)
    return described(domain)


def _detach(domain: libvirt.virDomain, alias: str) -> None:
    # By alias, which returns at once: detachDeviceFlags waits up to 5 s for the guest by itself.
    domain.detachDeviceAlias(alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
