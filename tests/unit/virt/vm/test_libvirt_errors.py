# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's and QEMU's words for what a request can be wrong about: a cause and a remedy each."""

from __future__ import annotations

import pytest

from tests.refusals import libvirt_error
from vdsmcinder.errors import HotplugDiskFailed
from vdsmcinder.virt.vm.libvirt_errors import SEE_LOG, explain


@pytest.mark.parametrize(
    ("words", "cause", "remedy"),
    [
        (
            "internal error: No more available PCI slots",
            "all PCIe ports that it has are taken",
            "vms.spare_pcie_ports",
        ),
        (
            "XML error: Attempted double use of PCI Address 0000:00:03.0",
            "another of its devices has that address",
            "give the device another address, or none",
        ),
        (
            "XML error: Found duplicate drive address for disk with target name 'sda' "
            "controller='0' bus='0' target='0' unit='0'",
            "another of its devices has that address",
            "give the device another address",
        ),
        (
            "operation failed: Domain already contains a disk with that address",
            "another of its devices has that address",
            "give the device another address",
        ),
        (
            "unsupported configuration: different iotunes for disks vda and vdb",
            "its limits are not those of the other disks in its group",
            "another group_name",
        ),
        (
            "unsupported configuration: Disk iothread '7' not defined in iothreadid",
            "it has no I/O thread of that number",
            "(numOfIoThreads)",
        ),
        *(
            (
                words,
                "another of its devices has that place in the boot order",
                "give the device another, or none",
            )
            for words in (
                "unsupported configuration: boot order '1' used for more than one device",
                "unsupported configuration: boot order 1 is already used by another device",
            )
        ),
        (
            "unsupported configuration: non unique alias detected: ua-1",
            "another of its devices has that alias",
            "give the device one of its own",
        ),
        *(
            (words, "its limits do not go together", "each burst (_max) a rate")
            for words in (
                "internal error: unable to execute QEMU command 'block_set_io_throttle': "
                "bps_max/iops_max require corresponding bps/iops values",
                "internal error: unable to execute QEMU command 'block_set_io_throttle': "
                "bps_max/iops_max cannot be lower than bps/iops",
                "internal error: unable to execute QEMU command 'block_set_io_throttle': "
                "burst length set without burst rate",
                "internal error: unable to execute QEMU command 'block_set_io_throttle': "
                "burst length too high for this burst rate",
                "internal error: unable to execute QEMU command 'block_set_io_throttle': "
                "iops size requires an iops value to be set",
                "unsupported configuration: cannot reset 'total_iops_sec' when "
                "'total_iops_sec_max' is set",
                "unsupported configuration: value 'total_iops_sec_max' cannot be smaller than "
                "'total_iops_sec'",
                "unsupported configuration: block I/O throttle limit must be no more than "
                "1000000000000000 using QEMU",
                "XML error: total and read/write bytes_sec cannot be set at the same time",
                "unsupported configuration: total and read/write of iops_sec_max cannot be set "
                "at the same time",
                "unsupported configuration: group_name can be configured only together with "
                "settings",
            )
        ),
        (
            "unsupported configuration: USB is disabled for this domain, but USB devices are "
            "present in the domain XML",
            "it has no USB controller",
            "iface virtio or sata",
        ),
    ],
)
def test_cause_and_remedy(words: str, cause: str, remedy: str) -> None:
    told = explain(libvirt_error(words), "disk vda could not be plugged", HotplugDiskFailed)
    assert isinstance(told, HotplugDiskFailed)
    assert told.message.startswith(f"disk vda could not be plugged: {cause}; ")
    assert remedy in told.message and SEE_LOG not in told.message
    assert told.data["cause"] == cause


def test_what_is_not_known_is_told_in_libvirts_words() -> None:
    told = explain(libvirt_error("internal error: a riddle"), "it failed", HotplugDiskFailed)
    assert told.message == f"it failed: libvirt says: a riddle; {SEE_LOG}"
