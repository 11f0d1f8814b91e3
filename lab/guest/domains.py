# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt documents for VMs of the lab: the guest on RBD disks, its console within reach.

For a domain that no daemon wrote.
"""

from __future__ import annotations

from collections.abc import Sequence

from lab.ceph.cluster import Ceph
from lab.guest.console import GuestConsole, PtyWire, SocketWire
from lab.guest.image import Guest
from lab.host.hypervisor import Host

SPARE_PORTS = 6

DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
{boot}  </os>
  <features><acpi/></features>
  <on_reboot>restart</on_reboot>
  <devices>
    <controller type='pci' index='0' model='pcie-root'/>
{ports}{disks}    <serial type='unix'>
      <source mode='bind' path='{console}.sock'/>
      <log file='{console}.log' append='off'/>
    </serial>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='virtio'/>
  </devices>
</domain>
"""
PORT = "    <controller type='pci' model='pcie-root-port'/>\n"
KERNEL_BOOT = """\
    <kernel>{guest.kernel}</kernel>
    <initrd>{guest.initrd}</initrd>
    <cmdline>{guest.kernel_args}</cmdline>
"""
DISK_BOOT = "    <boot dev='hd'/>\n"
DISK = """\
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source protocol='rbd' name='{pool}/{image}'>
{hosts}      </source>
      <auth username='{user}'><secret type='ceph' uuid='{secret}'/></auth>
      <target dev='{target}' bus='virtio'/>
    </disk>
"""
SECRET = """\
<secret ephemeral='yes' private='yes'>
  <uuid>{uuid}</uuid>
  <usage type='ceph'><name>lab/{uuid}</name></usage>
</secret>
"""


def domain_xml(host: Host, name: str, uuid: str, disks: Sequence[str], kernel: Guest | None) -> str:
    """A domain with these disk elements and root ports to spare; boots `kernel` or its first disk.

    Its console is `console_of(host, name)`.
    """
    return DOMAIN.format(
        name=name,
        uuid=uuid,
        memory_mib=256,
        boot=KERNEL_BOOT.format(guest=kernel) if kernel else DISK_BOOT,
        ports=PORT * (len(disks) + SPARE_PORTS),
        disks="".join(disks),
        console=host.lab_dir / "guests" / name,
    )


def disk_xml(ceph: Ceph, image: str, target: str, secret: str) -> str:
    """A disk on an image of the lab's pool, through all monitors, with a libvirt secret's key."""
    hosts = "".join(
        f"        <host name='{m.address}' port='{m.v1_port}'/>\n" for m in ceph.monitors
    )
    return DISK.format(
        pool=ceph.pool, image=image, hosts=hosts, user=ceph.user, target=target, secret=secret
    )


def secret_xml(uuid: str) -> str:
    """An ephemeral, private libvirt secret for a Ceph key."""
    return SECRET.format(uuid=uuid)


def console_of(host: Host, name: str) -> GuestConsole:
    """The console of a VM made with `domain_xml`, from its first line on."""
    base = host.lab_dir / "guests" / name
    return GuestConsole(SocketWire(base.with_suffix(".log"), base.with_suffix(".sock")))


def pty_console(host: Host, pty: str) -> GuestConsole:
    """The console of a VM that has a pty, by the path that `virsh ttyconsole` prints."""
    return GuestConsole(PtyWire(host.path(pty)))
