# SPDX-License-Identifier: GPL-2.0-or-later
"""What this machine is: its identity, hardware, operating system and kernel, from files alone.

Read at the time of the question; none of it needs a command to be run.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from vdsmcinder.host.files import key_values, number, root_text, text

ROOT = Path("/")

# Marks the ids that we derive from /etc/machine-id; machine-id(5) asks applications to do so.
APPLICATION_ID = uuid.UUID("2c9d1f1e-6a0b-4c0e-9b50-3c6b6f2f1a4d")

# What firmware puts into the UUID when its vendor left it out.
UNSET_UUIDS = (
    uuid.UUID(int=0),
    uuid.UUID(int=2**128 - 1),
    uuid.UUID("03000200-0400-0500-0006-000700080009"),
)


@dataclass(frozen=True)
class OperatingSystem:
    """The distribution; name is one of those that engines know, else 'unknown'."""

    name: str
    version: str
    release: str
    pretty_name: str


@dataclass(frozen=True)
class Hardware:
    """What the firmware says of the machine (DMI); '' where it says nothing."""

    manufacturer: str
    product: str
    version: str
    family: str
    serial: str
    uuid: str


ENGINE_NAMES = {"debian": "Debian", "fedora": "Fedora", "rhel": "RHEL"}


def operating_system(root: Path = ROOT) -> OperatingSystem:
    """The distribution, from os-release(5). Those like RHEL are reported as RHEL."""
    release = key_values(text(root / "etc/os-release"))
    ids = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    # CentOS Stream and the rebuilds say 'rhel fedora' of themselves, so the order counts.
    name = next((ENGINE_NAMES[i] for i in ids if i in ENGINE_NAMES), "unknown")
    version = release.get("VERSION_ID", "")
    major, _, minor = version.partition(".")
    if name == "Debian":
        return OperatingSystem(name, version, "", release.get("PRETTY_NAME", ""))
    return OperatingSystem(name, major, minor, release.get("PRETTY_NAME", ""))


def document_words(root: Path = ROOT) -> dict[str, str]:
    """What oVirt's engine writes into VMs' documents for a host to replace, and by what."""
    system = operating_system(root)
    return {
        "OS-NAME:": system.name,
        "OS-VERSION:": "-".join(filter(None, (system.version, system.release))),
        "HOST-SERIAL:": host_uuid(None, root),
    }


def hardware(root: Path = ROOT) -> Hardware:
    """The machine by its firmware's DMI tables; serial number and UUID need root."""
    dmi = root / "sys/class/dmi/id"
    found = firmware_uuid(root)
    return Hardware(
        manufacturer=text(dmi / "sys_vendor"),
        product=text(dmi / "product_name"),
        version=text(dmi / "product_version"),
        family=text(dmi / "product_family"),
        serial=root_text(dmi / "product_serial"),
        uuid="" if found is None else found,
    )


def host_uuid(libvirt_uuid: str | None, root: Path = ROOT) -> str:
    """The host's identity, the same after every restart.

    libvirt_uuid: what libvirt reports for the host. It is the firmware's, or the one that an
    administrator configured in its place; but without either it is a new one at each start of
    libvirtd, so it only counts on a machine whose firmware has a UUID. Others are known by a UUID
    derived from /etc/machine-id.
    """
    firmware = firmware_uuid(root)
    if firmware is not None:
        return libvirt_uuid or firmware
    machine_id = text(root / "etc/machine-id")
    digest = hmac.new(machine_id.encode(), APPLICATION_ID.bytes, hashlib.sha256).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


def firmware_uuid(root: Path = ROOT) -> str | None:
    """The UUID in the machine's firmware, None where there is none that is worth the name."""
    for path in ("sys/class/dmi/id/product_uuid", "proc/device-tree/vm,uuid"):
        try:
            found = uuid.UUID(root_text(root / path).strip("\0"))
        except ValueError:
            continue
        if found not in UNSET_UUIDS:
            return str(found)
    return None


def boot_uuid(root: Path = ROOT) -> str:
    """Changes with each boot, random(4)."""
    return text(root / "proc/sys/kernel/random/boot_id")


def selinux_mode(root: Path = ROOT) -> str:
    """'1' enforcing, '0' permissive, '-1' disabled or not there."""
    return text(root / "sys/fs/selinux/enforce", "-1")


def nested_virtualization(root: Path = ROOT) -> bool:
    """Whether VMs may run VMs of their own."""
    modules = ("kvm_intel", "kvm_amd", "kvm")
    paths = (root / f"sys/module/{module}/parameters/nested" for module in modules)
    return any(text(path) in ("Y", "1") for path in paths)


def kdump_status(root: Path = ROOT) -> int:
    """1 if a crash is dumped and fencing told to wait for it, 0 if not, -1 if unknown."""
    loaded = number(root / "sys/kernel/kexec_crash_loaded", -1)
    if loaded != 1:
        return loaded
    return 1 if "\nfence_kdump_nodes" in "\n" + text(root / "etc/kdump.conf") else 0


def rng_sources(root: Path = ROOT) -> list[str]:
    """Where VMs' random number generators can draw from; hwrng only with a device behind it."""
    sources = ["random"] if (root / "dev/random").exists() else []
    current = text(root / "sys/class/misc/hw_random/rng_current")
    return [*sources, "hwrng"] if current not in ("", "none") else sources


def iscsi_initiator(root: Path = ROOT) -> str:
    """The name of the host's iSCSI initiator, '' without one."""
    return key_values(root_text(root / "etc/iscsi/initiatorname.iscsi")).get("InitiatorName", "")


def vnc_encrypted(root: Path = ROOT) -> bool:
    """Whether libvirt is configured to offer VNC over TLS alone."""
    return key_values(root_text(root / "etc/libvirt/qemu.conf")).get("vnc_tls") == "1"


def iommu(root: Path = ROOT) -> bool:
    """Whether devices of the host can be passed through to VMs."""
    return any((root / "sys/kernel/iommu_groups").glob("*"))


def realtime_kernel() -> bool:
    """Whether the kernel is built for real time."""
    return "PREEMPT_RT" in os.uname().version


def pinned_cpus() -> list[int]:
    """The processors that this daemon is confined to; empty if it may use all of them."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed if len(allowed) < (os.cpu_count() or 1) else []
