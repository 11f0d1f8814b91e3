# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM for which the domain document is written here: what engines tell of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from vdsmcinder.fields import TEXT, Kind
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.domain.devices import Display, Nic
from vdsmcinder.virt.domain.topology import Topology
from vdsmcinder.virt.storage.consent import NO_CONSENT, Consent

# libvirt writes files of that name and ".xml.new", and file names have 255 bytes at most.
LONGEST_NAME = 255 - len(".xml.new")


def _name(value: Any) -> str:
    name = TEXT.convert(value)
    if not re.fullmatch(r"[^/\n]+", name) or len(name.encode()) > LONGEST_NAME:
        raise ValueError
    return name


NAME = Kind(_name, f"a name without '/', of at most {LONGEST_NAME} bytes in UTF-8")


@dataclass(frozen=True)
class Kernel:
    """A kernel that is booted directly, from files on this host."""

    path: str
    initrd: str | None
    arguments: str | None


@dataclass(frozen=True)
class VmDescription:
    """A VM as an engine describes it.

    max_memory_mib: what it can be given by plugging memory into memory_slots slots, None for none.
    vcpus: at start; max_vcpus: what it can be given. machine: QEMU's machine type. cpu: model with
    features, or a mode of libvirt's. kvm: False asks for emulation. time_offset_s: of its clock
    against UTC, None for none. boot: devices to try where no device has an order of its own.
    io_threads: how many. custom: the engine's own properties, kept in our metadata, as pairs of
    name and text. launch_paused: whether it is to wait for VM.cont before it runs. consent: what is
    vouched for of its images.
    """

    name: str | None
    memory_mib: int
    guaranteed_mib: int | None
    max_memory_mib: int | None
    memory_slots: int
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
    custom: tuple[tuple[str, str], ...] = field(repr=False)
    launch_paused: bool
    consent: Consent = NO_CONSENT
