# SPDX-License-Identifier: GPL-2.0-or-later
"""VM.create's vmParams: the domain that each form comes to, and what is refused.

The documents are checked against libvirt's own schema, as virt-xml-validate does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from tests.unit.virt.disk.test_drive import KEY, network
from vdsmcinder.ceph.connection_info import is_answer
from vdsmcinder.errors import (
    InvalidParameter,
    MissingParameter,
    UnsupportedDrive,
    VdsmCinderError,
)
from vdsmcinder.rpc.requests.vm import read_vm
from vdsmcinder.virt.domain.create_request import DomainRequest, make_domain
from vdsmcinder.virt.domain.domain import Domain, is_ours
from vdsmcinder.virt.domain.metadata import VmMetadata

DATA = Path(__file__).parents[2] / "data" / "domains"
DRIVES = DATA.parent / "drives"
ENGINE = (DATA / "engine.xml").read_text()
UUID = "5b6bd08c-5a3e-4d4f-a1a2-b6d5cf0ae9a0"
OTHER_UUID = "00000000-5a3e-4d4f-a1a2-b6d5cf0ae9a0"
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")


IN_A_GROUP = """<domain><devices>
  <disk type='file'><source file='/a'/><target dev='vda'/><iotune><total_iops_sec>5</total_iops_sec>
    <group_name>g</group_name></iotune></disk>
  <disk type='file'><source file='/b'/><target dev='vdb'/><iotune>{limits}
    <group_name>g</group_name></iotune></disk>
</devices></domain>"""
NIC = {"type": "interface", "network": "br0"}


def request(params: dict[str, Any], emulate: bool = False, ports: int = 2) -> DomainRequest:
    asked = read_vm(UUID, params)
    return make_domain(UUID, asked, allow_emulation=emulate, spare_pcie_ports=ports)


def flat(*devices: Any, **changes: Any) -> dict[str, Any]:
    """A flat description with these devices."""
    return {"memSize": 256, "devices": list(devices), **changes}


def flat_file(name: str) -> dict[str, Any]:
    params: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text())
    return params


def xml_of(text: str, **params: Any) -> etree._Element:
    return etree.fromstring(request({"xml": text, **params}).xml)


@pytest.fixture(name="schema", scope="module")
def _schema() -> etree.RelaxNG:
    return etree.RelaxNG(file=str(SCHEMA))


@pytest.mark.parametrize("emulate", [False, True])
@pytest.mark.parametrize("name", ["flat", "flat_minimal", "engine"])
def test_libvirt_takes_the_document(schema: etree.RelaxNG, name: str, emulate: bool) -> None:
    params = {"xml": ENGINE} if name == "engine" else flat_file(name)
    document = etree.fromstring(request(params, emulate).xml)
    assert schema.validate(document), schema.error_log


@pytest.mark.parametrize("path", sorted(DRIVES.glob("*.json")), ids=lambda p: p.stem)
def test_libvirt_takes_each_disk(schema: etree.RelaxNG, path: Path) -> None:
    described = json.loads(path.read_text())
    if is_answer(described):
        described = {"connectionInfo": described}
    described["type"] = "disk"
    document = etree.fromstring(request(flat(described, emulatedMachine="pc")).xml)
    # Unlike libvirt's parser, its schema does not know type none, which engines send.
    for label in document.findall("devices/disk/source/seclabel"):
        label.getparent().remove(label)
    assert schema.validate(document), schema.error_log


@pytest.mark.parametrize(("name", "emulate"), [("flat", False), ("flat_minimal", True)])
def test_document(name: str, emulate: bool) -> None:
    params = flat_file(name)
    expected = (DATA / f"{name}.xml").read_text()
    written = etree.canonicalize(request(params, emulate).xml, strip_text=True)
    assert written == etree.canonicalize(expected, strip_text=True)


def test_what_is_written_is_read() -> None:
    params = flat_file("flat")
    wanted = request(params)
    domain = Domain.from_xml(wanted.xml)
    assert (wanted.name, wanted.launch_paused) == ("web & db", True)
    assert (domain.name, domain.memory_mib, domain.vcpus) == ("web & db", 1024, 2)
    assert domain.cpu == params["cpuType"]
    assert domain.metadata.launch_paused
    assert domain.metadata.custom == params["custom"]
    assert domain.metadata.min_guaranteed_mib == 512
    assert [drive.target for drive in domain.drives] == ["vda", "sda", "sdc"]
    assert domain.opaque_drives == ()


def test_spare_ports_come_on_top() -> None:
    def ports(spare: int) -> int:
        document = etree.fromstring(request(flat(network()), ports=spare).xml)
        return len(document.findall("devices/controller[@model='pcie-root-port']"))

    assert ports(16) - ports(0) == 16
    assert ports(0) > 0


def test_disks_without_index_get_what_the_others_leave() -> None:
    disks = [
        network(index=None, path="v/1"),
        network(index="0", path="v/2"),
        network(index=None, path="v/3"),
    ]
    drives = Domain.from_xml(request(flat(*disks)).xml).drives
    assert [(d.source.path, d.target) for d in drives] == [
        ("v/1", "vdb"),
        ("v/2", "vda"),
        ("v/3", "vdc"),
    ]


def test_boot_order_of_devices_or_of_kinds() -> None:
    def boots(*devices: Any) -> list[str | None]:
        document = etree.fromstring(request(flat(*devices, boot="nc")).xml)
        return [boot.get("dev") for boot in document.iterfind("os/boot")]

    assert boots(network()) == ["network", "hd"]
    assert boots(network(bootOrder=1)) == []


def test_kernel_booted_directly() -> None:
    params = flat(kernel="/boot/vmlinuz", initrd="/boot/initrd", kernelArgs="console=ttyS0")
    os = etree.fromstring(request(params).xml).find("os")
    assert [os.findtext(tag) for tag in ("kernel", "initrd", "cmdline")] == [
        "/boot/vmlinuz",
        "/boot/initrd",
        "console=ttyS0",
    ]


@pytest.mark.parametrize(
    ("cpu_type", "mode"),
    [
        ("host-passthrough", "host-passthrough"),
        ("hostPassthrough", "host-passthrough"),
        ("host-model", "host-model"),
        (None, "host-model"),
        ("Haswell", "custom"),
    ],
)
def test_cpu(cpu_type: str | None, mode: str) -> None:
    params = flat(cpuType=cpu_type)
    assert etree.fromstring(request(params).xml).find("cpu").get("mode") == mode
    emulated = etree.fromstring(request(params, emulate=True).xml)
    assert emulated.get("type") == "qemu"
    assert emulated.find("cpu").get("mode") == "maximum"
    assert emulated.find("cpu/topology") is not None


def test_emulation_asked_for_by_the_engine() -> None:
    assert etree.fromstring(request(flat(kvmEnable="false")).xml).get("type") == "qemu"


def test_display_is_closed_and_local_unless_told() -> None:
    graphics = etree.fromstring(request(flat(display="qxl")).xml).find("devices/graphics")
    assert graphics.get("type") == "vnc"
    assert graphics.get("passwdValidTo") == "1970-01-01T00:00:01"
    assert graphics.find("listen").get("address") == "127.0.0.1"
    assert etree.fromstring(request(flat()).xml).find("devices/graphics") is None


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({}, MissingParameter, "memSize is missing; expected a whole number"),
        (flat(memSize="much"), InvalidParameter, "memSize is a string of 4 characters"),
        (flat(memSize=0), InvalidParameter, "memSize is a number"),
        (
            flat(vmId=OTHER_UUID),
            InvalidParameter,
            "vmId is a string of 36 characters; expected the request's",
        ),
        (
            flat(vmName="a/b"),
            InvalidParameter,
            "vmName is a string of 3 characters; expected a name without '/'",
        ),
        (flat(vmName="a\x00"), InvalidParameter, "vmName is"),
        (flat(vmName="n" * 248), InvalidParameter, "of at most 247 bytes in UTF-8"),
        (flat(vmName="é" * 124), InvalidParameter, "of at most 247 bytes in UTF-8"),
        ({"xml": "<domain/>", "vmName": "n" * 248}, InvalidParameter, "vmName is a string of 248"),
        (
            {"xml": f"<domain><name>{'n' * 248}</name></domain>"},
            InvalidParameter,
            "name is a string of 248",
        ),
        (
            flat(network(type="disk", iface="scsi", index=224)),
            InvalidParameter,
            "; expected one on the first 32 SCSI controllers",
        ),
        (flat(smp=0), InvalidParameter, "smp is a number"),
        (
            flat(smp=4, maxVCpus=2),
            InvalidParameter,
            "expected at most maxVCpus, 2",
        ),
        (
            flat(smp=3, smpCoresPerSocket=2),
            InvalidParameter,
            "expected a multiple",
        ),
        (flat(maxVCpus=3, smpThreadsPerCore=2), InvalidParameter, "maxVCpus is 3"),
        (flat(cpuType="<x>"), InvalidParameter, "cpuType is a string of 3 characters"),
        (flat(timeOffset="soon"), InvalidParameter, "timeOffset is a string of 4 characters"),
        (flat(boot="x"), InvalidParameter, "boot is a string of 1 character"),
        (
            flat(custom={"a b": "c"}),
            InvalidParameter,
            "property in custom is a string of 3",
        ),
        (flat(custom=[]), InvalidParameter, "custom is a list of 0; expected an object"),
        (
            flat(devices={}),
            InvalidParameter,
            "devices is an object with 0 members",
        ),
        (
            flat("disk"),
            InvalidParameter,
            "devices[0] is a string of 4 characters; expected an object",
        ),
        (flat({"device": "disk"}), MissingParameter, "devices[0].type is missing"),
        (
            flat({"type": "hostdev"}),
            InvalidParameter,
            "devices[0].type is a string of 7 characters",
        ),
        (flat({"type": "interface"}), MissingParameter, "devices[0].network is missing"),
        (
            flat({"type": "interface", "network": "br0", "device": "hostdev"}),
            InvalidParameter,
            "devices[0].device is a string of 7 characters; expected bridge",
        ),
        (
            flat({"type": "interface", "network": "br0", "macAddr": "00:1a"}),
            InvalidParameter,
            "devices[0].macAddr is a string of 5 characters",
        ),
        *(
            (
                flat({"type": "interface", "network": "br0", "macAddr": mac}),
                InvalidParameter,
                "devices[0].macAddr is a string of 17 characters",
            )
            for mac in ("01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "0d:1a:4a:16:01:51")
        ),
        (
            flat(network(bootOrder=1), {**NIC, "bootOrder": "1"}),
            InvalidParameter,
            "devices[1].bootOrder is a string of 1 character; expected another one",
        ),
        (
            flat(network(deviceId=None, alias="ua-1"), {**NIC, "alias": "ua-1"}),
            InvalidParameter,
            "devices[1].alias is a string of 4 characters; expected another one",
        ),
        (
            flat(network(alias=f"ua-{OTHER_UUID}"), {**NIC, "deviceId": OTHER_UUID.upper()}),
            InvalidParameter,
            "devices[1].deviceId is a string of 36 characters; expected another one",
        ),
        (flat(network(hosts=None)), MissingParameter, "hosts is missing"),
        (
            flat(network(), network(path="v/2")),
            InvalidParameter,
            "devices[1].index is a string of 1 character; expected another one, vda is taken",
        ),
        (
            flat(network(iface="ide")),
            InvalidParameter,
            "expected one with IDE for disk hda, or iface sata instead",
        ),
        (
            flat(
                network(
                    index=None, specParams={"ioTune": {"total_iops_sec": 5, "group_name": "g"}}
                ),
                network(
                    path="volumes/b",
                    index=None,
                    deviceId=None,
                    specParams={"ioTune": {"total_iops_sec": 6, "group_name": "g"}},
                ),
            ),
            InvalidParameter,
            "disk vdb (volumes/b): iotune.group_name is a string of 1 character; expected another, "
            "or the limits of disk vda",
        ),
        (
            {"xml": IN_A_GROUP.format(limits="<read_iops_sec>5</read_iops_sec>")},
            InvalidParameter,
            "disk vdb (/b): iotune.group_name is",
        ),
        ({"xml": "<domain"}, InvalidParameter, "not well-formed XML"),
        ({"xml": "  "}, InvalidParameter, "not well-formed XML"),
        ({"xml": "<network/>"}, InvalidParameter, "root of xml is <network>"),
        (
            {"xml": ENGINE.replace(UUID, OTHER_UUID)},
            InvalidParameter,
            "expected the request's vmID",
        ),
        (
            {"xml": ENGINE.replace(">vm-1<", ">a/b<")},
            InvalidParameter,
            "name is a string of 3 characters",
        ),
        ({"xml": "<domain>\ud800</domain>"}, InvalidParameter, "xml is"),
        (
            {
                "xml": "<domain><devices><disk type='file' device='cdrom'><source file='PAYLOAD:' "
                "startupPolicy='optional'/><target dev='sdd' bus='sata'/></disk></devices></domain>"
            },
            UnsupportedDrive,
            "expected none, payloads are not supported",
        ),
    ],
)
def test_refused(params: dict[str, Any], error: type[VdsmCinderError], words: str) -> None:
    with pytest.raises(error) as caught:
        request(params)
    assert words in caught.value.message


def test_document_of_the_engine_is_kept() -> None:
    document = xml_of(ENGINE)
    given = etree.fromstring(ENGINE.encode())
    for part in ("devices", "cpu", "clock", "features", "sysinfo", "os"):
        (kept,), (wanted,) = document.iterfind(part), given.iterfind(part)
        assert etree.canonicalize(
            etree.tostring(kept, encoding="unicode"), strip_text=True
        ) == etree.canonicalize(etree.tostring(wanted, encoding="unicode"), strip_text=True)
    read = Domain.from_xml(etree.tostring(document, encoding="unicode")).metadata
    assert (read.version, read.cluster_version, read.custom) == (1, "4.7", {"tier": "gold"})
    namespaces = {"ovirt-tune": "http://ovirt.org/vm/tune/1.0"}
    assert document.find("metadata/ovirt-tune:qos", namespaces) is not None


def test_document_becomes_ours() -> None:
    assert not is_ours(ENGINE)
    assert is_ours(request({"xml": ENGINE}).xml)
    assert is_ours(request({"xml": "<domain type='kvm'><devices/></domain>"}).xml)


@pytest.mark.parametrize(
    ("params", "name"),
    [({}, UUID), ({"vmName": "web"}, "web")],
)
def test_name_and_uuid_are_completed(params: dict[str, Any], name: str) -> None:
    document = xml_of("<domain type='kvm'><devices/></domain>", **params)
    assert (document.findtext("name"), document.findtext("uuid")) == (name, UUID)


def test_emulation_of_a_document() -> None:
    document = etree.fromstring(request({"xml": ENGINE}, emulate=True).xml)
    assert document.get("type") == "qemu"
    cpu = document.find("cpu")
    assert cpu.get("mode") == "maximum"
    assert [child.tag for child in cpu] == ["topology", "numa"]
    assert document.find("features/hyperv") is None
    assert document.find("features/acpi") is not None
    timers = [timer.get("name") for timer in document.iterfind("clock/timer")]
    assert timers == ["rtc", "hpet"]


def test_document_for_emulation_is_left_alone() -> None:
    text = "<domain type='qemu'><cpu mode='custom'><model>qemu64</model></cpu><devices/></domain>"
    document = etree.fromstring(request({"xml": text}, emulate=True).xml)
    assert document.findtext("cpu/model") == "qemu64"


@pytest.mark.parametrize("launch", [{"launchPaused": "true"}, {"launchPaused": True}])
def test_launch_paused_beside_a_document(launch: dict[str, Any]) -> None:
    assert request({"xml": ENGINE, **launch}).launch_paused
    assert not request({"xml": ENGINE}).launch_paused


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE domain [<!ENTITY x SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE domain SYSTEM "http://192.0.2.1/x.dtd">',
        '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>',
    ],
)
def test_document_types_are_refused(declaration: str) -> None:
    with pytest.raises(InvalidParameter, match="document type declaration"):
        request({"xml": f"{declaration}<domain><name>&x;</name><devices/></domain>"})


def test_depth_is_limited() -> None:
    with pytest.raises(InvalidParameter, match="not well-formed"):
        request({"xml": "<a>" * 100_000 + "</a>" * 100_000})


def test_declared_encoding_does_not_matter() -> None:
    text = ENGINE.replace("UTF-8", "UTF-16").replace("vm-1", "vm-ü")
    assert request({"xml": text}).name == "vm-ü"


def test_password_is_not_in_the_repr() -> None:
    wanted = request({"xml": ENGINE})
    assert "s3cret-pass" in wanted.xml
    assert "s3cret-pass" not in repr(wanted)


@pytest.mark.parametrize("attribute", ["uuid", "type"])
def test_a_key_in_place_of_its_secrets_name_does_not_reach_libvirt(attribute: str) -> None:
    root = etree.fromstring(ENGINE.encode())
    secret = next(root.iterfind("devices/disk//secret"))
    secret.set(attribute, KEY)
    with pytest.raises(InvalidParameter, match=rf"secret\.{attribute} is") as caught:
        request({"xml": etree.tostring(root, encoding="unicode")})
    assert KEY[16:] not in f"{caught.value.message} {caught.value.data}"


def test_the_longest_name() -> None:
    for name in ("n" * 247, "é" * 123 + "n"):
        assert request(flat(vmName=name)).name == name


def buses(*names: str, **fields: Any) -> list[dict[str, Any]]:
    """A disk on each bus."""
    return [
        network(type="disk", iface=bus, index=None, path=f"volumes/v{i}", **fields)
        for i, bus in enumerate(names)
    ]


def controllers(params: dict[str, Any], kind: str) -> list[tuple[str, str]]:
    """Index and model of the controllers of a kind."""
    root = etree.fromstring(request(params).xml)
    found = root.iterfind(f"devices/controller[@type='{kind}']")
    return [(one.get("index", ""), one.get("model", "")) for one in found]


@pytest.mark.parametrize(
    ("disks", "count"),
    [
        ([], 0),
        (["scsi"], 1),
        (["scsi"] * 7, 1),
        (["scsi"] * 8, 2),
        (["scsi"] * 9, 2),
        (["scsi"] * 15, 3),
        # They share their names with others, and libvirt goes by the names.
        (["sata"] * 4 + ["scsi"] * 4, 2),
    ],
)
def test_each_scsi_disk_has_a_virtio_controller_and_that_a_port(
    disks: list[str], count: int
) -> None:
    found = controllers(flat(*buses(*disks)), "scsi")
    assert found == [(str(index), "virtio-scsi") for index in range(count)]
    bare = len(controllers(flat(), "pci"))
    assert len(controllers(flat(*buses(*disks)), "pci")) == bare + count


def test_a_scsi_disk_is_on_the_controller_of_its_address() -> None:
    address = {"type": "drive", "controller": "2", "bus": "0", "target": "0", "unit": "9"}
    found = controllers(flat(*buses("scsi", address=address)), "scsi")
    assert [index for index, _ in found] == ["0", "1", "2"]


def test_usb_is_there_for_disks_and_for_displays() -> None:
    xhci, none = [("0", "qemu-xhci")], [("0", "none")]
    bare = len(controllers(flat(), "pci"))
    for params, found in (
        (flat(), none),
        (flat(*buses("virtio")), none),
        (flat(*buses("usb")), xhci),
        (flat(display="vnc"), xhci),
        (flat(*buses("usb", "usb"), display="vnc"), xhci),
    ):
        assert controllers(params, "usb") == found
        ports = len(controllers(params, "pci")) - bare
        virtio = sum(disk.get("iface") == "virtio" for disk in params["devices"])
        assert ports == virtio + (found is xhci)


LIFE = {
    "exitCode": "1",
    "exitReason": "2",
    "exitMessage": "lost",
    "thawBy": "1700000000",
    "held": "true",
    "runningSince": "1700000000",
    "arrivedBy": OTHER_UUID,
    "migrationId": OTHER_UUID,
    "migrationSource": OTHER_UUID,
    "migrationPeer": "192.0.2.7:54321",
    "migrationHandover": "confirmed",
    "migrationDataHost": "192.0.2.7",
    "migrationEncrypted": "true",
}


@pytest.mark.parametrize("prefix", ["ovirt-vm:", ""])
def test_a_vm_from_the_document_of_another_life_is_a_new_one(prefix: str) -> None:
    """Such as Host.dumpxmls gives; libvirt writes children with our prefix and without."""
    marks = "".join(f"<{prefix}{name}>{text}</{prefix}{name}>" for name, text in LIFE.items())
    namespace = "xmlns:ovirt-vm='http://ovirt.org/vm/1.0'"
    kept = f"<{prefix}launchPaused>true</{prefix}launchPaused>"
    plain = "xmlns='http://ovirt.org/vm/1.0'" if not prefix else ""
    vm = f"<ovirt-vm:vm {namespace} {plain}>{kept}{marks}</ovirt-vm:vm>"
    given = f"<domain><metadata>{vm}</metadata><memory>1</memory><devices/></domain>"
    before = Domain.from_xml(given.replace("<memory>", f"<uuid>{UUID}</uuid><memory>")).metadata
    assert before.migration is not None and before.held and before.exit_code == 1
    assert before.arrived_by == OTHER_UUID
    xml = request({"xml": given}).xml
    assert [name for name in LIFE if name in xml] == []
    assert Domain.from_xml(xml).metadata == VmMetadata(version=1, launch_paused=True)


def test_the_mark_stands_where_libvirt_keeps_it() -> None:
    vm = "<ovirt-vm:vm xmlns:ovirt-vm='http://ovirt.org/vm/1.0'/>"
    given = f"<domain><metadata/><metadata>{vm}</metadata><memory>1</memory><devices/></domain>"
    xml = request({"xml": given}).xml
    first = etree.fromstring(xml).findall("metadata")[0]
    assert "vdsmCinder" in etree.tostring(first, encoding="unicode") and is_ours(xml)


def test_what_only_the_host_knows_is_put_into_the_guests_smbios() -> None:
    words = {"OS-NAME:": "RHEL", "OS-VERSION:": "9-4", "HOST-SERIAL:": OTHER_UUID}
    entries = "".join(f"<entry name='{word[:-1]}'>{word}</entry>" for word in words)
    entries += "<entry name='kept'>as it is</entry>"
    sysinfo = f"<sysinfo type='smbios'><system>{entries}</system></sysinfo>"
    asked = read_vm(UUID, {"xml": ENGINE.replace("<devices>", f"{sysinfo}<devices>", 1)})
    made = make_domain(UUID, asked, allow_emulation=False, spare_pcie_ports=0, host_words=words)
    found = [entry.text for entry in etree.fromstring(made.xml).iterfind("sysinfo//entry")]
    assert [*words.values(), "as it is"] == found[-4:] and not set(words) & set(found)


def test_disks_of_a_group_have_the_same_limits() -> None:
    """0 is no limit, said or not."""
    limits = "<total_iops_sec>5</total_iops_sec><size_iops_sec>0</size_iops_sec>"
    request({"xml": IN_A_GROUP.format(limits=limits)})
