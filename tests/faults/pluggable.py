# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks for libvirt's test driver, which before libvirt 10 can plug none into its domains.

That driver's domains cost nothing. What it lacks stands here, in libvirt-python's own methods; all
else is libvirt's.
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any, Callable

import libvirt
from lxml import etree

from tests.refusals import libvirt_error

Removed = Callable[[Any, libvirt.virDomain, str, Any], None]
_PATCHED = (
    *("attachDeviceFlags", "detachDeviceAlias", "XMLDesc"),
    *("destroyFlags", "destroy", "shutdown", "undefineFlags"),
)

# A domain as VM.create takes it, with nothing in it but what the driver needs.
DOMAIN = """\
<domain type='test'>
  <name>vm-{uuid}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64'>hvm</type></os>
  <devices/>
</domain>
"""
DISK = """\
<disk type='network' device='disk'>
  <driver name='qemu' type='raw'/>
  <source protocol='rbd' name='volumes/{image}'><host name='10.0.0.1' port='6789'/></source>
  <target dev='{target}' bus='virtio'/>
  <alias name='ua-{image}'/>
</disk>
"""


def host(directory: Path, *documents: str) -> dict[str, dict[str, Any]]:
    """Options of a daemon on a host of its own that runs these domains, in a directory."""
    take_turns()
    file = directory / "host.xml"
    file.write_text(f"<node>{''.join(documents)}</node>")
    return {"libvirt": {"uri": f"test://{file}"}, "ceph": {"preflight": "off"}}


def domain(vm_id: str) -> dict[str, str]:
    """vmParams of a VM for the test driver."""
    return {"vmId": vm_id, "xml": DOMAIN.format(uuid=vm_id)}


def disk(vm_id: str, image: str, target: str = "vda") -> dict[str, str]:
    """Parameters of VM.hotplugDisk and VM.hotunplugDisk."""
    return {"vmId": vm_id, "xml": DISK.format(image=image, target=target)}


class Plugs:
    """What is plugged into which domain, by alias; guests let go of it at once."""

    def __init__(self) -> None:
        self._plugged: dict[str, dict[str, etree._Element]] = {}
        self._listeners: list[tuple[Removed, Any]] = []
        self._lock = threading.Lock()
        self._libvirts = {name: getattr(libvirt.virDomain, name) for name in _PATCHED}
        self._register = libvirt.virConnect.domainEventRegisterAny

    def install(self) -> None:
        """Have libvirt-python plug, in this process."""
        take_turns()
        for name in _PATCHED:
            setattr(libvirt.virDomain, name, self._method(getattr(self, name)))
        libvirt.virConnect.domainEventRegisterAny = self._method(self.domainEventRegisterAny)

    def uninstall(self) -> None:
        """Leave libvirt-python as it was."""
        for name, method in self._libvirts.items():
            setattr(libvirt.virDomain, name, method)
        libvirt.virConnect.domainEventRegisterAny = self._register

    @staticmethod
    def _method(ours: Callable[..., Any]) -> Callable[..., Any]:
        def method(libvirts: Any, *args: Any) -> Any:
            return ours(libvirts, *args)

        return method

    # In place of methods of virConnect and virDomain

    def domainEventRegisterAny(
        self, connection: libvirt.virConnect, dom: Any, event: int, callback: Any, opaque: Any
    ) -> int:
        if event == libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED:
            self._listeners = [(callback, opaque)]
        found: int = self._register(connection, dom, event, callback, opaque)
        return found

    def attachDeviceFlags(self, dom: libvirt.virDomain, xml: str, _flags: int = 0) -> int:
        _require_active(dom)
        element = etree.fromstring(xml)
        with self._lock:
            plugged = self._plugged.setdefault(dom.UUIDString(), {})
            target = _target(element)
            if any(_target(other) == target for other in plugged.values()):
                raise libvirt_error(f"target {target} already exists")
            plugged[str(element.find("alias").get("name"))] = element
        return 0

    def detachDeviceAlias(self, dom: libvirt.virDomain, alias: str, _flags: int = 0) -> int:
        _require_active(dom)
        with self._lock:
            if self._plugged.get(dom.UUIDString(), {}).pop(alias, None) is None:
                raise libvirt_error(f"no device has alias {alias}")
        for callback, opaque in self._listeners:
            callback(None, dom, alias, opaque)
        return 0

    def XMLDesc(self, dom: libvirt.virDomain, flags: int = 0) -> str:
        document: str = self._libvirts["XMLDesc"](dom, flags)
        with self._lock:
            plugged = list(self._plugged.get(dom.UUIDString(), {}).values())
        if not plugged:
            return document
        root = etree.fromstring(document)
        root.find("devices").extend(plugged)
        return etree.tostring(root, encoding="unicode")

    def destroyFlags(self, dom: libvirt.virDomain, flags: int = 0) -> int:
        return self._end(dom, "destroyFlags", flags)

    def shutdown(self, dom: libvirt.virDomain) -> int:
        return self._end(dom, "shutdown")

    def destroy(self, dom: libvirt.virDomain) -> int:
        return self._end(dom, "destroy")

    def undefineFlags(self, dom: libvirt.virDomain, flags: int = 0) -> int:
        # Its domains have no NVRAM, and it refuses to hear of it.
        flags &= ~libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        return self._end(dom, "undefineFlags", flags)

    def _end(self, dom: libvirt.virDomain, how: str, *args: Any) -> int:
        ended: int = self._libvirts[how](dom, *args)
        with self._lock:
            self._plugged.pop(dom.UUIDString(), None)
        return ended


@functools.cache
def take_turns() -> None:
    """From now on lxml does not parse while the driver is opened, in this process.

    While lxml parses, a hook of its own in libxml2 takes every parser for one of lxml's, and the
    driver parses its host's file when it is opened: the two at once end the process.
    """
    alone = threading.Lock()
    libvirt.open = _holding(alone, libvirt.open)
    etree.fromstring = _holding(alone, etree.fromstring)


def _holding(lock: threading.Lock, function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        with lock:
            return function(*args, **kwargs)

    return called


def _target(element: etree._Element) -> str | None:
    target = element.find("target")
    return None if target is None else target.get("dev")


def _require_active(dom: libvirt.virDomain) -> None:
    if not dom.isActive():
        raise libvirt_error("domain is not running")
