# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt and QEMU on this machine can run: machine types, CPU models, KVM.

It is asked once for each connection to libvirt; the documents that are read are those of
https://libvirt.org/formatcaps.html and https://libvirt.org/formatdomaincaps.html.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import libvirt
from lxml import etree


@dataclass(frozen=True)
class Hypervisor:
    """libvirt's answer. CPU models and features are those that a VM on this machine can have."""

    host_uuid: str | None
    kvm: bool
    machines: tuple[str, ...]
    cpu_models: tuple[str, ...]
    cpu_features: tuple[str, ...]
    tsc_hz: str | None
    tsc_scaling: bool


def fetch(handle: libvirt.virConnect) -> Hypervisor:
    """Ask libvirt; blocks, for seconds when libvirt has to probe QEMU first.

    Raises libvirt.libvirtError.
    """
    arch = os.uname().machine
    host = handle.getCapabilities()
    virt_type = "kvm" if _domain(etree.fromstring(host), arch, "kvm") is not None else "qemu"
    return parse(host, _domain_capabilities(handle, arch, virt_type), arch)


def _domain_capabilities(handle: libvirt.virConnect, arch: str, virt_type: str) -> str | None:
    try:
        return str(handle.getDomainCapabilities(None, arch, None, virt_type, 0))
    except libvirt.libvirtError as e:
        # No emulator for this architecture, or a driver that runs no QEMU at all.
        if e.get_error_code() in (libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_NO_SUPPORT):
            return None
        raise


def parse(host_xml: str, domain_xml: str | None, arch: str) -> Hypervisor:
    """Read libvirt's capabilities and, if there are any, its domain capabilities."""
    host = etree.fromstring(host_xml)
    cpu = None if domain_xml is None else etree.fromstring(domain_xml).find("cpu")
    counter = host.find("host/cpu/counter[@name='tsc']")
    return Hypervisor(
        host_uuid=host.findtext("host/uuid"),
        kvm=_domain(host, arch, "kvm") is not None,
        machines=_machines(host, arch),
        cpu_models=_cpu_models(cpu),
        cpu_features=_cpu_features(cpu),
        tsc_hz=None if counter is None else counter.get("frequency"),
        tsc_scaling=counter is not None and counter.get("scaling") == "yes",
    )


def _domain(host: etree._Element, arch: str, virt_type: str) -> etree._Element | None:
    return host.find(f"guest/arch[@name='{arch}']/domain[@type='{virt_type}']")


def _machines(host: etree._Element, arch: str) -> tuple[str, ...]:
    """Machine types and what they are short for: 'q35' and 'pc-q35-7.2'.

    A kvm domain lists its own only where they differ from those of the architecture.
    """
    own = None if (kvm := _domain(host, arch, "kvm")) is None else kvm.findall("machine")
    names = set()
    for machine in own or host.findall(f"guest/arch[@name='{arch}']/machine"):
        names.update({machine.text, machine.get("canonical")})
    return tuple(sorted(name for name in names if name))


def _cpu_models(cpu: etree._Element | None) -> tuple[str, ...]:
    if cpu is None:
        return ()
    models = cpu.findall("mode[@name='custom'][@supported='yes']/model[@usable='yes']")
    return tuple(sorted({model.text for model in models if model.text}))


def _cpu_features(cpu: etree._Element | None) -> tuple[str, ...]:
    if cpu is None:
        return ()
    features = cpu.findall("mode[@name='host-model']/feature[@policy='require']")
    return tuple(sorted(str(feature.get("name")) for feature in features))
