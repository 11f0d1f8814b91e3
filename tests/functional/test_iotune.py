# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits on the I/O of disks: what libvirt has in force is what was asked for and what is told."""

from __future__ import annotations

import pytest

from lab.engine import new_id
from lab.guest.domains import disk_xml
from tests.functional.helpers import refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

POLICY = """<metadata><ovirt-tune:qos xmlns:ovirt-tune='http://ovirt.org/vm/tune/1.0'>
  <ovirt-tune:ioTune><ovirt-tune:device name='vda'>
    <ovirt-tune:guaranteed><ovirt-tune:total_iops_sec>50</ovirt-tune:total_iops_sec>
    </ovirt-tune:guaranteed>
    <ovirt-tune:maximum><ovirt-tune:total_iops_sec>500</ovirt-tune:total_iops_sec>
    </ovirt-tune:maximum>
  </ovirt-tune:device></ovirt-tune:ioTune></ovirt-tune:qos></metadata>"""


def in_force(host, vm_id, disk="vda"):
    """The limits other than 0 that libvirt tells of a disk."""
    lines = (line.split(":") for line in host.virsh("blkdeviotune", vm_id, disk).splitlines())
    return {k.strip(): int(v) for k, v in lines if v.strip().isdigit() and int(v)}


async def limits(guest, disk="vda"):
    (found,) = [t for t in await guest.call("getIoTune") if t["name"] == disk]
    return {name: value for name, value in found["ioTune"].items() if value}


async def test_limits_are_set_told_and_lifted(guest, host):
    assert in_force(host, guest.id) == {}
    assert await limits(guest) == {}
    wanted = {"read_bytes_sec": 1_000_000, "write_bytes_sec": "2000000", "total_iops_sec": 300}
    assert await guest.call("setIoTune", tunables=[{"name": "vda", "ioTune": wanted}]) is True
    expected = {"read_bytes_sec": 1_000_000, "write_bytes_sec": 2_000_000, "total_iops_sec": 300}
    assert in_force(host, guest.id) == expected
    assert await limits(guest) == expected
    (told,) = (await guest.stats())["ioTune"]
    assert (told["name"], told["path"]) == ("vda", f"volumes/{guest.image}")
    assert told["ioTune"]["total_iops_sec"] == 300

    by_path = {"path": f"volumes/{guest.image}", "ioTune": {"total_bytes_sec": 5_000_000}}
    await guest.call("setIoTune", tunables=[by_path])
    assert in_force(host, guest.id) == {"total_bytes_sec": 5_000_000, "total_iops_sec": 300}

    none = {"total_bytes_sec": 0, "total_iops_sec": 0}
    await guest.call("setIoTune", tunables=[{"name": "vda", "ioTune": none}])
    assert in_force(host, guest.id) == {}


async def test_a_limited_disk_is_slower(guest):
    await guest.call("setIoTune", tunables=[{"name": "vda", "ioTune": {"total_iops_sec": 8}}])
    script = "for i in 1 2 3 4; do dd if=/dev/vda of=/dev/null bs=4096 count=8 iflag=direct; done"
    try:
        before = await guest.shell("cut -d' ' -f1 /proc/uptime")
        await guest.after(f"({script}) 2>/dev/null; say read", "^read$")
        after = await guest.shell("cut -d' ' -f1 /proc/uptime")
    finally:
        await guest.call("setIoTune", tunables=[{"name": "vda", "ioTune": {"total_iops_sec": 0}}])
    # 32 reads at 8 a second, less what QEMU lets pass at once.
    assert float(after) - float(before) > 2


async def test_what_is_refused(guest, host):
    for tunables, number, words in (
        ([{"name": "vdz", "ioTune": {"total_iops_sec": 1}}], 64, "has no disk vdz"),
        ([{"ioTune": {"total_iops_sec": 1}}], 11, "tunables[0].name is missing"),
        ([{"name": "vda"}], 11, "tunables[0].ioTune is missing"),
        ([{"name": "vda", "ioTune": {"speed": 1}}], 91, "speed"),
        ([{"name": "vda", "ioTune": {"total_iops_sec": -1}}], 91, "expected a whole number from 0"),
        (
            [{"name": "vda", "ioTune": {"total_iops_sec": 5, "read_iops_sec": 5}}],
            91,
            "a limit on the total or on its parts",
        ),
        # The first is fine, but nothing is set when the second is not.
        (
            [
                {"name": "vda", "ioTune": {"total_iops_sec": 7}},
                {"name": "vdz", "ioTune": {"total_iops_sec": 7}},
            ],
            64,
            "nothing was changed",
        ),
        # QEMU's own rule: a burst needs the limit that it goes beyond.
        ([{"name": "vda", "ioTune": {"total_iops_sec_max": 7}}], 91, "ioTune.total_iops_sec_max"),
    ):
        with refused(number, words):
            await guest.call("setIoTune", tunables=tunables)
    assert in_force(host, guest.id) == {}


async def test_the_policy_of_an_engine_is_told(engine, guest, image):
    params = engine.document(new_id(), disk_xml(engine.lab.ceph, image(), "vda", engine.secret_id))
    params["xml"] = params["xml"].replace("<memory", f"{POLICY}<memory", 1)
    vm_id = await engine.run(params)
    try:
        policy = [
            {
                "name": "vda",
                "guaranteed": {"total_iops_sec": 50},
                "maximum": {"total_iops_sec": 500},
            }
        ]
        assert await engine.call("VM.getIoTunePolicy", vmID=vm_id) == policy
        assert await guest.call("getIoTunePolicy") == []
        told = await engine.call("Host.getAllVmIoTunePolicies")
        current = await engine.call("VM.getIoTune", vmID=vm_id)
        assert told == {vm_id: {"policy": policy, "current_values": current}}
        assert current[0]["ioTune"]["total_iops_sec"] == 0
    finally:
        await engine.destroy(vm_id)
