# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM as libvirt's document describes it, running or not.

Field names in comments are those of https://libvirt.org/formatdomain.html.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from lxml import etree

from vdsmcinder.errors import InvalidParameter
from vdsmcinder.fields import UUID, Fields, kind_of, number
from vdsmcinder.hypervisor.xmldoc import child_attribute, parse
from vdsmcinder.uuids import is_uuid
from vdsmcinder.virt.disk import ceph_images, iotune_policy
from vdsmcinder.virt.disk.ceph_images import CephImages
from vdsmcinder.virt.disk.domain_disks import OpaqueDrive, read_drives
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.iotune_policy import DevicePolicy
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.domain.domain_devices import Graphics, Interface
from vdsmcinder.virt.domain.metadata import VmMetadata
from vdsmcinder.virt.domain.policy import CpuLimit
from vdsmcinder.virt.domain.topology import COUNT, Topology

# Units of <memory>, in bytes.
_UNITS: Mapping[str, int] = {
    "b": 1,
    "bytes": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", start=1)},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
    **{prefix.lower(): 1024**power for power, prefix in enumerate("KMGT", start=1)},
    **{prefix: 1024**power for power, prefix in enumerate("KMGT", start=1)},
}

# Where a document tells of a VM's data that libvirt keeps in files of this host.
_OUTSIDE = {"tpm": "devices/tpm/backend[@type='emulator']", "nvram": "os/nvram"}

# What changes in a running VM without a change of its devices.
_VOLATILE = ("backingStore", "mirror")


@dataclass(frozen=True)
class Domain:
    """What a domain document says.

    hypervisor: kvm or qemu. memory_mib: at boot, and what was plugged since; max_memory_mib: what
    it can grow to by memory_slots devices, None without any. vcpus: now; max_vcpus: what it can be
    given.
    cpu: a model with its features (Haswell,+aes), or host-model, host-passthrough, maximum; None
    for QEMU's default. serial: of its SMBIOS. time_offset_s: its clock against UTC. boot: devices
    (hd, cdrom, network, fd) where disks have no order of their own. agent_connected: whether the
    guest agent has opened its channel. balloon: whether it has one.
    kept_outside: of tpm and nvram, what libvirt keeps in files of this host. io_tune_policy: what
    an engine's metadata say of its disks. opaque_drives: disks that a Drive cannot express. ceph:
    the images on Ceph of both, and the secrets that they name.
    controllers: the types of those that it has (scsi, usb, ...); none where none is told.
    scsi_controllers: the numbers of those.
    devices_hash: differs when the devices do, and only then.
    """

    uuid: str
    name: str
    hypervisor: str
    memory_mib: int
    max_memory_mib: int | None
    memory_slots: int
    vcpus: int
    max_vcpus: int
    topology: Topology
    machine: str | None
    cpu: str | None
    serial: str | None
    acpi: bool
    time_offset_s: int
    io_threads: int
    boot: tuple[str, ...]
    drives: tuple[Drive, ...]
    opaque_drives: tuple[OpaqueDrive, ...]
    ceph: CephImages
    interfaces: tuple[Interface, ...]
    graphics: tuple[Graphics, ...]
    controllers: frozenset[str]
    scsi_controllers: frozenset[int]
    balloon: bool
    kept_outside: frozenset[str]
    agent_connected: bool
    devices_hash: str
    cpu_limit: CpuLimit
    io_tune_policy: tuple[DevicePolicy, ...]
    metadata: VmMetadata

    @property
    def targets(self) -> frozenset[str]:
        """Target names of all disks: those that a new disk cannot have."""
        return frozenset(d.target for d in self.drives) | {d.target for d in self.opaque_drives}

    def lacks(self, bus: str) -> bool:
        """Whether it has no controller for disks of a bus, as far as its document tells."""
        return bus in ("scsi", "usb") and bool(self.controllers) and bus not in self.controllers

    @classmethod
    def from_xml(cls, xml: str) -> Domain:
        """Read a domain document, of a running VM or as it was defined.

        Raises InvalidParameter and MissingParameter for a document that libvirt would not take.
        """
        root = parse(xml, "domain xml")
        if root.tag != "domain":
            raise InvalidParameter(
                f"domain xml: its root is <{root.tag!s}>; expected <domain>", field="xml"
            )
        uuid = root.findtext("uuid")
        thing = f"domain {uuid}" if is_uuid(uuid) else "domain"
        values = Fields(_values(root), thing)
        devices = _devices(root)
        if devices is None:
            raise values.missing("devices", "the VM's devices")
        max_vcpus = values.get("vcpu", COUNT) or 1
        drives, opaque = read_drives(devices)
        return cls(
            uuid=values.need("uuid", UUID),
            name=root.findtext("name") or "",
            hypervisor=root.get("type", ""),
            memory_mib=_memory_mib(root, "memory", values),
            max_memory_mib=(
                _memory_mib(root, "maxMemory", values) if "maxMemory" in values else None
            ),
            memory_slots=values.get("maxMemory.slots", number(0)) or 0,
            vcpus=values.get("vcpu.current", COUNT) or max_vcpus,
            max_vcpus=max_vcpus,
            topology=Topology.read(root, max_vcpus, thing),
            machine=child_attribute(root, "os/type", "machine"),
            cpu=_cpu(root),
            serial=root.findtext("sysinfo/system/entry[@name='serial']") or None,
            acpi=root.find("features/acpi") is not None,
            time_offset_s=values.get("clock.adjustment", number(-(2**31), 2**31)) or 0,
            io_threads=values.get("iothreads", number(0)) or 0,
            boot=tuple(boot.get("dev", "") for boot in root.iterfind("os/boot")),
            drives=drives,
            opaque_drives=opaque,
            ceph=ceph_images.of_domain(root),
            interfaces=tuple(map(Interface.read, devices.iterfind("interface"))),
            graphics=tuple(map(Graphics.read, devices.iterfind("graphics"))),
            controllers=_controllers(devices),
            scsi_controllers=_scsi_controllers(devices, thing),
            balloon=child_attribute(devices, "memballoon", "model") not in (None, "none"),
            kept_outside=frozenset(
                kind for kind, path in _OUTSIDE.items() if root.find(path) is not None
            ),
            agent_connected=_agent_connected(devices),
            devices_hash=_hash(devices),
            cpu_limit=CpuLimit.read(root),
            io_tune_policy=iotune_policy.read(root),
            metadata=VmMetadata.of_domain(root),
        )


@dataclass(frozen=True)
class Document:
    """A domain document that may be shown, and what it says."""

    xml: str = field(repr=False)
    domain: Domain

    @classmethod
    def read(cls, xml: str) -> Document:
        """Read a document of libvirt's own, which has no passwords. Raises as Domain.from_xml."""
        return cls(xml, Domain.from_xml(xml))

    @classmethod
    def censored(cls, xml: str) -> Document:
        """Read a document of an engine's or of another host's. Raises as Domain.from_xml."""
        return cls.read(without_passwords(xml))


def is_ours(xml: str) -> bool:
    """Whether this daemon defined the domain: others are never touched."""
    return metadata.NAMESPACE in xml and metadata.is_marked(parse(xml, "domain xml"))


def without_passwords(xml: str) -> str:
    """A domain document as it may be shown: without the passwords of its displays.

    libvirt leaves them out of its own documents; what an engine sent may hold them.
    """
    root = parse(xml, "domain xml")
    for graphics in root.iterfind("devices/graphics"):
        graphics.attrib.pop("passwd", "")
    return etree.tostring(root, encoding="unicode")


def _devices(root: etree._Element) -> etree._Element | None:
    """What stands in <devices>, of which libvirt takes several as if they were one."""
    found = root.findall("devices")
    if len(found) < 2:
        return found[0] if found else None
    whole = etree.Element("devices")
    for part in found:
        whole.extend(copy.deepcopy(list(part)))
    return whole


def _values(root: etree._Element) -> dict[str, str | None]:
    return {
        "uuid": root.findtext("uuid"),
        "vcpu": root.findtext("vcpu"),
        "vcpu.current": child_attribute(root, "vcpu", "current"),
        "memory": root.findtext("memory"),
        "maxMemory": root.findtext("maxMemory"),
        "maxMemory.slots": child_attribute(root, "maxMemory", "slots"),
        "clock.adjustment": _adjustment(root),
        "iothreads": root.findtext("iothreads"),
    }


def _adjustment(root: etree._Element) -> str | None:
    """Seconds; 'reset', the other value that libvirt knows, starts at none."""
    adjustment = child_attribute(root, "clock", "adjustment")
    return None if adjustment == "reset" else adjustment


def _memory_mib(root: etree._Element, tag: str, values: Fields) -> int:
    unit = child_attribute(root, tag, "unit") or "KiB"
    if unit not in _UNITS:
        raise InvalidParameter(
            f"{values.thing}: unit of {tag} is {kind_of(unit)}; expected one of "
            f"{', '.join(_UNITS)}",
            field=f"{tag}.unit",
        )
    return values.need(tag, number(0)) * _UNITS[unit] // 1024**2


def _cpu(root: etree._Element) -> str | None:
    """The CPU as engines write it: model and features, or libvirt's mode."""
    cpu = root.find("cpu")
    if cpu is None:
        return None
    mode = cpu.get("mode", "custom")
    if mode != "custom":
        return mode
    model = cpu.findtext("model")
    if model is None:
        return None
    signs = {"disable": "-", "forbid": "-"}
    features = (
        signs.get(feature.get("policy", "require"), "+") + feature.get("name", "")
        for feature in cpu.iterfind("feature")
    )
    return ",".join((model, *features))


def _controllers(devices: etree._Element) -> frozenset[str]:
    found = devices.iterfind("controller")
    return frozenset(one.get("type", "") for one in found if one.get("model") != "none")


def _scsi_controllers(devices: etree._Element, thing: str) -> frozenset[int]:
    found = devices.iterfind("controller[@type='scsi']")
    numbers = (Fields({"index": one.get("index")}, thing, "controller") for one in found)
    return frozenset(one.get("index", number(0)) or 0 for one in numbers)


def _agent_connected(devices: etree._Element) -> bool:
    agent = devices.find("channel/target[@name='org.qemu.guest_agent.0']")
    return agent is not None and agent.get("state") == "connected"


def _hash(devices: etree._Element) -> str:
    lasting = copy.deepcopy(devices)
    for name in _VOLATILE:
        for element in list(lasting.iter(name)):
            parent = element.getparent()
            if parent is not None:
                parent.remove(element)
    # The agent comes and goes without a device being changed.
    for target in lasting.iterfind("channel/target"):
        target.attrib.pop("state", "")
    # A ticket opens a display and changes nothing of it.
    for graphics in lasting.iterfind("graphics"):
        graphics.attrib.pop("passwdValidTo", "")
    return hashlib.sha256(etree.tostring(lasting, method="c14n")).hexdigest()[:16]
