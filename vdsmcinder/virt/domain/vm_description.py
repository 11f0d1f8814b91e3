# SPDX-License-Identifier: GPL-2.0-or-later
"""An engine's flat description of a VM, checked and typed (contract/wire.md, "vmParams").

virt/domain/create_request.py reads it, virt/domain/domain_writer.py writes the domain that it
describes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vdsmcinder.fields import BOOLEAN, TEXT, Fields, choice, matching, number
from vdsmcinder.virt.disk import disk_params
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.source import ABSOLUTE_PATH
from vdsmcinder.virt.domain.devices import Display, Nic
from vdsmcinder.virt.domain.topology import COUNT, Topology

log = logging.getLogger(__name__)

# libvirt makes file names of it.
NAME = matching(r"[^/\n]{1,255}", "a name without '/'")

MEMORY_MIB = number(1, 2**34)
_CPU = matching(r"[A-Za-z0-9_.-]+(,[+-]?[A-Za-z0-9_.-]+)*", "a model and features: Haswell,+aes")
_BOOT = matching("[acdn]*", "letters of a (floppy), c (disk), d (cdrom), n (network)")
_BOOT_DEVICES: Mapping[str, str] = {"a": "fd", "c": "hd", "d": "cdrom", "n": "network"}

# Devices that every domain written here has anyway, or that a VM runs well without.
_OWN = ("controller", "channel", "console", "rng", "video")
_DISPENSABLE = ("sound", "smartcard", "watchdog")
_READ = ("disk", "interface", "graphics", "balloon")
_TYPE = choice(*_READ, *_OWN, *_DISPENSABLE)


@dataclass(frozen=True)
class Kernel:
    """A kernel that is booted directly, from files on this host."""

    path: str
    initrd: str | None
    arguments: str | None


@dataclass(frozen=True)
class VmDescription:
    """A VM as an engine describes it.

    vcpus: at start; max_vcpus: what it can be given. machine: QEMU's machine type. cpu: model with
    features, or a mode of libvirt's. kvm: False asks for emulation. time_offset_s: of its clock
    against UTC, None for none. boot: devices to try where no device has an order of its own.
    io_threads: how many. custom: the engine's own properties, kept in our metadata.
    """

    name: str | None
    memory_mib: int
    guaranteed_mib: int | None
    vcpus: int
    max_vcpus: int
    topology: Topology
    machine: str
    cpu: str | None
    kvm: bool
    acpi: bool
    serial: str | None
    time_offset_s: int | None
    boot: tuple[str, ...]
    boot_menu: bool
    kernel: Kernel | None
    io_threads: int
    balloon: bool
    drives: tuple[Drive, ...]
    nics: tuple[Nic, ...]
    display: Display | None
    cluster_version: str | None
    destroy_on_reboot: bool
    custom: Fields = field(repr=False)

    @classmethod
    def from_fields(cls, fields: Fields, default_secret: str | None = None) -> VmDescription:
        """Read vmParams without xml.

        default_secret: what an answer of Cinder's without secret_uuid means.
        Raises MissingParameter, InvalidParameter and UnsupportedDrive.
        """
        devices = _by_type(fields)
        drives = _drives(devices["disk"], default_secret)
        vcpus = fields.get("smp", COUNT) or 1
        max_vcpus = fields.get("maxVCpus", COUNT) or vcpus
        if vcpus > max_vcpus:
            raise fields.invalid("smp", f"at most maxVCpus, {max_vcpus}")
        machine = fields.get("emulatedMachine", TEXT) or "q35"
        if "q35" in machine:
            _refuse_ide(fields, drives)
        return cls(
            name=fields.get("vmName", NAME),
            memory_mib=fields.need("memSize", MEMORY_MIB),
            guaranteed_mib=fields.get("memGuaranteedSize", number(0)),
            vcpus=vcpus,
            max_vcpus=max_vcpus,
            topology=_topology(fields, max_vcpus),
            machine=machine,
            cpu=fields.get("cpuType", _CPU),
            kvm=fields.get("kvmEnable", BOOLEAN) is not False,
            acpi=fields.get("acpiEnable", BOOLEAN) is not False,
            serial=fields.get("serial", TEXT),
            time_offset_s=fields.get("timeOffset", number(-(2**31), 2**31)),
            boot=tuple(_BOOT_DEVICES[letter] for letter in fields.get("boot", _BOOT) or "c"),
            boot_menu=fields.get("bootMenuEnable", BOOLEAN) or False,
            kernel=_kernel(fields),
            io_threads=_io_threads(fields, drives),
            balloon=all(_balloon(device) for device in devices["balloon"]),
            drives=drives,
            nics=tuple(map(Nic.from_fields, devices["interface"])),
            display=_display(fields, devices["graphics"]),
            cluster_version=fields.get("clusterVersion", TEXT),
            destroy_on_reboot=fields.get("destroy_on_reboot", BOOLEAN) or False,
            custom=fields.section("custom"),
        )


def _by_type(fields: Fields) -> Mapping[str, Sequence[Fields]]:
    """The devices that are read here, by type; a device that would be missed is refused."""
    devices: dict[str, list[Fields]] = {kind: [] for kind in _READ}
    for device in fields.sections("devices"):
        kind = device.need("type", _TYPE)
        if kind in devices:
            devices[kind].append(device)
        elif kind in _DISPENSABLE:
            log.warning("%s: a device of type %s is left out", fields.thing, kind)
    return devices


def _drives(disks: Sequence[Fields], default_secret: str | None) -> tuple[Drive, ...]:
    """Disks with an index keep it; those without get what those leave free."""
    described = [disk_params.read(disk.values, default_secret) for disk in disks]
    taken: set[str] = set()
    for disk, params in zip(disks, described):
        if params.index is None:
            continue
        name = params.target(taken)
        if name in taken:
            raise disk.invalid("index", f"another one, {name} is taken")
        taken.add(name)
    drives = []
    for params in described:
        drive = Drive.of(params, taken)
        taken.add(drive.target)
        drives.append(drive)
    return tuple(drives)


def _refuse_ide(fields: Fields, drives: Sequence[Drive]) -> None:
    for drive in drives:
        if drive.bus == "ide":
            raise fields.invalid(
                "emulatedMachine", f"one with IDE for disk {drive.name}, or iface sata instead"
            )


def _topology(fields: Fields, max_vcpus: int) -> Topology:
    cores = fields.get("smpCoresPerSocket", COUNT) or 1
    threads = fields.get("smpThreadsPerCore", COUNT) or 1
    sockets, rest = divmod(max_vcpus, cores * threads)
    if rest:
        name = "maxVCpus" if "maxVCpus" in fields else "smp"
        expected = "a multiple of smpCoresPerSocket times smpThreadsPerCore"
        raise fields.invalid(name, f"{expected}, {cores * threads}")
    return Topology(sockets, cores, threads)


def _kernel(fields: Fields) -> Kernel | None:
    path = fields.get("kernel", ABSOLUTE_PATH)
    if path is None:
        return None
    initrd = fields.get("initrd", ABSOLUTE_PATH)
    return Kernel(path, initrd, fields.get("kernelArgs", TEXT))


def _io_threads(fields: Fields, drives: Sequence[Drive]) -> int:
    """As many as asked for, and as the disks are pinned to."""
    pinned = (drive.driver.iothread or 0 for drive in drives)
    return max(fields.get("numOfIoThreads", number(0, 1024)) or 0, *pinned, 0)


def _balloon(device: Fields) -> bool:
    return device.section("specParams").get("model", choice("virtio", "none")) != "none"


def _display(fields: Fields, graphics: Sequence[Fields]) -> Display | None:
    if graphics:
        return Display.from_fields(graphics[0])
    if "display" not in fields:
        return None
    fields.need("display", choice("vnc", "qxl"))
    return Display("vnc", fields.get("displayIp", TEXT), fields.get("keyboardLayout", TEXT))
