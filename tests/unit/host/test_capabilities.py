# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host says of itself: the readers on trees of files as kernels lay them out, and the
whole against this machine's own kernel and libvirt's test driver."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import libvirt
import pytest

from tests.unit import engine_parsing
from vdsmcinder.config import Libvirt
from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.host import (
    cpu,
    hypervisor,
    machine,
    netinfo,
    netlink,
    network,
    numa,
    packages,
)
from vdsmcinder.host.capabilities import Capabilities
from vdsmcinder.host.network import Kind, Network
from vdsmcinder.host.packages import PackageManager, Packages, Version
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.rpc.schema import schema
from vdsmcinder.tasks import Tasks


def tree(root: Path, files: Mapping[str, str]) -> Path:
    """A folder with these files; a path that ends in '/' is an empty folder."""
    for path, content in files.items():
        if path.endswith("/"):
            (root / path).mkdir(parents=True, exist_ok=True)
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content + "\n")
    return root


HOST_XML = """\
<capabilities>
  <host>
    <uuid>35b0e9f5-c52e-4585-b0c3-ba6e12aa7a4c</uuid>
    <cpu><arch>x86_64</arch><counter name="tsc" frequency="2249998000" scaling="yes"/></cpu>
  </host>
  <guest>
    <os_type>hvm</os_type>
    <arch name="i686"><machine>isapc</machine><domain type="qemu"/></arch>
  </guest>
  <guest>
    <os_type>hvm</os_type>
    <arch name="x86_64">
      <machine canonical="pc-i440fx-7.2">pc</machine>
      <machine canonical="pc-q35-7.2">q35</machine>
      <machine>pc-i440fx-7.2</machine>
      <domain type="qemu"/>
      {kvm}
    </arch>
  </guest>
</capabilities>
"""

DOMAIN_XML = """\
<domainCapabilities>
  <cpu>
    <mode name="host-model" supported="yes">
      <model fallback="forbid">EPYC</model>
      <feature policy="require" name="x2apic"/>
      <feature policy="disable" name="svm"/>
    </mode>
    <mode name="custom" supported="yes">
      <model usable="yes">qemu64</model>
      <model usable="no">Skylake-Server</model>
      <model usable="yes">Nehalem</model>
    </mode>
  </cpu>
</domainCapabilities>
"""


def test_machines_are_listed_with_what_they_are_short_for() -> None:
    found = hypervisor.parse(HOST_XML.format(kvm=""), None, "x86_64")
    assert found.machines == ("pc", "pc-i440fx-7.2", "pc-q35-7.2", "q35")
    assert not found.kvm


def test_machines_of_kvm_take_precedence_where_it_lists_its_own() -> None:
    kvm = '<domain type="kvm"><machine>pc-q35-rhel9.4.0</machine></domain>'
    found = hypervisor.parse(HOST_XML.format(kvm=kvm), None, "x86_64")
    assert found.machines == ("pc-q35-rhel9.4.0",)
    assert found.kvm


def test_cpu_models_are_those_that_vms_can_have_here() -> None:
    found = hypervisor.parse(HOST_XML.format(kvm=""), DOMAIN_XML, "x86_64")
    assert found.cpu_models == ("Nehalem", "qemu64")
    assert found.cpu_features == ("x2apic",)
    assert (found.tsc_hz, found.tsc_scaling) == ("2249998000", True)


def test_processors_of_two_sockets_with_threads(tmp_path: Path) -> None:
    files = {"devices/system/cpu/online": "0-5,7"}
    for n in range(8):
        folder = f"devices/system/cpu/cpu{n}/topology"
        files[f"{folder}/physical_package_id"] = str(n // 4)
        files[f"{folder}/core_id"] = str(n % 4 // 2)
    files["devices/system/node/node0/cpulist"] = "0-3"
    files["devices/system/node/node1/cpulist"] = "4-7"
    proc = tree(
        tmp_path / "proc",
        {"cpuinfo": "model name\t: Xeon\ncpu MHz\t\t: 2100.001\nflags\t\t: fpu vmx\n\ncpu MHz: 1"},
    )
    found = cpu.processors(proc, tree(tmp_path / "sys", files))
    assert (found.model, found.speed_mhz, found.flags) == ("Xeon", "2100.001", ("fpu", "vmx"))
    # Number 6 is offline.
    assert found.online == (0, 1, 2, 3, 4, 5, 7)
    assert (found.sockets, found.cores, found.threads) == (2, 4, 7)
    assert [c.node for c in found.topology] == [0, 0, 0, 0, 1, 1, 1]


def test_numa_nodes_have_memory_huge_pages_and_distances(tmp_path: Path) -> None:
    node = "devices/system/node/node1"
    sys = tree(
        tmp_path,
        {
            f"{node}/cpulist": "8-9,12",
            f"{node}/distance": "21 10",
            f"{node}/meminfo": "Node 1 MemTotal:       2097152 kB\nNode 1 MemFree: 1 kB",
            f"{node}/hugepages/hugepages-2048kB/nr_hugepages": "512",
            f"{node}/hugepages/hugepages-1048576kB/nr_hugepages": "0",
        },
    )
    found = numa.nodes(sys)[1]
    assert found.cpus == (8, 9, 12)
    assert found.distances == (21, 10)
    assert found.memory_mib == 2048
    assert found.huge_pages == {2048: 512, 1048576: 0}


@pytest.mark.parametrize(("written", "expected"), [("0", 0), ("1", 1), ("2", 1), (None, 2)])
def test_numa_balancing(tmp_path: Path, written: str | None, expected: int) -> None:
    files = {} if written is None else {"sys/kernel/numa_balancing": written}
    assert numa.balancing(tree(tmp_path, files)) == expected


LINKS = {
    "class/net/em1/device/": "",
    "class/net/em1/address": "52:54:00:00:00:01",
    "class/net/em1/mtu": "9000",
    "class/net/em1/speed": "25000",
    "class/net/em1/uevent": "INTERFACE=em1",
    "class/net/bond0/bonding/mode": "active-backup 1",
    "class/net/bond0/bonding/miimon": "100",
    "class/net/bond0/bonding/slaves": "em2 em1",
    "class/net/bond0/bonding/active_slave": "em1",
    "class/net/bond0/mtu": "9000",
    "class/net/bond0.7/uevent": "DEVTYPE=vlan\nINTERFACE=bond0.7",
    "class/net/bond0.7/lower_bond0/": "",
    "class/net/bond0.7/mtu": "1500",
    "class/net/ovirtmgmt/bridge/stp_state": "1",
    "class/net/ovirtmgmt/brif/bond0.7/": "",
    "class/net/ovirtmgmt/brif/vnet0/": "",
    "class/net/ovirtmgmt/mtu": "1500",
    "class/net/vnet0/uevent": "INTERFACE=vnet0",
}


# VLANs on what engines are not told of, on one of those, on one that they are, and in a namespace
# whose parent link is in another.
STACKED = {
    "class/net/ovirtmgmt.9/lower_ovirtmgmt/": "",
    "class/net/vnet0.3/lower_vnet0/": "",
    "class/net/vnet0.3.4/lower_vnet0.3/": "",
    "class/net/bond0.7.8/lower_bond0.7/": "",
    "class/net/moved/": "",
    "class/net/bond0.7/lower_bond0/": "",
}


@pytest.fixture
async def conn() -> AsyncIterator[Connection]:
    """A connection to libvirt's test driver, up."""
    connection = Connection(Libvirt(uri="test:///default"), Tasks("libvirt"))
    up = asyncio.Event()

    async def on_up() -> None:
        up.set()

    connection.start(on_up, {})
    await asyncio.wait_for(up.wait(), 30)
    yield connection
    await connection.close()


@pytest.fixture
def net(tmp_path: Path) -> Network:
    """A host as engines set it up: a NIC in a bond, a VLAN on it, a bridge on that."""
    sys = tree(tmp_path / "sys", LINKS)
    proc = tree(
        tmp_path / "proc",
        {"net/vlan/bond0.7": "bond0.7  VID: 7\t REORDER_HDR: 1  dev->priv_flags: 1021"},
    )
    addresses = (
        netlink.Address(9, ipaddress.ip_interface("10.0.0.5/24"), permanent=False),
        netlink.Address(9, ipaddress.ip_interface("2001:db8::5/128"), permanent=False),
        netlink.Address(9, ipaddress.ip_interface("fe80::5/64"), permanent=True),
    )
    links = {
        name: network.link(name, (), None, None, proc=proc, sys=sys)
        for name in ("em1", "bond0", "bond0.7", "vnet0")
    }
    links["ovirtmgmt"] = network.link("ovirtmgmt", addresses, "10.0.0.1", None, proc=proc, sys=sys)
    return Network(links, "ovirtmgmt", ("10.0.0.2",), ipv6=True)


def test_links_are_sorted_by_kind(net: Network) -> None:
    assert [link.name for link in net.of(Kind.NIC)] == ["em1"]
    assert [link.name for link in net.of(Kind.BOND)] == ["bond0"]
    assert [link.name for link in net.of(Kind.VLAN)] == ["bond0.7"]
    assert [link.name for link in net.of(Kind.BRIDGE)] == ["ovirtmgmt"]
    assert [link.name for link in net.of(Kind.OTHER)] == ["vnet0"]


def test_links_in_the_words_of_the_engine(net: Network) -> None:
    told = netinfo.as_dict(net)
    nic, bond = told["nics"]["em1"], told["bondings"]["bond0"]
    assert (nic["hwaddr"], nic["mtu"], nic["speed"]) == ("52:54:00:00:00:01", "9000", 25000)
    assert (bond["slaves"], bond["active_slave"]) == (["em1", "em2"], "em1")
    assert bond["opts"] == {"mode": "1", "miimon": "100"}
    vlan = told["vlans"]["bond0.7"]
    assert (vlan["iface"], vlan["vlanid"], vlan["mtu"]) == ("bond0", 7, 1500)
    bridge = told["bridges"]["ovirtmgmt"]
    assert (bridge["ports"], bridge["stp"]) == (["bond0.7", "vnet0"], "on")
    assert told["networks"]["ovirtmgmt"]["iface"] == "ovirtmgmt"


async def test_ovirts_engine_can_read_every_kind_of_link(net: Network, conn: Connection) -> None:
    found = await Capabilities(conn, Tasks("capabilities")).get()
    engine_parsing.read_capabilities({**found, **netinfo.as_dict(net)})


async def test_a_vlan_on_what_is_not_told_is_not_told(tmp_path: Path, conn: Connection) -> None:
    vlans = {Path(path).parts[2] for path in STACKED}
    uevents = {f"class/net/{name}/uevent": "DEVTYPE=vlan" for name in vlans}
    sys = tree(tmp_path, {**LINKS, **STACKED, **uevents})
    names = sorted({Path(path).parts[2] for path in {**LINKS, **STACKED}})
    links = {name: network.link(name, (), None, None, proc=tmp_path, sys=sys) for name in names}
    told = netinfo.as_dict(Network(links, "", (), ipv6=True))
    assert told["vlans"].keys() == {"bond0.7", "bond0.7.8"}
    found = await Capabilities(conn, Tasks("capabilities")).get()
    engine_parsing.read_capabilities({**found, **told})


def test_addresses_in_the_words_of_the_engine(net: Network) -> None:
    bridge = netinfo.as_dict(net)["bridges"]["ovirtmgmt"]
    assert (bridge["addr"], bridge["netmask"]) == ("10.0.0.5", "255.255.255.0")
    assert (bridge["gateway"], bridge["ipv4defaultroute"]) == ("10.0.0.1", True)
    assert (bridge["ipv4addrs"], bridge["dhcpv4"]) == (["10.0.0.5/24"], True)
    assert (bridge["ipv6addrs"], bridge["dhcpv6"]) == (["2001:db8::5/128", "fe80::5/64"], True)
    assert bridge["ipv6gateway"] == "::"
    assert netinfo.main_address(net) == "10.0.0.5"


def test_default_gateways_are_those_of_least_metric() -> None:
    v4 = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "em2\t00000000\tFE0200C0\t0003\t0\t0\t200\t00000000\t0\t0\t0\n"
        "em2\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        "em1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert network.default_gateways_v4(v4) == {"em2": "192.0.2.1"}
    zeros = "0" * 32
    v6 = (
        f"{zeros} 00 {zeros} 00 fd000000000000000000000000000001 "
        "00000400 00000002 00000000 00000003 em1\n"
        f"{zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200 lo\n"
    )
    assert network.default_gateways_v6(v6) == {"em1": "fd00::1"}


def test_the_kernel_lists_the_loopback_addresses() -> None:
    index = socket.if_nametoindex("lo")
    found = {str(a.interface): a.permanent for a in netlink.addresses() if a.link_index == index}
    assert found["127.0.0.1/8"] is True


DPKG = """\
ii librbd1 16.2.15+ds-0+deb12u2
ii qemu-system-x86 1:7.2+dfsg-7+deb12u18+b3
rc libvirt0 8.0.0-1
un librados2
hi libvirt-daemon 9.0.0-4+deb12u2
"""


def test_packages_of_a_debian_host_go_by_the_names_of_engines() -> None:
    assert packages.parse(DPKG) == {
        "librbd1": Version("16.2.15+ds", "0+deb12u2"),
        "qemu-kvm": Version("7.2+dfsg", "7+deb12u18+b3"),
        "libvirt": Version("9.0.0", "4+deb12u2"),
    }


def test_packages_are_asked_for_again_only_when_they_changed(tmp_path: Path) -> None:
    database, log = tmp_path / "database", tmp_path / "log"
    database.write_text("x")
    command = f"echo asked >> {log}; echo ii librbd1 $(wc -l < {log})-1 #"
    found = Packages((PackageManager((str(database),), ("sh", "-c", command)),))
    assert found.versions()["librbd1"] == Version("1", "1")
    assert found.versions()["librbd1"] == Version("1", "1")
    os.utime(database, ns=(1, 1))
    assert found.versions()["librbd1"] == Version("2", "1")


def test_kernel_and_daemon_are_listed_without_a_package_manager(tmp_path: Path) -> None:
    found = Packages((PackageManager((str(tmp_path / "none"),), ("false",)),)).versions()
    version, _, release = os.uname().release.partition("-")
    assert found["kernel"] == Version(version, release)
    assert set(found) == {"kernel", "vdsm", "vdsm-cinder"}


FIRMWARE = "4c4c4544-0034-3510-8052-b4c04f4e3132"
LIBVIRT = "35b0e9f5-c52e-4585-b0c3-ba6e12aa7a4c"


def test_uuid_is_the_firmwares_unless_libvirt_is_configured_otherwise(tmp_path: Path) -> None:
    root = tree(tmp_path, {"sys/class/dmi/id/product_uuid": FIRMWARE.upper()})
    assert machine.host_uuid(None, root) == FIRMWARE
    assert machine.host_uuid(LIBVIRT, root) == LIBVIRT


@pytest.mark.parametrize(
    "firmware", ["", "Not Settable", "03000200-0400-0500-0006-000700080009", "0" * 32]
)
def test_uuid_without_the_firmwares_stays_the_same(tmp_path: Path, firmware: str) -> None:
    files = {"etc/machine-id": "a" * 32, "sys/class/dmi/id/product_uuid": firmware}
    root = tree(tmp_path / "one", files)
    other = tree(tmp_path / "other", {**files, "etc/machine-id": "b" * 32})
    # libvirt's would be a new one at each start of libvirtd.
    found = machine.host_uuid(LIBVIRT, root)
    assert found == machine.host_uuid(str(uuid.uuid4()), root)
    assert found not in (machine.host_uuid(LIBVIRT, other), LIBVIRT, str(uuid.UUID("a" * 32)))


@pytest.mark.parametrize(
    ("release", "name", "version", "minor"),
    [
        ('ID=debian\nVERSION_ID="12"', "Debian", "12", ""),
        ('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="9.4"', "RHEL", "9", "4"),
        ('ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="9"', "RHEL", "9", ""),
        ("ID=fedora\nVERSION_ID=40", "Fedora", "40", ""),
        ("ID=arch", "unknown", "", ""),
    ],
)
def test_operating_system(
    tmp_path: Path, release: str, name: str, version: str, minor: str
) -> None:
    found = machine.operating_system(tree(tmp_path, {"etc/os-release": release}))
    assert (found.name, found.version, found.release) == (name, version, minor)


def test_what_a_kernel_does_not_have_reads_as_absent(tmp_path: Path) -> None:
    assert machine.selinux_mode(tmp_path) == "-1"
    assert machine.kdump_status(tmp_path) == -1
    assert machine.rng_sources(tmp_path) == []
    assert not machine.nested_virtualization(tmp_path)
    assert not machine.iommu(tmp_path)
    assert not machine.vnc_encrypted(tmp_path)
    assert machine.iscsi_initiator(tmp_path) == ""
    assert machine.hardware(tmp_path).uuid == ""


def test_what_a_kernel_has_is_read(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "sys/fs/selinux/enforce": "1",
            "sys/kernel/kexec_crash_loaded": "1",
            "etc/kdump.conf": "path /var/crash\nfence_kdump_nodes 10.0.0.9",
            "dev/random": "",
            "sys/class/misc/hw_random/rng_current": "tpm-rng-0",
            "sys/module/kvm_amd/parameters/nested": "1",
            "sys/kernel/iommu_groups/0/": "",
            "etc/libvirt/qemu.conf": "#vnc_tls = 0\nvnc_tls = 1",
            "etc/iscsi/initiatorname.iscsi": "InitiatorName=iqn.2005-03.org.open-iscsi:1a2b",
        },
    )
    assert machine.selinux_mode(root) == "1"
    assert machine.kdump_status(root) == 1
    assert machine.rng_sources(root) == ["random", "hwrng"]
    assert machine.nested_virtualization(root)
    assert machine.iommu(root)
    assert machine.vnc_encrypted(root)
    assert machine.iscsi_initiator(root) == "iqn.2005-03.org.open-iscsi:1a2b"


async def test_capabilities_have_the_shape_that_engines_read(conn: Connection) -> None:
    contract = schema.load()
    capabilities = Capabilities(conn, Tasks("capabilities"))
    found = await capabilities.get()
    contract.type("VdsmCapabilities").check(found, "capabilities")
    engine_parsing.read_capabilities(found)
    contract.type("HardwareInformation").check(await capabilities.hardware(), "hardware")


async def test_capabilities_are_those_of_this_machine(conn: Connection) -> None:
    found = await Capabilities(conn, Tasks("capabilities")).get()
    assert found["cpuThreads"] == str(os.cpu_count())
    assert found["packages2"]["vdsm-cinder"]["version"]
    assert found["boot_uuid"] == machine.boot_uuid()
    assert found["uuid"] == (await Capabilities(conn, Tasks("capabilities")).get())["uuid"]


async def test_a_host_that_emulates_says_that_it_runs_kvm(conn: Connection) -> None:
    found = await Capabilities(conn, Tasks("capabilities"), allow_emulation=True).get()
    assert found["kvmEnabled"] == "true"


async def test_capabilities_are_refused_while_libvirt_has_never_answered() -> None:
    with pytest.raises(ResourceUnavailable, match="libvirt"):
        await Capabilities(
            Connection(Libvirt(uri="test:///default"), Tasks("libvirt")), Tasks("capabilities")
        ).get()


async def test_capabilities_once_known_outlive_libvirt(conn: Connection) -> None:
    capabilities = Capabilities(conn, Tasks("capabilities"))
    before = await capabilities.get()
    conn._closed(libvirt.VIR_CONNECT_CLOSE_REASON_EOF)
    assert not conn.ready
    assert (await capabilities.get())["emulatedMachines"] == before["emulatedMachines"]
