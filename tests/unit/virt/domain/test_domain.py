# SPDX-License-Identifier: GPL-2.0-or-later
"""Domain: reading libvirt's documents, of running VMs and as they were defined."""

from __future__ import annotations

from pathlib import Path

import pytest

from vdsmcinder.errors import InvalidParameter, MissingParameter, VdsmCinderError
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.domain.domain import Domain, is_ours, without_passwords
from vdsmcinder.virt.domain.domain_devices import Graphics, Interface
from vdsmcinder.virt.domain.metadata import VmMetadata
from vdsmcinder.virt.domain.topology import Topology

DATA = Path(__file__).parents[2] / "data" / "domains"
LIVE = (DATA / "live.xml").read_text()
ENGINE = (DATA / "engine.xml").read_text()
UUID = "5b6bd08c-5a3e-4d4f-a1a2-b6d5cf0ae9a0"


def test_running_vm() -> None:
    domain = Domain.from_xml(LIVE)
    assert (domain.uuid, domain.name, domain.hypervisor) == (UUID, "vm-1", "qemu")
    assert (domain.memory_mib, domain.vcpus, domain.max_vcpus) == (128, 1, 4)
    assert domain.topology == Topology(1, 2, 2)
    assert (domain.machine, domain.cpu) == ("pc-q35-7.2", "Haswell,+aes,-hle")
    assert (domain.serial, domain.time_offset_s, domain.acpi) == ("SN-1", -3600, True)
    assert domain.io_threads == 1
    assert domain.boot == ("hd", "network")
    assert [drive.name for drive in domain.drives] == ["vda", "sda", "sdc"]
    assert domain.targets == {"vda", "vdb", "sda", "sdc", "sdd"}
    assert domain.agent_connected
    assert domain.interfaces == (
        Interface("vnet4", "00:1a:4a:16:01:51", "virtio", "ovirtmgmt", False, "net0"),
    )
    assert domain.graphics == (Graphics("vnc", 5907, None, "192.0.2.7"),)
    assert domain.metadata == VmMetadata(
        version=1, launch_paused=True, custom={"tier": "gold"}, exit_code=1
    )


def test_vm_as_an_engine_wrote_it() -> None:
    domain = Domain.from_xml(ENGINE)
    assert (domain.memory_mib, domain.vcpus, domain.max_vcpus) == (1024, 2, 16)
    assert domain.cpu == "Haswell-noTSX,+pcid,-hle"
    assert domain.graphics == (Graphics("vnc", None, None, "192.0.2.7"),)
    assert domain.drives[0].boot_order == 1
    assert not domain.agent_connected
    assert domain.metadata == VmMetadata(
        cluster_version="4.7", min_guaranteed_mib=512, custom={"tier": "gold"}
    )


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        ("<memory>2048</memory>", 2),
        ('<memory unit="MiB">3</memory>', 3),
        ('<memory unit="GiB">2</memory>', 2048),
        ('<memory unit="b">4194304</memory>', 4),
        ('<memory unit="M">5</memory>', 5),
        ('<memory unit="MB">1024</memory>', 976),
    ],
)
def test_memory(memory: str, mib: int) -> None:
    xml = f"<domain><uuid>{UUID}</uuid>{memory}<devices/></domain>"
    assert Domain.from_xml(xml).memory_mib == mib


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("</domain>", "", InvalidParameter, "not well-formed"),
        (LIVE, "<network/>", InvalidParameter, "root is <network>; expected <domain>"),
        (f"<uuid>{UUID}</uuid>", "", MissingParameter, "uuid is missing"),
        (UUID, "7", InvalidParameter, "uuid is a string of 1 character; expected a UUID"),
        (
            "131072</memory>",
            "much</memory>",
            InvalidParameter,
            "memory is a string of 4 characters",
        ),
        (
            "<memory unit='KiB'>",
            "<memory unit='gallon'>",
            InvalidParameter,
            "is a string of 6 characters",
        ),
        (
            "current='1'",
            "current='none'",
            InvalidParameter,
            "vcpu.current is a string of 4 characters",
        ),
        (
            "sockets='1'",
            "sockets='x'",
            InvalidParameter,
            "cpu.topology.sockets is a string of 1 character",
        ),
        ("'-3600'", "'soon'", InvalidParameter, "clock.adjustment is a string of 4 characters"),
    ],
)
def test_refused(old: str, new: str, error: type[VdsmCinderError], words: str) -> None:
    with pytest.raises(error) as caught:
        Domain.from_xml(LIVE.replace(old, new))
    assert words in caught.value.message


def test_hash_tells_of_devices_alone() -> None:
    before = Domain.from_xml(LIVE).devices_hash
    for old, new in (
        ("id='7'", "id='8'"),
        ("    <disk", "<disk"),
        ("<target dev='vda' bus='virtio'/>", "<target bus='virtio' dev='vda'/>"),
        ("state='connected'", "state='disconnected'"),
        ("<backingStore/>", "<mirror type='file' ready='yes'/>"),
        ("<ovirt-vm:exitCode>1<", "<ovirt-vm:exitCode>0<"),
    ):
        assert old in LIVE
        assert Domain.from_xml(LIVE.replace(old, new)).devices_hash == before


def test_hash_changes_with_the_devices() -> None:
    documents = [
        LIVE,
        LIVE.replace("state='down'", "state='up'"),
        LIVE.replace("volumes/volume-1", "volumes/volume-3"),
        LIVE.replace("port='5907'", "port='5908'"),
        LIVE.replace("<memballoon model='virtio'><stats period='5'/></memballoon>", ""),
    ]
    assert len({Domain.from_xml(xml).devices_hash for xml in documents}) == len(documents)


def test_ours_is_what_we_marked() -> None:
    assert is_ours(LIVE)
    assert not is_ours(ENGINE)
    assert not is_ours("<domain/>")
    assert not is_ours(LIVE.replace("vm:vdsmCinder", "vm:another"))


def test_passwords_are_not_shown() -> None:
    assert "s3cret-pass" in ENGINE
    shown = without_passwords(ENGINE)
    assert "s3cret-pass" not in shown
    assert Domain.from_xml(shown) == Domain.from_xml(ENGINE.replace(' passwd="s3cret-pass"', ""))


def test_metadata_with_values() -> None:
    start = LIVE.index("<ovirt-vm:vm ")
    end = LIVE.index("</ovirt-vm:vm>") + len("</ovirt-vm:vm>")
    element = metadata.with_values(LIVE[start:end], {"exitCode": "0", "exitMessage": "a < b"})
    read = Domain.from_xml(LIVE[:start] + element + LIVE[end:]).metadata
    assert (read.exit_code, read.exit_message) == (0, "a < b")
    assert read.custom == {"tier": "gold"}


def test_our_metadata_as_libvirt_gives_it_back_is_replaced_and_removed():
    """Without the prefix that it was defined with."""
    given = '<vm>\n  <vdsmCinder version="1"/>\n  <held>true</held>\n</vm>'
    replaced = metadata.with_values(given, {"held": "false"})
    assert "true" not in replaced
    assert "false" in replaced
    assert "held" not in metadata.with_values(given, {"held": ""})
