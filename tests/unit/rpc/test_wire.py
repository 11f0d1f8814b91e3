# SPDX-License-Identifier: GPL-2.0-or-later
"""What VMs and the host look like on the wire: every field of the contract, of its type."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from tests.unit import engine_parsing
from vdsmcinder.ceph.cluster_monitor import ClusterState, PoolRoom
from vdsmcinder.ceph.fault_kinds import CephFault, Kind
from vdsmcinder.ceph.workers import Account
from vdsmcinder.host.stats import HostSampler
from vdsmcinder.rpc.schema import schema
from vdsmcinder.rpc.wire import ceph, common, host
from vdsmcinder.rpc.wire import stats as wire_stats
from vdsmcinder.rpc.wire.listing import Listings
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.domain.stats import DiskSample, MemorySample, NicSample, VmSample
from vdsmcinder.virt.vm.migration import Progress
from vdsmcinder.virt.vm.status import Exit, ExitCode, ExitReason, PauseCode, Status

UUID = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"
DISK = "0d9c1f5e-7a57-4b8b-9b59-6f0f7d0f8a11"

CONTRACT = schema.load()

XML = f"""
<domain type='kvm'>
  <name>web</name>
  <uuid>{UUID}</uuid>
  <metadata><ovirt-vm:vm xmlns:ovirt-vm='http://ovirt.org/vm/1.0'>
    <ovirt-vm:minGuaranteedMemoryMb>512</ovirt-vm:minGuaranteedMemoryMb>
    <ovirt-vm:custom><ovirt-vm:tier>gold</ovirt-vm:tier></ovirt-vm:custom>
  </ovirt-vm:vm></metadata>
  <memory unit='KiB'>1048576</memory>
  <vcpu current='2'>8</vcpu>
  <iothreads>1</iothreads>
  <sysinfo type='smbios'><system><entry name='serial'>S1</entry></system></sysinfo>
  <os><type machine='pc-q35-7.2'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='host-model'><topology sockets='2' dies='1' cores='2' threads='2'/></cpu>
  <clock offset='variable' adjustment='-3600'/>
  <devices>
    <disk type='network' device='disk' snapshot='no'>
      <source protocol='rbd' name='volumes/volume-1'>
        <host name='192.0.2.1' port='6789' transport='tcp'/><host name='ceph-b'/>
      </source>
      <auth username='cinder'><secret type='ceph' uuid='{UUID}'/></auth>
      <target dev='vda' bus='virtio'/>
      <driver name='qemu' type='raw' cache='none' io='threads' error_policy='stop' iothread='1'/>
      <iotune><read_iops_sec>10</read_iops_sec><read_iops_sec_max>20</read_iops_sec_max></iotune>
      <boot order='1'/>
      <alias name='ua-{DISK}'/>
      <address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>
    </disk>
    <disk type='file' device='cdrom' snapshot='no'>
      <source file='/tmp/a.iso'/>
      <target dev='sdb' bus='sata'/>
      <driver name='qemu' type='raw' error_policy='report'/>
      <readonly/>
      <alias name='sata0-0-1'/>
      <address type='drive' controller='0' bus='0' target='0' unit='1'/>
    </disk>
    <disk type='block' device='disk' snapshot='no'>
      <source dev='/dev/x'/><target dev='sdc' bus='usb'/>
      <driver name='qemu' type='qcow2'/><shareable/>
      <address type='usb' bus='0' port='1'/>
    </disk>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/><source bridge='br0'/><target dev='vnet0'/>
      <model type='virtio'/><link state='down'/><alias name='net0'/>
    </interface>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:02'/><source bridge='br0'/><target dev='vnet1'/>
    </interface>
    <graphics type='vnc' port='5900' listen='192.0.2.9'/>
    <graphics type='egl-headless'/>
    <memballoon model='virtio'/>
  </devices>
</domain>
"""

BARE = f"""
<domain type='qemu'><name>bare</name><uuid>{UUID}</uuid><memory>1024</memory><devices/></domain>
"""

SAMPLE = VmSample(
    taken_ms=123_456,
    interval_s=5.0,
    cpu_time_ns=7_000_000_000,
    cpu_system_ns=1,
    cpu_user_pct=12.345,
    cpu_sys_pct=1.0,
    vcpu_count=2,
    balloon_current_kib=900_000,
    balloon_max_kib=1_048_576,
    memory=MemorySample(1000, 100, 250, 90, 1, 2, 3, 4),
    disks={
        "vda": DiskSample(
            read_bytes=4096,
            write_bytes=8192,
            read_ops=1,
            write_ops=2,
            capacity=2**30,
            allocation=2**20,
            read_rate=819.2,
            write_rate=1638.4,
            read_latency_ns=1_500_000,
            write_latency_ns=2_500_000,
            flush_latency_ns=3_500_000,
            taken_ms=123_456,
        )
    },
    nics={"vnet0": NicSample(1, 2, 3, 4, 5, 6, 123_456)},
)


def vm(xml=XML, **changes):
    """As much of a VM as the wire looks at."""
    domain = Domain.from_xml(xml)
    known = {
        "id": UUID,
        "name": domain.name,
        "xml": xml,
        "hash": domain.devices_hash,
        "domain": domain,
        "status": Status.UP,
        "pause_code": None,
        "exit": None,
        "pid": 4711,
        "elapsed_s": 60,
        "sample": SAMPLE,
        "monitor_responsive": True,
        "failed_disks": [],
        "balloon_target_kib": None,
        "migration": None,
    }
    return SimpleNamespace(**{**known, **changes})


DOWN = {
    "status": Status.DOWN,
    "exit": Exit(ExitCode.NORMAL, ExitReason.ADMIN_SHUTDOWN, "Shut down."),
    "sample": None,
    "pid": 0,
}
PAUSED = {"status": Status.PAUSED, "pause_code": PauseCode.EIO, "failed_disks": ["vda"]}
LEAVING = {
    "status": Status.MIGRATION_SOURCE,
    "migration": SimpleNamespace(progress=Progress(percent=42)),
}
STARTING = {"status": Status.WAIT_FOR_LAUNCH, "sample": None, "pid": 0, "elapsed_s": 0}


@pytest.mark.parametrize("xml", [XML, BARE])
@pytest.mark.parametrize(
    "changes", [{}, DOWN, PAUSED, LEAVING, STARTING, {"monitor_responsive": False}]
)
def test_everything_fits_the_contract(xml, changes):
    this = vm(xml, **changes)
    CONTRACT.type("VmDefinition").check(common.definition(this), "definition")
    CONTRACT.type("VmShortStatus").check(common.short_status(this), "short")
    CONTRACT.type("VmStats").check(wire_stats.vm_stats(this), "stats")
    CONTRACT.type("VmStatusNotice").check(common.state(this), "state")


@pytest.mark.parametrize("xml", [XML, BARE])
@pytest.mark.parametrize("changes", [{}, DOWN, PAUSED, LEAVING, STARTING])
def test_ovirts_engine_can_read_everything(xml, changes):
    this = vm(xml, **changes)
    engine_parsing.read_vm_stats(wire_stats.vm_stats(this))
    engine_parsing.read(common.definition(this), engine_parsing.VM_DEFINITION, "definition")
    engine_parsing.read(common.short_status(this), engine_parsing.VM_DYNAMIC, "short")


def test_a_vm_without_a_balloon_is_not_taken_for_one_with_it():
    assert "balloonInfo" in wire_stats.vm_stats(vm())
    for without in ("", "<memballoon model='none'/>"):
        xml = XML.replace("<memballoon model='virtio'/>", without)
        assert "balloonInfo" not in wire_stats.vm_stats(vm(xml))


def test_how_far_it_is_on_its_way_is_for_its_source_alone():
    assert wire_stats.vm_stats(vm(**LEAVING))["migrationProgress"] == 42
    coming = {**LEAVING, "status": Status.MIGRATION_DESTINATION}
    assert "migrationProgress" not in wire_stats.vm_stats(vm(**coming))


def test_definition():
    found = common.definition(vm())
    devices = found.pop("devices")
    assert found == {
        "vmId": UUID,
        "vmName": "web",
        "vmType": "kvm",
        "status": "Up",
        "pid": 4711,
        "memSize": 1024,
        "memGuaranteedSize": 512,
        "smp": 2,
        "maxVCpus": 8,
        "smpCoresPerSocket": 2,
        "smpThreadsPerCore": 2,
        "numOfIoThreads": 1,
        "kvmEnable": True,
        "acpiEnable": "true",
        "timeOffset": 0,
        "emulatedMachine": "pc-q35-7.2",
        "cpuType": "host-model",
        "serial": "S1",
        "display": "vnc",
        "displayIp": "192.0.2.9",
        "displayPort": 5900,
        "displaySecurePort": -1,
        "custom": {"tier": "gold"},
        "clientIp": "",
        "nice": 0,
        "transparentHugePages": False,
    }
    assert [d["name"] for d in devices] == ["vda", "sdb", "sdc"]


def test_a_network_disk():
    disk = common.definition(vm())["devices"][0]
    assert disk == {
        "deviceType": "disk",
        "device": "disk",
        "name": "vda",
        "iface": "virtio",
        "index": 0,
        "alias": f"ua-{DISK}",
        "deviceId": DISK,
        "format": "raw",
        "readonly": False,
        "shared": "none",
        "optional": False,
        "propagateErrors": False,
        "apparentsize": 2**30,
        "truesize": 2**20,
        "volumeChain": [],
        "diskType": "network",
        "protocol": "rbd",
        "path": "volumes/volume-1",
        "hosts": [
            {"name": "192.0.2.1", "port": "6789", "transport": "tcp"},
            {"name": "ceph-b", "port": "", "transport": "tcp"},
        ],
        "auth": {"type": "ceph", "username": "cinder", "uuid": UUID},
        "specParams": {"ioTune": {"read_iops_sec": 10}, "pinToIoThread": 1},
        "bootOrder": 1,
        "address": {"addressType": "pci", "domain": 0, "bus": 3, "slot": 0, "function": 0},
    }


def test_other_disks():
    _, cdrom, usb = common.definition(vm())["devices"]
    assert (cdrom["device"], cdrom["readonly"], cdrom["propagateErrors"]) == ("cdrom", True, True)
    assert cdrom["address"] == {"addressType": "drive", "controller": 0, "bus": 0, "unit": 1}
    assert (usb["format"], usb["shared"], usb["path"]) == ("cow", "shared", "/dev/x")
    assert not {"deviceId", "address", "hosts"} & usb.keys()


def test_a_vm_that_is_down():
    this = vm(**DOWN)
    told = wire_stats.vm_stats(this)
    # What has none is ignored by oVirt's engine, which then takes the VM for one that runs.
    assert int(told.pop("statusTime")) > 0
    assert told == {
        "vmId": UUID,
        "status": "Down",
        "exitCode": 0,
        "exitReason": 6,
        "exitMessage": "Shut down.",
        "timeOffset": -3600,
    }
    assert common.definition(this)["exitCode"] == 0


def test_a_vm_that_is_paused():
    this = vm(**PAUSED)
    assert common.definition(this)["pauseCode"] == "EIO"
    assert wire_stats.vm_stats(this)["pauseCode"] == "EIO"
    assert wire_stats.vm_stats(vm())["pauseCode"] == "NOERR"


def test_running_statistics():
    found = wire_stats.vm_stats(vm())
    assert found["cpuUser"] == "12.35"
    assert found["memUsage"] == "75"
    assert found["memoryStats"]["mem_free"] == "250"
    assert found["balloonInfo"]["balloon_min"] == str(512 * 1024)
    assert found["timeOffset"] == "-3600"
    assert found["monitorResponse"] == "0"
    assert found["hash"] == vm().hash
    assert found["displayInfo"] == [
        {"type": "vnc", "port": "5900", "tlsPort": "-1", "ipAddress": "192.0.2.9"}
    ]


def test_a_limit_of_the_processors():
    assert not [name for name in wire_stats.vm_stats(vm()) if name.startswith("vcpuU")]
    tune = "<cputune><period>100000</period><quota>50000</quota></cputune>"
    qos = "<t:qos xmlns:t='http://ovirt.org/vm/tune/1.0'><t:vcpuLimit>50</t:vcpuLimit></t:qos>"
    found = wire_stats.vm_stats(vm(XML.replace("<metadata>", f"{tune}<metadata>{qos}", 1)))
    CONTRACT.type("VmStats").check(found, "stats")
    told = [found[name] for name in ("vcpuUserLimit", "vcpuPeriod", "vcpuQuota")]
    assert told == [50, 100000, "50000"]


def test_room_for_memory():
    roomy = XML.replace("<vcpu", "<maxMemory slots='4' unit='GiB'>2</maxMemory><vcpu", 1)
    found = common.definition(vm(roomy))
    CONTRACT.type("VmDefinition").check(found, "definition")
    assert (found["maxMemSize"], found["maxMemSlots"]) == (2048, 4)


def test_disk_statistics():
    disks = wire_stats.vm_stats(vm())["disks"]
    assert disks["vda"] == {
        "imageID": DISK,
        "apparentsize": str(2**30),
        "truesize": str(2**20),
        "readBytes": "4096",
        "writtenBytes": "8192",
        "readOps": "1",
        "writeOps": "2",
        "readRate": "819.20",
        "writeRate": "1638.40",
        "readLatency": "1500000",
        "writeLatency": "2500000",
        "flushLatency": "3500000",
        "sampleTime": 123.456,
    }
    assert disks["sdc"]["readRate"] == "0.00"


def test_network_statistics():
    network = wire_stats.vm_stats(vm())["network"]
    assert network.keys() == {"vnet0"}
    assert network["vnet0"] == {
        "name": "vnet0",
        "macAddr": "52:54:00:00:00:01",
        "state": "down",
        "speed": "1000",
        "rx": "1",
        "tx": "2",
        "rxErrors": "3",
        "txErrors": "4",
        "rxDropped": "5",
        "txDropped": "6",
        "sampleTime": 123.456,
    }


def test_a_monitor_that_does_not_answer():
    assert wire_stats.vm_stats(vm(monitor_responsive=False))["monitorResponse"] == "-1"


def test_host_statistics_of_this_machine():
    async def sampled():
        sampler = HostSampler(Tasks("host"))
        await sampler.start()
        await sampler.close()
        return sampler.snapshot()

    statuses = [Status.UP, Status.UP, Status.MIGRATION_SOURCE, Status.DOWN]
    vms = [vm(status=status) for status in statuses]
    hung = ClusterState(Account(()), "no answer", 0.0, fsid=UUID)
    found = host.host_stats(asyncio.run(sampled()), vms, (hung,))
    CONTRACT.type("HostStats").check(found, "stats")
    engine_parsing.read(found, engine_parsing.HOST_STATISTICS, "stats")
    counts = ("vmCount", "vmActive", "vmMigrating", "outgoingVmMigrations", "incomingVmMigrations")
    assert [found[name] for name in counts] == [4, 2, 1, 1, 0]
    assert found["cpuStatistics"].keys() >= {"0"}
    assert 0 <= int(found["memUsed"]) <= 100
    assert found["dateTime"].endswith(" GMT")


def test_a_cluster_with_a_full_pool():
    rooms = {
        "volumes": PoolRoom(1, 2, CephFault(Kind.QUOTA, "volumes")),
        "images": PoolRoom(1, 2, CephFault(Kind.SCARCE, "images")),
        "backups": PoolRoom(1, 2),
    }
    state = ClusterState(Account((), user="cinder"), None, 0.0, fsid=UUID, pools=rooms)
    (found,) = ceph.clusters([state])
    CONTRACT.type("CephCluster").check(found, "cluster")
    full = {name: pool["full"] for name, pool in found["pools"].items()}
    assert full == {"volumes": True, "images": False, "backups": False}
    name, params = ceph.status(state)
    CONTRACT.type("CephClusterNotice").check(params[UUID], "notice")
    why = "pool volumes is full, for its quota is reached"
    assert (name, params[UUID]["fullPools"]) == (
        f"|ceph|cluster_status|{UUID}",
        {"volumes": why},
    )


# Statistics of all VMs, written once


async def told(stats, *vms):
    """What EncodedStats says of VMs, which must be what vm_stats() says."""
    found = (await stats.of(vms)).read()
    expected = json.loads(json.dumps([wire_stats.vm_stats(v) for v in vms]))
    for this in (*found, *expected):
        this.pop("statusTime", None)
    assert found == expected
    return found


@pytest.mark.parametrize("changes", [{}, DOWN, PAUSED, STARTING])
async def test_what_is_written_once_is_what_is_told_of_one_vm(changes):
    stats = wire_stats.EncodedStats(Listings())
    await told(stats, vm(**changes), vm(BARE, **changes, id="another"))


@pytest.mark.parametrize(
    "changes",
    [
        DOWN,
        PAUSED,
        {"sample": SAMPLE.__class__(**{**vars(SAMPLE), "cpu_time_ns": 5})},
        {"sample": None},
        {"domain": Domain.from_xml(BARE)},
        {"elapsed_s": 61},
        {"monitor_responsive": False},
        {"hash": "another"},
    ],
)
async def test_what_changes_is_told_at_once(changes):
    stats, this = wire_stats.EncodedStats(Listings()), vm()
    stats.prepare(this)
    before = await told(stats, this)
    vars(this).update(changes)
    assert await told(stats, this) != before
    vars(this).update(vars(vm()))
    assert len(await told(stats, this, vm(id="another"))) == 2


async def test_what_was_written_of_a_vm_goes_with_it():
    stats = wire_stats.EncodedStats(Listings())
    await told(stats, vm(), vm(id="another"))
    await told(stats, vm())
    assert stats._written.keys() == {UUID}
    stats.prepare(vm(**DOWN, id="a third"))
    assert stats._written.keys() == {UUID}
