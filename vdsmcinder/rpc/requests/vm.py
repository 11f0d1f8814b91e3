# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of VM.create, in both of their forms (contract/wire.md, "vmParams").

A domain document of the engine's own, or a flat description for which the document is written here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from vdsmcinder.errors import InvalidParameter
from vdsmcinder.fields import BOOLEAN, TEXT, UUID, Fields, choice, kind_of, matching, number
from vdsmcinder.rpc.requests.disk import read_consent
from vdsmcinder.rpc.requests.nic import read_nic
from vdsmcinder.virt.disk import disk_params
from vdsmcinder.virt.disk.domain_disks import check_groups
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.driver import MOST_IO_THREADS
from vdsmcinder.virt.disk.source import ABSOLUTE_PATH
from vdsmcinder.virt.domain.create_request import VmDocument
from vdsmcinder.virt.domain.devices import Display
from vdsmcinder.virt.domain.metadata import CUSTOM_NAME
from vdsmcinder.virt.domain.topology import COUNT, Topology
from vdsmcinder.virt.domain.vm_description import NAME, Kernel, VmDescription

log = logging.getLogger(__name__)

MEMORY_MIB = number(1, 2**34)
# As many as QEMU has, and as oVirt's engine gives VMs.
_MEMORY_SLOTS = number(1, 256)
_USUAL_MEMORY_SLOTS = 16
_CPU = matching(r"[A-Za-z0-9_.-]+(,[+-]?[A-Za-z0-9_.-]+)*", "a model and features: Haswell,+aes")
_BOOT = matching("[acdn]*", "letters of a (floppy), c (disk), d (cdrom), n (network)")
_BOOT_DEVICES: Mapping[str, str] = {"a": "fd", "c": "hd", "d": "cdrom", "n": "network"}

# Each takes one of a PCIe machine's ports, of which it cannot have more than 255.
_SCSI_CONTROLLERS = 32

# Devices that every domain written here has anyway, or that a VM runs well without.
_OWN = ("controller", "channel", "console", "rng", "video")
_DISPENSABLE = ("sound", "smartcard", "watchdog")
_READ = ("disk", "interface", "graphics", "balloon")
_TYPE = choice(*_READ, *_OWN, *_DISPENSABLE)


def read_vm(
    vm_id: str, params: Mapping[str, Any], default_secret: str | None = None
) -> VmDocument | VmDescription:
    """Read vmParams.

    vm_id: the request's vmID. default_secret: UUID of the secret that an answer of Cinder's without
    secret_uuid means. Raises MissingParameter (11), UnsupportedDrive (36), InvalidParameter (91);
    each names the field, the kind of its value and what was expected.
    """
    fields = Fields(params, f"VM {vm_id}")
    if fields.get("vmId", UUID) not in (None, vm_id):
        raise fields.invalid("vmId", f"the request's vmID, {vm_id}")
    if "xml" not in fields:
        return _read_description(fields, default_secret)
    return VmDocument(
        xml=fields.need("xml", TEXT),
        name=fields.get("vmName", NAME),
        launch_paused=fields.get("launchPaused", BOOLEAN) or False,
        consent=read_consent(fields),
    )


def _read_description(fields: Fields, default_secret: str | None) -> VmDescription:
    """Read vmParams without xml."""
    devices = _by_type(fields)
    drives = _drives(devices["disk"], default_secret)
    _refuse_twice([*devices["disk"], *devices["interface"]])
    vcpus = fields.get("smp", COUNT) or 1
    max_vcpus = fields.get("maxVCpus", COUNT) or vcpus
    if vcpus > max_vcpus:
        raise fields.invalid("smp", f"at most maxVCpus, {max_vcpus}")
    machine = fields.get("emulatedMachine", TEXT) or "q35"
    if "q35" in machine:
        _refuse_ide(fields, drives)
    return VmDescription(
        name=fields.get("vmName", NAME),
        memory_mib=fields.need("memSize", MEMORY_MIB),
        guaranteed_mib=fields.get("memGuaranteedSize", number(0)),
        max_memory_mib=_max_memory_mib(fields),
        memory_slots=fields.get("maxMemSlots", _MEMORY_SLOTS) or _USUAL_MEMORY_SLOTS,
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
        nics=tuple(map(read_nic, devices["interface"])),
        display=_display(fields, devices["graphics"]),
        cluster_version=fields.get("clusterVersion", TEXT),
        destroy_on_reboot=fields.get("destroy_on_reboot", BOOLEAN) or False,
        custom=_custom(fields.section("custom")),
        launch_paused=fields.get("launchPaused", BOOLEAN) or False,
        consent=read_consent(fields),
    )


def _max_memory_mib(fields: Fields) -> int | None:
    """None where it is no more than what the VM has anyway: then it needs no slots."""
    most, at_start = fields.get("maxMemSize", MEMORY_MIB), fields.need("memSize", MEMORY_MIB)
    if most is not None and most < at_start:
        raise fields.invalid("maxMemSize", f"at least memSize, {at_start}")
    return most if most != at_start else None


def _custom(given: Fields) -> tuple[tuple[str, str], ...]:
    """An engine's own properties, which become element names: others are refused."""
    names = given.names()
    for name in names:
        _check_custom_name(given.thing, name)
    return tuple((name, given.need(name, TEXT)) for name in names)


def _check_custom_name(thing: str, name: str) -> None:
    try:
        CUSTOM_NAME.convert(name)
    except ValueError:
        raise InvalidParameter(
            f"{thing}: the name of a property in custom is {kind_of(name)}; expected "
            f"{CUSTOM_NAME.expected}",
            field="custom",
        ) from None


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
        wish = params.target_wish
        if wish is None:
            continue
        if wish in taken:
            raise disk.invalid("index", f"another one, {wish} is taken")
        taken.add(wish)
    drives = []
    for params in described:
        drive = Drive.of(params, taken if params.target_wish is None else ())
        taken.add(drive.target)
        drives.append(drive)
    for disk, drive in zip(disks, drives):
        if drive.bus == "scsi" and drive.controller >= _SCSI_CONTROLLERS:
            name = "index" if drive.address is None else "address"
            expected = f"one on the first {_SCSI_CONTROLLERS} SCSI controllers, each of 7 disks"
            raise disk.invalid(name, expected)
    check_groups(drives)
    return tuple(drives)


def _refuse_twice(devices: Sequence[Fields]) -> None:
    """An alias and a place in the boot order are one device's."""
    orders: set[int] = set()
    aliases: set[str] = set()
    for device in devices:
        order, alias = device.get("bootOrder", disk_params.BOOT_ORDER), disk_params.alias(device)
        if order in orders:
            raise device.invalid("bootOrder", "another one, for that is another device's")
        if alias in aliases:
            name = "alias" if "alias" in device else "deviceId"
            raise device.invalid(name, "another one, for that is another device's")
        orders.update(() if order is None else (order,))
        aliases.update(() if alias is None else (alias,))


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
    return max(fields.get("numOfIoThreads", number(0, MOST_IO_THREADS)) or 0, *pinned, 0)


def _balloon(device: Fields) -> bool:
    return device.section("specParams").get("model", choice("virtio", "none")) != "none"


def _display(fields: Fields, graphics: Sequence[Fields]) -> Display | None:
    if graphics:
        return _read_graphics(graphics[0])
    if "display" not in fields:
        return None
    fields.need("display", choice("vnc", "qxl"))
    return Display("vnc", fields.get("displayIp", TEXT), fields.get("keyboardLayout", TEXT))


def _read_graphics(graphics: Fields) -> Display:
    """Read a device of type graphics."""
    parameters = graphics.section("specParams")
    return Display(
        type=graphics.get("device", choice("vnc", "spice")) or "vnc",
        listen=parameters.get("displayIp", TEXT),
        keymap=parameters.get("keyMap", TEXT),
    )
