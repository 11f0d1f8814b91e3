# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing the domain document for a VM that an engine described without one.

A modern machine: q35, PCIe ports to spare for hot-plug, virtio, a serial console, the guest agent's
channel, a random number generator, a balloon (https://libvirt.org/formatdomain.html).
"""

from __future__ import annotations

from lxml import etree
from lxml.etree import SubElement

from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.domain.vm_description import VmDescription

BALLOON_STATS_PERIOD_S = 5
AGENT_CHANNEL = "org.qemu.guest_agent.0"

# Modes of <cpu>, by what engines call them.
_CPU_MODES = {
    "hostPassthrough": "host-passthrough",
    "host-passthrough": "host-passthrough",
    "hostModel": "host-model",
    "host-model": "host-model",
    "maximum": "maximum",
}
_POLICIES = {"+": "require", "-": "disable"}


def write(uuid: str, vm: VmDescription, spare_pcie_ports: int) -> etree._Element:
    """The <domain> for a VM, for KVM. spare_pcie_ports: for disks to be plugged while it runs."""
    domain = etree.Element("domain", {"type": "kvm"})
    SubElement(domain, "name").text = vm.name or uuid
    SubElement(domain, "uuid").text = uuid
    _write_metadata(domain, vm)
    if vm.max_memory_mib is not None:
        slots = {"slots": str(vm.memory_slots), "unit": "MiB"}
        SubElement(domain, "maxMemory", slots).text = str(vm.max_memory_mib)
    SubElement(domain, "memory", {"unit": "MiB"}).text = str(vm.memory_mib)
    SubElement(domain, "vcpu", {"current": str(vm.vcpus)}).text = str(vm.max_vcpus)
    if vm.io_threads:
        SubElement(domain, "iothreads").text = str(vm.io_threads)
    _write_os(domain, vm)
    _write_sysinfo(domain, uuid, vm)
    features = SubElement(domain, "features")
    if vm.acpi:
        SubElement(features, "acpi")
    SubElement(features, "apic")
    _write_cpu(domain, vm)
    _write_clock(domain, vm)
    SubElement(domain, "on_poweroff").text = "destroy"
    SubElement(domain, "on_reboot").text = "restart"
    SubElement(domain, "on_crash").text = "destroy"
    _write_devices(domain, vm, spare_pcie_ports)
    return domain


def _write_metadata(domain: etree._Element, vm: VmDescription) -> None:
    ours = metadata.mark(domain)
    if vm.cluster_version is not None:
        metadata.set_value(ours, "clusterVersion", vm.cluster_version)
    if vm.guaranteed_mib is not None:
        metadata.set_value(ours, metadata.GUARANTEED, str(vm.guaranteed_mib))
    if vm.destroy_on_reboot:
        metadata.set_value(ours, metadata.DESTROY_ON_REBOOT, "true")
    metadata.set_custom(ours, vm.custom)


def _write_os(domain: etree._Element, vm: VmDescription) -> None:
    os = SubElement(domain, "os")
    SubElement(os, "type", {"machine": vm.machine}).text = "hvm"
    if vm.kernel is not None:
        SubElement(os, "kernel").text = vm.kernel.path
        if vm.kernel.initrd is not None:
            SubElement(os, "initrd").text = vm.kernel.initrd
        if vm.kernel.arguments is not None:
            SubElement(os, "cmdline").text = vm.kernel.arguments
    # libvirt takes an order of devices or orders in the devices, not both.
    orders = [drive.boot_order for drive in vm.drives] + [nic.boot_order for nic in vm.nics]
    if not any(orders):
        for device in vm.boot:
            SubElement(os, "boot", {"dev": device})
    if vm.boot_menu:
        SubElement(os, "bootmenu", {"enable": "yes", "timeout": "10000"})
    SubElement(os, "smbios", {"mode": "sysinfo"})


def _write_sysinfo(domain: etree._Element, uuid: str, vm: VmDescription) -> None:
    system = SubElement(SubElement(domain, "sysinfo", {"type": "smbios"}), "system")
    entries = {"manufacturer": "oVirt", "serial": vm.serial or uuid, "uuid": uuid}
    for name, value in entries.items():
        SubElement(system, "entry", {"name": name}).text = value


def _write_cpu(domain: etree._Element, vm: VmDescription) -> None:
    wanted = vm.cpu or "host-model"
    if wanted in _CPU_MODES:
        cpu = SubElement(domain, "cpu", {"mode": _CPU_MODES[wanted]})
    else:
        cpu = SubElement(domain, "cpu", {"mode": "custom", "match": "exact"})
        model, *features = wanted.split(",")
        SubElement(cpu, "model").text = model
        for feature in features:
            policy = _POLICIES.get(feature[0], "require")
            SubElement(cpu, "feature", {"policy": policy, "name": feature.lstrip("+-")})
    vm.topology.write(cpu)
    if vm.max_memory_mib is not None:
        # libvirt plugs memory into a NUMA node, so there has to be one.
        cell = {"id": "0", "cpus": f"0-{vm.max_vcpus - 1}", "unit": "MiB"}
        SubElement(SubElement(cpu, "numa"), "cell", {**cell, "memory": str(vm.memory_mib)})


def _write_clock(domain: etree._Element, vm: VmDescription) -> None:
    if vm.time_offset_s is None:
        clock = SubElement(domain, "clock", {"offset": "utc"})
    else:
        offset = {"offset": "variable", "adjustment": str(vm.time_offset_s), "basis": "utc"}
        clock = SubElement(domain, "clock", offset)
    # A guest that did not run for a while catches up on its clock ticks, not all at once.
    SubElement(clock, "timer", {"name": "rtc", "tickpolicy": "catchup"})
    SubElement(clock, "timer", {"name": "pit", "tickpolicy": "delay"})
    SubElement(clock, "timer", {"name": "hpet", "present": "no"})


def _write_devices(domain: etree._Element, vm: VmDescription, spare_pcie_ports: int) -> None:
    devices = SubElement(domain, "devices")
    _write_controllers(devices, vm, spare_pcie_ports)
    for drive in vm.drives:
        devices.append(drive.getXML())
    for nic in vm.nics:
        nic.write(devices)
    _write_console(devices)
    channel = SubElement(devices, "channel", {"type": "unix"})
    SubElement(channel, "target", {"type": "virtio", "name": AGENT_CHANNEL})
    if vm.display is not None:
        vm.display.write(devices)
    balloon = SubElement(devices, "memballoon", {"model": "virtio" if vm.balloon else "none"})
    if vm.balloon:
        SubElement(balloon, "stats", {"period": str(BALLOON_STATS_PERIOD_S)})
    rng = SubElement(devices, "rng", {"model": "virtio"})
    SubElement(rng, "backend", {"model": "random"}).text = "/dev/urandom"


def _write_controllers(devices: etree._Element, vm: VmDescription, spare_pcie_ports: int) -> None:
    usb_model = "qemu-xhci" if _has_usb(vm) else "none"
    SubElement(devices, "controller", {"type": "usb", "index": "0", "model": usb_model})
    for index in range(_scsi_controllers(vm)):
        controller = {"type": "scsi", "index": str(index), "model": "virtio-scsi"}
        SubElement(devices, "controller", controller)
    if "q35" not in vm.machine:
        return
    SubElement(devices, "controller", {"type": "pci", "index": "0", "model": "pcie-root"})
    for index in range(1, 1 + _used_ports(vm) + spare_pcie_ports):
        port = {"type": "pci", "index": str(index), "model": "pcie-root-port"}
        SubElement(devices, "controller", port)


def _used_ports(vm: VmDescription) -> int:
    """Ports that the VM's own devices take; one each, for whatever is plugged is plugged whole."""
    always = 2  # the guest agent's virtio-serial controller and the random number generator
    disks = sum(drive.bus == "virtio" for drive in vm.drives)
    controllers = _scsi_controllers(vm) + _has_usb(vm)
    return always + disks + len(vm.nics) + controllers + vm.balloon


def _has_usb(vm: VmDescription) -> bool:
    """Whether it has USB: for the pointer of its display, or for disks."""
    return vm.display is not None or any(drive.bus == "usb" for drive in vm.drives)


def _scsi_controllers(vm: VmDescription) -> int:
    """All that its disks are on, and those before: libvirt would add missing ones as lsilogic."""
    return max((drive.controller + 1 for drive in vm.drives if drive.bus == "scsi"), default=0)


def _write_console(devices: etree._Element) -> None:
    serial = SubElement(devices, "serial", {"type": "pty"})
    SubElement(serial, "target", {"type": "isa-serial", "port": "0"})
    console = SubElement(devices, "console", {"type": "pty"})
    SubElement(console, "target", {"type": "serial", "port": "0"})
