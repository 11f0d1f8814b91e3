# SPDX-License-Identifier: GPL-2.0-or-later
"""Letting somebody in at a VM's display: a password that holds for a time.

The password is a Secret until libvirt takes it (https://libvirt.org/formatdomain.html, graphics).
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import libvirt
from lxml import etree

from vdsmcinder.errors import InvalidParameter, UpdateDeviceFailed
from vdsmcinder.fields import is_xml_text
from vdsmcinder.hypervisor.long_xml import aside
from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.virt.secrets.secret import Secret
from vdsmcinder.virt.vm import libvirt_errors
from vdsmcinder.virt.vm.vm import VM

# The protocol's own limit (RFC 6143, 7.2.2): the password is a DES key.
VNC_PASSWORD_CHARS = 8

DISPLAYS = ("spice", "vnc")


@dataclass(frozen=True)
class Ticket:
    """password: for the display. ttl_s: seconds that it opens the display, 0 or less for ever.

    display: spice or vnc, None for the VM's first. existing: what becomes of those who are
    connected; VNC knows no other than to keep them.
    """

    password: Secret
    ttl_s: int
    display: str | None = None
    existing: str = "keep"


async def set_ticket(vm: VM, ticket: Ticket) -> None:
    """Set the password of a display of the VM.

    Raises VMIsDown (6), InvalidParameter (91) for a password that the display cannot have,
    UpdateDeviceFailed (56) without such a display or if libvirt refuses; no error holds it.
    """
    async with vm.lock:
        vm.require_running("given a ticket")
        graphics = await _display(vm, ticket.display)
        password = _checked(ticket.password.reveal().decode(), graphics.get("type", ""))
        graphics.set("passwd", password)
        graphics.attrib.pop("passwdValidTo", "")
        if ticket.ttl_s > 0:
            graphics.set("passwdValidTo", _valid_to(ticket.ttl_s))
        if graphics.get("type") == "spice":
            graphics.set("connected", ticket.existing)
        xml = Secret(etree.tostring(graphics))
        try:
            await vm.call(_update, xml)
        except libvirt.libvirtError as e:
            action = f"the ticket of VM {vm.id}'s {graphics.get('type')} display could not be set"
            failure = libvirt_errors.explain(e, action, UpdateDeviceFailed)
            raise _without(failure, password) from None


async def _display(vm: VM, wanted: str | None) -> etree._Element:
    document = await aside(parse, vm.xml, "domain xml")
    for graphics in document.iterfind("devices/graphics"):
        if graphics.get("type") == wanted or (wanted is None and graphics.get("type") in DISPLAYS):
            return graphics
    raise UpdateDeviceFailed(
        f"VM {vm.id} has no {wanted or 'VNC or SPICE'} display to set a ticket of; create it with "
        "one"
    )


def _checked(password: str, display: str) -> str:
    if display == "vnc" and len(password) > VNC_PASSWORD_CHARS:
        raise InvalidParameter(
            f"the password is longer than {VNC_PASSWORD_CHARS} characters, more than VNC takes; "
            "send a shorter one",
            field="password",
        )
    if not is_xml_text(password):
        raise InvalidParameter(
            "the password holds control characters, which libvirt does not take; send another",
            field="password",
        )
    return password


def _valid_to(ttl_s: int) -> str:
    """libvirt wants the time in UTC, without a zone."""
    now = datetime.datetime.now(datetime.timezone.utc)
    end = now + datetime.timedelta(seconds=ttl_s)
    return end.strftime("%Y-%m-%dT%H:%M:%S")


def _without(failure: Exception, password: str) -> UpdateDeviceFailed:
    """The failure, in words that do not hold the password, should libvirt's hold it."""
    words = str(failure)
    return UpdateDeviceFailed(words.replace(password, "********") if password else words)


def _update(domain: libvirt.virDomain, xml: Secret) -> None:
    """Runs in the connection's thread pool."""
    domain.updateDeviceFlags(xml.reveal().decode(), libvirt.VIR_DOMAIN_AFFECT_LIVE)
