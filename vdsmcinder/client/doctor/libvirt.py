# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor's checks of libvirt, of what it needs to run VMs on Ceph, and of the VMs' secrets.

libvirt is asked as the daemon's user (client/doctor/probe.py), whom polkit may refuse what it lets
root do.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vdsmcinder.ceph.findings import Check, Finding
from vdsmcinder.client import system
from vdsmcinder.client.doctor.host import Host
from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.secrets.secret import SecretName

LIBVIRT, KVM = Check("libvirt"), Check("KVM")
QEMU, SECRETS = Check("QEMU"), Check("secrets")

# Of a package, and of `make install`.
POLKIT_RULES = tuple(
    Path(base, "polkit-1/rules.d/50-vdsm-cinder.rules") for base in ("/usr/share", "/etc")
)
_POLKIT_WORDS = ("polkit", "authentication", "access denied", "permission denied")
_DEVICE = Path("/dev/kvm")
_KVM_CREATE_VM = 0xAE01  # linux/kvm.h
_EMULATORS = ("/usr/libexec/qemu-kvm", f"qemu-system-{os.uname().machine}")
# QEMU opens this disk before anything else, and fails: with or without having the driver.
_DISK = "driver=rbd,node-name=doctor,pool=p,image=i,conf=/dev/null/none"
_BARE = ("-nodefaults", "-machine", "none", "-display", "none")


async def libvirt(host: Host) -> list[Finding]:
    """Whether it can be reached, and whether the daemon's user is let in."""
    told = await host.libvirt()
    uri, who = host.settings.libvirt.uri, system.daemon_identity()
    if "error" in told:
        return [_unreachable(uri, str(told["error"]))]
    broken = [part["error"] for part in told.values() if isinstance(part, dict)]
    if broken:
        remedy = f"systemctl restart {system.libvirt_units()}"
        return [LIBVIRT.wrong(f"it answers {uri}, but not all: {broken[0]}", remedy)]
    allowed = f"; user {who.name} may manage VMs" if who else ""
    return [LIBVIRT.ok(f"{_version(told['version'])} answers at {uri}{allowed}")]


def _unreachable(uri: str, error: str) -> Finding:
    if any(word in error.lower() for word in _POLKIT_WORDS):
        return LIBVIRT.wrong(f"{uri} refuses the daemon's user: {error}", _polkit_remedy())
    units = system.libvirt_units()
    return LIBVIRT.wrong(f"{uri} cannot be reached: {error}", f"systemctl restart {units}")


def _polkit_remedy() -> str:
    if not shutil.which("pkaction") and not Path("/usr/share/polkit-1").exists():
        return system.install("polkit", "polkitd")
    if not any(rule.exists() for rule in POLKIT_RULES):
        return system.reinstall()
    return "systemctl restart polkit"


async def kvm(host: Host) -> list[Finding]:
    """Whether VMs can use the processor's virtualisation, or are allowed to go without."""
    told = await host.libvirt()
    trouble, remedy = _kvm_trouble()
    if not trouble and told.get("kvm") == "":
        trouble = "libvirt finds that QEMU's user cannot use /dev/kvm"
        remedy = f"ls -l /dev/kvm; systemctl restart {system.libvirt_units()}"
    if not trouble:
        return [KVM.ok("usable")]
    if host.settings.vms.allow_emulation:
        return [KVM.ok(f"not usable ({trouble}); vms.allow_emulation has VMs emulated, slowly")]
    return [KVM.wrong(trouble, remedy)]


def _kvm_trouble() -> tuple[str, str]:
    """Why it is not usable, and what mends that; empty if it is."""
    if not _DEVICE.exists():
        module = _kvm_module()
        if module is None:
            enable = "enable VT-x or AMD-V in the firmware, or nesting where this host is a VM"
            return "there is no /dev/kvm, and the processor shows no virtualisation", enable
        return "there is no /dev/kvm", f"modprobe {module}"
    try:
        device = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        return f"/dev/kvm cannot be opened: {e.strerror}", "ls -l /dev/kvm"
    try:
        os.close(fcntl.ioctl(device, _KVM_CREATE_VM, 0))
    except OSError as e:
        return f"/dev/kvm makes no VM: {e.strerror}", "dmesg | grep -i kvm"
    finally:
        os.close(device)
    return "", ""


def _kvm_module() -> str | None:
    """The kernel's module for this processor; None if it cannot."""
    if os.uname().machine != "x86_64":
        return "kvm"
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    return "kvm_intel" if "vmx" in flags else "kvm_amd" if "svm" in flags else None


async def qemu(host: Host) -> list[Finding]:
    """Whether it is installed and has its rbd driver, a package of its own."""
    told = await host.libvirt()
    named = [told[kind] for kind in ("kvm", "emulation") if isinstance(told.get(kind), str)]
    known = [path for path in (*named, *_EMULATORS) if path and shutil.which(path)]
    if not known:
        remedy = system.install("qemu-kvm", "qemu-system-x86")
        return [QEMU.wrong("QEMU is not installed", remedy)]
    tried = await system.run(known[0], *_BARE, "-blockdev", _DISK)
    if "error reading conf file" in tried.err:
        return [QEMU.ok(f"{known[0]} has its rbd driver")]
    if "Unknown driver 'rbd'" in tried.err:
        remedy = system.install("qemu-kvm-block-rbd", "qemu-block-extra")
        return [QEMU.wrong("its rbd driver is not installed", remedy)]
    said = tried.err.splitlines()[-1:] or ["no word"]
    message = f"{known[0]} does not open disks on Ceph: {said[0]}"
    return [QEMU.wrong(message, system.install("qemu-kvm-block-rbd", "qemu-block-extra"))]


async def secrets(host: Host) -> list[Finding]:
    """Whether libvirt has the secrets that VMs need."""
    told = await host.libvirt()
    registered, vms = told.get("secrets"), told.get("domains")
    if not isinstance(registered, list) or not isinstance(vms, list):
        return [SECRETS.unknown("libvirt does not tell which there are")]
    domains = [domain for domain, _ in _readable(vms)]
    needed = {name.uuid: _needy(domains, name) for vm in domains for name in vm.ceph.secrets}
    missing = {uuid: names for uuid, names in needed.items() if uuid and uuid not in registered}
    if not missing:
        return [SECRETS.ok(f"all that VMs here need are registered: {len(needed)}")]
    return [
        SECRETS.wrong(f"{uuid}, needed by {names}, is not registered", _register(domains, uuid))
        for uuid, names in missing.items()
    ]


def _needy(domains: list[Domain], name: SecretName) -> str:
    return ", ".join(domain.name for domain in domains if name in domain.ceph.secrets)


def _register(domains: list[Domain], uuid: str) -> str:
    images = (image for domain in domains for image in domain.ceph.images)
    user = next((image.user for image in images if image.secret == SecretName(uuid)), None)
    if user is None:
        return f"vdsm-cinder register-secret --usage-type volume {uuid}"
    return f"ceph auth get-key client.{user} | vdsm-cinder register-secret {uuid}"


def domain_of(told: Mapping[str, Any], wanted: str) -> tuple[Domain, bool] | None:
    """The VM of that id, beginning of an id or name, and whether it runs; None if there is none."""
    vms = told.get("domains")
    for domain, running in _readable(vms if isinstance(vms, list) else []):
        if domain.name == wanted or domain.uuid.startswith(wanted.lower()):
            return domain, running
    return None


def _readable(vms: list[Any]) -> Iterator[tuple[Domain, bool]]:
    """The VMs whose documents make sense, and whether they run; /health tells of the others."""
    for vm in vms:
        with contextlib.suppress(VdsmCinderError):
            yield Domain.from_xml(vm["xml"]), vm["running"]


def _version(number: int) -> str:
    major, rest = divmod(number, 1_000_000)
    minor, release = divmod(rest, 1000)
    return f"{major}.{minor}.{release}"
