# SPDX-License-Identifier: GPL-2.0-or-later
"""What domain documents and devices may hold, by section policy of the configuration.

By profile vdsm all that libvirt takes. By profile strict only what is listed here: what a VM on
Ceph needs, without a way to the host's files, programs and devices. Whatever is not listed is
refused, so that a newer libvirt opens no door. Names of elements are those of
https://libvirt.org/formatdomain.html.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lxml import etree

from vdsmcinder.config import Policy as PolicyOptions
from vdsmcinder.errors import InvalidParameter

# What may stand in <domain>, in <os> and in <devices>.
_DOMAIN = frozenset(
    {"name", "uuid", "genid", "title", "description", "metadata", "memory", "currentMemory"}
    | {"maxMemory", "memoryBacking", "vcpu", "vcpus", "iothreads", "iothreadids", "cputune"}
    | {"numatune", "memtune", "blkiotune", "resource", "sysinfo", "os", "features", "cpu", "clock"}
    | {"on_poweroff", "on_reboot", "on_crash", "on_lockfailure", "pm", "perf", "seclabel"}
    | {"devices", "keywrap", "launchSecurity"}
)
_OS = frozenset(
    {"type", "firmware", "loader", "nvram", "boot", "bootmenu", "smbios", "bios", "kernel"}
    | {"initrd", "cmdline"}
)
_DEVICES = frozenset(
    {"emulator", "disk", "controller", "interface", "input", "graphics", "video", "sound", "audio"}
    | {"console", "serial", "parallel", "channel", "memballoon", "rng", "watchdog", "panic", "tpm"}
    | {"smartcard", "hub", "redirdev", "redirfilter", "memory", "iommu", "vsock"}
)
_DISK = frozenset(
    {"source", "auth", "encryption", "target", "driver", "iotune", "shareable", "readonly"}
    | {"serial", "boot", "address", "alias", "backingStore", "mirror", "acpi", "privateData"}
    | {"wwn", "vendor", "product", "geometry", "blockio", "transient", "throttlefilters"}
)
_INTERFACE = frozenset(
    {"mac", "source", "model", "target", "alias", "address", "link", "filterref", "bandwidth"}
    | {"boot", "mtu", "driver", "virtualport", "vlan", "port", "rom", "tune", "coalesce", "guest"}
    | {"acpi", "teaming", "backend"}
)
# Devices that are of some types alone, by the attribute or the child that says which.
_TYPES: Mapping[str, frozenset[str]] = {
    "interface": frozenset({"bridge", "network"}),
    "input": frozenset({"tablet", "mouse", "keyboard"}),
    "graphics": frozenset({"vnc", "spice"}),
    "audio": frozenset({"none", "spice"}),
    "redirdev": frozenset({"spicevmc"}),
    **dict.fromkeys(
        ("console", "serial", "parallel", "channel"),
        frozenset({"pty", "null", "unix", "spicevmc", "spiceport", "vc", "qemu-vdagent"}),
    ),
}
_BACKENDS: Mapping[str, frozenset[str]] = {
    "rng": frozenset({"random", "builtin"}),
    "tpm": frozenset({"emulator"}),
}
_RANDOM = frozenset({"", "/dev/random", "/dev/urandom", "/dev/hwrng"})
_SMARTCARDS = frozenset({"passthrough"})
_KIND_OF_TYPE: Mapping[str, str] = {"interface": "interfaces", "input": "hostdev"}
# Devices of the host that a guest is given: a kind of their own.
_OF_HOST = frozenset({"hostdev", "filesystem", "shmem", "nvram", "lease", "crypto"})
# QEMU as distributions install it.
_EMULATORS = frozenset(
    {"/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm", "/usr/bin/kvm"}
    | {f"/usr/bin/qemu-system-{arch}" for arch in ("x86_64", "i386", "aarch64", "ppc64", "s390x")}
)
# Where paths may lead beside policy.paths: by the element, and the directories for it.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "loader": ("/usr/share/",),
    "nvram": ("/var/lib/libvirt/qemu/nvram/", "/usr/share/"),
    "backend": ("/dev/random", "/dev/urandom", "/dev/hwrng"),
    # libvirt's own, and what the engine has. Files of VMs that libvirt reads lie beside them.
    "channel": (
        *("/var/lib/libvirt/qemu/channel/", "/var/lib/libvirt/qemu/channels/"),
        *("/run/libvirt/qemu/channel/", "/var/run/libvirt/qemu/channel/"),
    ),
    "config": ("/etc/ceph/",),
    "partition": ("/machine",),
    "pty": ("/dev/pts/",),
}
# Texts of people, and of nobody that opens files.
_FREE_TEXT = frozenset(
    {"title", "description", "cmdline", "name", "entry", "passwd", "serial", "vendor", "product"}
    | {"timezone", "value", "model"}
)
# What is a path even if it holds no slash: these attributes, and what these elements hold. libvirt
# and QEMU start from the root directory.
_PATHS = frozenset(
    {"file", "dir", "path", "socket", "template", "rendernode", "logFile", "tap", "vhost"}
)
_PATH_TEXTS = frozenset({"kernel", "initrd", "loader", "nvram", "path"})
# An image's content says nothing of other files in this format alone.
_RAW = "raw"


class Fault(NamedTuple):
    """What is not allowed. kind: the word for it in option policy.allow. what: in an error."""

    kind: str
    what: str


class DocumentPolicy:
    """What the options let through."""

    def __init__(self, options: PolicyOptions) -> None:
        self._strict = options.documents == "strict"
        self._allowed = frozenset(options.allow)
        self._directories = tuple(f"{path.rstrip('/')}/" for path in options.paths)

    def check(self, element: etree._Element, thing: str) -> None:
        """Raise InvalidParameter for what is not allowed in a <domain>, or in one device.

        thing: what it is of, the first words of the error.
        """
        if not self._strict:
            return
        faults = self._of_domain(element) if element.tag == "domain" else self._of_device(element)
        fault = next((fault for fault in faults if fault.kind not in self._allowed), None)
        if fault is not None:
            raise InvalidParameter(
                f"{thing}: {fault.what} is not allowed on this host (policy.documents is strict); "
                f"leave it out, or have {fault.kind} added to option policy.allow",
                kind=fault.kind,
            )

    def _of_domain(self, domain: etree._Element) -> Iterator[Fault]:
        for child in domain.iterchildren("*"):
            if child.tag not in _DOMAIN:
                foreign = str(child.tag).startswith("{")
                yield Fault("commandline" if foreign else "elements", _shown(child))
            elif child.tag == "os":
                yield from _unknown(child, _OS)
                for variables in child.iterchildren("nvram", "loader"):
                    yield from self._of_sources(variables)
            elif child.tag == "seclabel":
                yield from _label(child, domain=True)
            if child.tag == "devices":
                for device in child.iterchildren("*"):
                    yield from self._of_device(device)
            elif child.tag != "metadata":
                yield from self._paths(child, "")

    def _of_device(self, device: etree._Element) -> Iterator[Fault]:
        tag = str(device.tag)
        if tag in _OF_HOST:
            yield Fault("hostdev", _shown(device))
        elif tag not in _DEVICES:
            yield Fault("elements", _shown(device))
        elif tag == "emulator":
            if _text(device) not in _EMULATORS:
                yield Fault("emulator", _shown(device))
            return
        yield from _type(device)
        if device.find(".//log") is not None:
            # virtlogd writes it as root, what the guest says: to where libvirt reads documents.
            yield Fault("chardevs", f"<log> of a <{tag}>")
        if tag == "disk":
            yield from self._of_disk(device)
        elif tag == "interface":
            yield from _of_interface(device)
        for label in device.iter("seclabel"):
            yield from _label(label, domain=False)
        yield from self._paths(device, tag)

    def _of_disk(self, disk: etree._Element) -> Iterator[Fault]:
        yield from _unknown(disk, _DISK)
        if disk.get("device") == "lun" or disk.get("rawio") == "yes" or disk.get("sgio"):
            yield Fault("hostdev", "<disk> with raw access to a device")
        yield from self._of_sources(disk)

    def _of_sources(self, disk: etree._Element) -> Iterator[Fault]:
        """What a disk or the firmware's variables lead to, and whatever stands below and beside."""
        for source in disk.iter("source"):
            holder = source.getparent()
            kind = "file" if holder is None else holder.get("type", "file")
            if kind not in ("file", "block", "network"):
                yield Fault("files", "<disk> of another type than network, file and block")
            if source.get("protocol", "rbd") != "rbd":
                yield Fault("files", "<source> of a protocol other than rbd")
            if "dev" in source.attrib and not self._may_lead(source.get("dev", ""), "disk"):
                yield Fault("files", "<source> with dev")
        for element in disk.iter("driver", "format", "nvram", "loader"):
            name = "type" if element.tag in ("driver", "format") else "format"
            if element.get(name, _RAW) != _RAW:
                yield Fault("files", f"<{element.tag!s}> of another format than raw")

    def _paths(self, part: etree._Element, device: str) -> Iterator[Fault]:
        """What leads to files of the host, in whatever element or attribute it stands."""
        for element in part.iter("*"):
            tag = str(element.tag)
            text = _own_text(element)
            is_path = ("/" in text and tag not in _FREE_TEXT) or tag in _PATH_TEXTS
            if len(element):
                if text:
                    # libvirt takes both for one text, wherever it wants one.
                    yield Fault("elements", f"<{tag}> with elements and text")
            elif is_path and not self._may_lead(text, tag):
                yield Fault(_kind_of_path(tag), f"<{tag}> with this path")
            for name, value in ((str(n), str(v)) for n, v in element.items()):
                is_path = ("/" in value and name not in _FREE_TEXT) or name in _PATHS
                if is_path and not self._may_lead(value, _place(element, device)):
                    yield Fault(_kind_of_path(tag), f"<{tag}> with this {name}")

    def _may_lead(self, path: str, place: str) -> bool:
        if not path.startswith("/") or posixpath.normpath(path) != path.rstrip("/"):
            return not path
        return path.startswith((*self._directories, *_PLACES.get(place, ())))


def _place(element: etree._Element, device: str) -> str:
    """By which rule an attribute of an element is judged."""
    if device in ("console", "serial", "parallel", "channel"):
        owner = next((e for e in (element, *element.iterancestors()) if e.tag == device), element)
        return "channel" if owner.get("type") == "unix" else str(owner.get("type"))
    return str(element.tag)


def _type(device: etree._Element) -> Iterator[Fault]:
    tag = str(device.tag)
    known = _TYPES.get(tag)
    if known is not None and device.get("type") not in known:
        default = "chardevs" if tag in ("console", "serial", "parallel", "channel") else "elements"
        yield Fault(_KIND_OF_TYPE.get(tag, default), f"<{tag}> of this type")
    modes = {source.get("mode") for source in device.iterchildren("source")}
    if device.get("type") == "unix" and modes - {"bind"}:
        yield Fault("chardevs", f"<{tag}> that connects to a socket")
    for backend in device.iterchildren("backend"):
        if tag in _BACKENDS:
            kind = backend.get("model") or backend.get("type")
            if kind not in _BACKENDS[tag]:
                yield Fault("hostdev", f"<{tag}> with this backend")
            elif kind == "random" and _text(backend) not in _RANDOM:
                yield Fault("files", "<backend> with this path")
    if tag == "video" and device.find("driver[@name='vhostuser']") is not None:
        yield Fault("hostdev", "<video> by a program of the host")
    if tag == "smartcard" and (
        device.get("mode") not in _SMARTCARDS or device.get("type") != "spicevmc"
    ):
        yield Fault("hostdev", "<smartcard> of this mode")


def _of_interface(interface: etree._Element) -> Iterator[Fault]:
    for name in ("script", "downscript"):
        if interface.find(name) is not None:
            yield Fault("scripts", f"<{name}> of an <interface>")
    yield from _unknown(interface, _INTERFACE | {"script", "downscript"})


def _label(label: etree._Element, *, domain: bool) -> Iterator[Fault]:
    """A label of its own could have QEMU run as root, or a file given to it."""
    own = label.find("baselabel") is not None
    if domain:
        own = own or label.get("type", "dynamic") != "dynamic"
    else:
        own = own or label.find("label") is not None or label.get("relabel") == "yes"
    if own:
        yield Fault("seclabels", "<seclabel> of its own")


def _unknown(parent: etree._Element, known: frozenset[str]) -> Iterator[Fault]:
    for child in parent.iterchildren("*"):
        if child.tag not in known:
            yield Fault("elements", f"{_shown(child)} in <{parent.tag!s}>")


def _kind_of_path(tag: str) -> str:
    return "chardevs" if tag in ("log", "console") else "files"


def _own_text(element: etree._Element) -> str:
    """What stands directly in an element."""
    return "".join((element.text or "", *(child.tail or "" for child in element))).strip()


def _text(element: etree._Element) -> str:
    """All text in an element, as libvirt reads it: that of elements within it, too."""
    return "".join(map(str, element.itertext())).strip()


def _shown(element: etree._Element) -> str:
    return f"<{etree.QName(element).localname}>"
