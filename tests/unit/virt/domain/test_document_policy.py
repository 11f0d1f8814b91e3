# SPDX-License-Identifier: GPL-2.0-or-later
"""What profile strict lets through and what it refuses, on every way by which XML comes in."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lxml import etree

from tests.pages import REPOSITORY
from vdsmcinder.config import DOCUMENT_KINDS, Policy
from vdsmcinder.errors import InvalidParameter
from vdsmcinder.virt.domain.document_policy import DocumentPolicy
from vdsmcinder.virt.live import device_ops
from vdsmcinder.virt.migration.arrivals import Arrivals

DATA = Path(__file__).parents[2] / "data" / "domains"
ENGINE = etree.fromstring((DATA / "engine.xml").read_bytes())
ID = "5b6bd08c-5a3e-4d4f-a1a2-b6d5cf0ae9a0"
QEMU = 'xmlns:q="http://libvirt.org/schemas/domain/qemu/1.0"'
STRICT = DocumentPolicy(Policy("strict"))
DISK = "<disk type='file' device='disk'><source file='{}'/><target dev='vdz' bus='virtio'/></disk>"
RBD = (
    "<disk type='network' device='disk'><source protocol='rbd' name='p/i'>{}</source>"
    "<target dev='vdz' bus='virtio'/></disk>"
)
NIC = "<interface type='{}'><source bridge='br0'/>{}</interface>"

# By the word that lets it through: what may stand in <devices>, or else in <domain>.
DEVICES: list[tuple[str, str]] = [
    ("emulator", "<emulator>/tmp/x</emulator>"),
    ("emulator", "<emulator>qemu-system-x86_64</emulator>"),
    ("hostdev", "<hostdev mode='subsystem' type='pci'/>"),
    ("hostdev", "<filesystem type='mount'><source dir='/'/><target dir='x'/></filesystem>"),
    ("hostdev", "<rng model='virtio'><backend model='egd' type='tcp'/></rng>"),
    ("hostdev", "<tpm model='tpm-tis'><backend type='passthrough'/></tpm>"),
    ("hostdev", "<smartcard mode='host'/>"),
    ("hostdev", "<input type='evdev'><source dev='x'/></input>"),
    (
        "hostdev",
        "<disk type='block' device='lun'><source dev='/var/lib/libvirt/images/x'/></disk>",
    ),
    ("files", DISK.format("/etc/shadow")),
    ("files", DISK.format("etc/shadow")),
    ("files", DISK.format("/var/lib/libvirt/images/../../../../etc/shadow")),
    ("files", DISK.format("/var/lib/libvirt/images2/x")),
    ("files", DISK.format("//etc/shadow")),
    ("files", "<disk type='block'><source dev='/dev/sda'/><target dev='vdz'/></disk>"),
    ("files", "<disk type='nvme'><source type='pci'/><target dev='vdz'/></disk>"),
    ("files", "<disk type='volume'><source pool='p' volume='v'/><target dev='vdz'/></disk>"),
    ("files", "<disk type='network'><source protocol='nbd' name='x'/></disk>"),
    ("files", RBD.format("<config file='/root/ceph.conf'/>")),
    ("files", RBD.format("<host transport='unix' socket='/run/x'/>")),
    (
        "files",
        "<disk type='file'><source file='/var/lib/libvirt/images/x'/><backingStore type='file'>"
        "<source file='/etc/shadow'/></backingStore></disk>",
    ),
    ("files", "<memory model='nvdimm'><source><path>/dev/mem</path></source></memory>"),
    ("files", "<interface type='bridge'><source bridge='b'/><rom file='/etc/shadow'/></interface>"),
    ("files", "<graphics type='vnc'><listen type='socket' socket='/run/x'/></graphics>"),
    ("files", "<graphics type='spice'><gl enable='yes' rendernode='/dev/dri/x'/></graphics>"),
    # libvirt and QEMU start from the root directory.
    ("files", "<memory model='nvdimm'><source><path>etc/shadow</path></source></memory>"),
    ("files", "<memory model='nvdimm'><source><path>vmlinuz</path></source></memory>"),
    ("files", "<rng model='virtio'><backend model='random'>etc/shadow</backend></rng>"),
    ("files", "<rng model='virtio'><backend model='random'>/dev/random/../sda</backend></rng>"),
    ("files", "<graphics type='spice'><gl enable='yes' rendernode='dev/dri/x'/></graphics>"),
    ("files", "<graphics type='vnc' keymap='../../etc/shadow'/>"),
    ("files", "<interface type='bridge'><source bridge='b'/><backend tap='tap'/></interface>"),
    # What stands below a disk on Ceph counts as the disk does.
    *(
        ("files", RBD.format("").replace("</disk>", f"{below}</disk>"))
        for below in (
            "<backingStore type='nvme'><source type='pci' namespace='1'/></backingStore>",
            "<backingStore type='volume'><source pool='p' volume='v'/></backingStore>",
            "<backingStore type='vhostuser'><source type='unix'/></backingStore>",
            "<backingStore type='block'><source dev='dev/sda'/></backingStore>",
            "<mirror type='network'><source protocol='nbd' name='x'/></mirror>",
            "<backingStore type='network'><format type='qcow2'/>"
            "<source protocol='rbd' name='p/i'/></backingStore>",
        )
    ),
    (
        "files",
        "<disk type='file'><source file='/var/lib/libvirt/images/x'/><backingStore type='network'>"
        "<source protocol='https' name='x'/></backingStore></disk>",
    ),
    # What its guest wrote could say that another file stands below it.
    *(
        ("files", RBD.format("").replace("</disk>", f"<driver name='qemu' type='{name}'/></disk>"))
        for name in ("qcow2", "qed", "vmdk", "vhdx", "vpc", "luks", "iso", "RAW")
    ),
    ("interfaces", NIC.format("ethernet", "")),
    ("interfaces", NIC.format("direct", "")),
    ("interfaces", NIC.format("vhostuser", "")),
    ("interfaces", NIC.format("user", "")),
    ("scripts", NIC.format("bridge", "<script path='x'/>")),
    ("chardevs", "<serial type='file'><source path='/root/.ssh/authorized_keys'/></serial>"),
    ("chardevs", "<console type='dev'><source path='/dev/sda'/></console>"),
    ("chardevs", "<serial type='pipe'><source path='/tmp/x'/></serial>"),
    ("chardevs", "<serial type='tcp'><source mode='connect' host='x' service='1'/></serial>"),
    ("chardevs", "<channel type='unix'><source mode='connect' path='/run/docker.sock'/></channel>"),
    ("chardevs", "<serial type='pty'><log file='/etc/cron.d/x' append='off'/></serial>"),
    ("files", "<channel type='unix'><source mode='bind' path='/etc/x'/></channel>"),
    # virtlogd would write what the guest says into what libvirt reads as its own.
    *(
        (
            "chardevs",
            "<channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channels/x'/>"
            f"<log file='{path}'/></channel>",
        )
        for path in ("/var/lib/libvirt/qemu/save/vm.save", "/var/lib/libvirt/qemu/channels/y")
    ),
    ("chardevs", "<redirdev type='spicevmc'><log file='/dev/pts/1'/></redirdev>"),
    (
        "files",
        "<channel type='unix'><source mode='bind' path='/run/libvirt/qemu/x.pid'/></channel>",
    ),
    (
        "chardevs",
        "<channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channels/x'/>"
        "<source mode='connect' path='/var/lib/libvirt/qemu/channels/x'/></channel>",
    ),
    ("hostdev", "<video><driver name='vhostuser'/><model type='virtio'/></video>"),
    (
        "seclabels",
        DISK.format("/var/lib/libvirt/images/x").replace(
            "'/><target",
            "'><seclabel model='dac' relabel='yes'><label>0:0</label></seclabel></source><target",
        ),
    ),
    ("elements", "<vdpa/>"),
    ("elements", "<graphics type='dbus' address='x'/>"),
    ("emulator", "<emulator>/usr/bin/kvm<x>/../../tmp/x</x></emulator>"),
    ("elements", "<memory model='nvdimm'><source>/dev/mem<x/></source></memory>"),
]
DOMAINS: list[tuple[str, str]] = [
    ("commandline", f"<q:commandline {QEMU}><q:arg value='-x'/></q:commandline>"),
    ("commandline", f"<q:override {QEMU}/>"),
    ("elements", "<bootloader>/bin/sh</bootloader>"),
    ("elements", "<idmap/>"),
    ("files", "<os><kernel>/root/vmlinuz</kernel></os>"),
    ("files", "<os><initrd>root/initrd</initrd></os>"),
    ("files", "<os><loader>/tmp/x</loader></os>"),
    ("files", "<os><nvram template='/etc/shadow'/></os>"),
    ("files", "<os><nvram template='etc/shadow'/></os>"),
    ("files", "<os><nvram type='network'><source protocol='nbd' name='x'/></nvram></os>"),
    ("files", "<os><nvram type='block'><source dev='dev/sda'/></nvram></os>"),
    ("files", "<os><nvram format='qcow2'>/var/lib/libvirt/qemu/nvram/x_VARS.fd</nvram></os>"),
    ("elements", "<os><kernel>/var/lib/libvirt/images/x<y>/../z</y></kernel></os>"),
    ("elements", "<os><init>/bin/sh</init></os>"),
    ("files", "<sysinfo type='fwcfg'><entry name='opt/x' file='/etc/shadow'/></sysinfo>"),
    ("files", "<sysinfo type='fwcfg'><entry name='opt/x' file='etc/shadow'/></sysinfo>"),
    ("files", "<blkiotune><device><path>/dev/sda</path></device></blkiotune>"),
    ("seclabels", "<seclabel type='static' model='dac'><label>0:0</label></seclabel>"),
    ("seclabels", "<seclabel type='none'/>"),
    ("seclabels", "<seclabel type='dynamic'><baselabel>x</baselabel></seclabel>"),
]


def domain(inside: str = "", devices: str = "") -> etree._Element:
    return etree.fromstring(f"<domain>{inside}<devices>{devices}</devices></domain>")


CASES = [
    *((kind, domain(devices=xml)) for kind, xml in DEVICES),
    *((kind, etree.fromstring(xml)) for kind, xml in DEVICES),
    *((kind, domain(xml)) for kind, xml in DOMAINS),
]


@pytest.mark.parametrize(("kind", "element"), CASES)
def test_strict_refuses(kind: str, element: etree._Element) -> None:
    with pytest.raises(InvalidParameter, match="documents is strict") as refused:
        STRICT.check(element, "VM x")
    assert refused.value.data == {"kind": kind}
    assert f"have {kind} added to option policy.allow" in refused.value.message
    DocumentPolicy(Policy("strict", DOCUMENT_KINDS)).check(element, "VM x")
    DocumentPolicy(Policy()).check(element, "VM x")


def test_every_kind_is_tried_and_one_allows_no_other() -> None:
    assert {kind for kind, _ in CASES} == set(DOCUMENT_KINDS)
    for kind, element in CASES:
        others = tuple(other for other in DOCUMENT_KINDS if other != kind)
        with pytest.raises(InvalidParameter):
            DocumentPolicy(Policy("strict", others)).check(element, "VM x")


@pytest.mark.parametrize("name", ["engine.xml", "flat.xml", "flat_minimal.xml", "live.xml"])
def test_strict_lets_vms_on_ceph_through(name: str) -> None:
    root = etree.fromstring((DATA / name).read_bytes())
    for disk in root.findall("devices/disk"):
        # What is not on Ceph stands in these files too.
        if disk.get("type") == "nvme" or disk.find("source[@protocol='https']") is not None:
            root.find("devices").remove(disk)
    STRICT.check(root, "VM x")


LIVE = """<domain><resource><partition>/machine</partition></resource>
<os><type>hvm</type><loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>
<nvram template='/usr/share/OVMF/OVMF_VARS.fd'>/var/lib/libvirt/qemu/nvram/x_VARS.fd</nvram></os>
<devices><emulator>/usr/libexec/qemu-kvm</emulator>
<serial type='pty'><source path='/dev/pts/3'/><target type='isa-serial' port='0'/></serial>
<console type='pty' tty='/dev/pts/3'><source path='/dev/pts/3'/></console>
<channel type='unix'><source mode='bind' path='/run/libvirt/qemu/channel/7-x/org.qemu'/>
<target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
<disk type='network'><source protocol='rbd' name='p/i'>
<config file='/etc/ceph/ceph.conf'/></source></disk>
<disk type='file' device='cdrom'><source file='/var/lib/libvirt/images/x.iso'>
<seclabel model='dac' relabel='no'/></source><target dev='sda'/></disk>
<disk type='file' device='cdrom'><target dev='sdb'/></disk>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
<audio id='1' type='none'/></devices>
<seclabel type='dynamic' model='dac' relabel='yes'><label>+107:+107</label></seclabel></domain>"""


def test_strict_lets_through_what_libvirt_adds_to_running_vms() -> None:
    STRICT.check(etree.fromstring(LIVE), "VM x")


def test_directories_for_files() -> None:
    policy = DocumentPolicy(Policy("strict", paths=("/srv/iso/",)))
    policy.check(etree.fromstring(DISK.format("/srv/iso/a/b.iso")), "VM x")
    for path in ("/srv/iso", "/srv/isolated", "/var/lib/libvirt/images/x"):
        with pytest.raises(InvalidParameter):
            policy.check(etree.fromstring(DISK.format(path)), "VM x")


@pytest.mark.parametrize("change", [device_ops.plug, device_ops.change])
async def test_devices_of_running_vms_are_looked_at(change: Any) -> None:
    async def call(*_args: Any) -> None:
        raise AssertionError("libvirt is not to see it")

    vm = SimpleNamespace(id=ID, services=SimpleNamespace(policy=STRICT), call=call)
    with pytest.raises(InvalidParameter, match=f"a device of VM {ID}: <script> of an <interface>"):
        await change(vm, NIC.format("bridge", "<script path='/tmp/x'/>"))


async def test_vms_that_come_are_looked_at() -> None:
    travel: Any = SimpleNamespace(connection=None, secrets=None)
    nothing: Any = None
    arrivals = Arrivals(
        nothing, travel, nothing, STRICT, available_mib=lambda: 0, on_arrival=nothing
    )
    ENGINE.append(etree.fromstring(f"<q:commandline {QEMU}/>"))
    offer: Any = SimpleNamespace(xml=etree.tostring(ENGINE).decode(), vm_id=ID)
    with pytest.raises(InvalidParameter, match=f"migration of VM {ID}: <commandline> is not allow"):
        await arrivals.accept(offer)


def test_no_other_way_leads_xml_to_libvirt() -> None:
    """What is defined comes from Registry._made, what is plugged or changed from device_ops."""
    calls = re.compile(r"\.(attachDevice|updateDevice|defineXML|createXML|setMetadata)\w*\(")
    found = {
        str(file.relative_to(REPOSITORY / "vdsmcinder"))
        for file in (REPOSITORY / "vdsmcinder").rglob("*.py")
        if calls.search(file.read_text())
    }
    # These write back what libvirt gave, with a password, and metadata, which no QEMU sees.
    own = {"virt/live/ticket.py", "virt/domain/metadata.py", "virt/domain/policy.py"}
    assert found == {"virt/live/device_ops.py", "virt/vm/registry.py"} | own
