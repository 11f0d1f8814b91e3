# SPDX-License-Identifier: GPL-2.0-or-later
"""How oVirt's engine (4.5.7) reads the answers of a host: which type it takes each member for.

What has another type is an exception there, or counts as absent without a word. The tables name
every member that it reads; those with a question mark it can do without. JSON is Java there: a
whole number is an Integer up to 31 bits and a Long above, a number with a fraction a Double.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Callable

# Codes that it has a name for (EngineError), of those below 1000 that a daemon may have use for.
KNOWN_CODES = {
    *(1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 40, 41, 42, 43, 44, 45, 46, 47),
    *(48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 60, 70, 75, 76, 77, 91, 99, 100, 1100, -32601),
}

Kind = Callable[[Any, str], None]
Table = Mapping[str, Kind]

VM_STATUSES = {
    *("Down", "Up", "PoweringUp", "Paused", "MigrationSource", "MigrationDestination"),
    *("WaitForLaunch", "RebootInProgress", "SavingState", "RestoringState", "PoweringDown"),
}
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d GMT")


def read(answer: Any, table: Table, where: str) -> None:
    """Read an object as the engine does; raises AssertionError where that goes wrong."""
    of_table(table)(json.loads(json.dumps(answer)), where)


# Casts


def text(value: Any, where: str) -> None:
    """(String)"""
    assert isinstance(value, str), f"{where}: {value!r} is no text"


def integer(value: Any, where: str) -> None:
    """(Integer)"""
    assert type(value) is int and abs(value) < 2**31, f"{where}: {value!r} is no Integer"


def boolean(value: Any, where: str) -> None:
    """(Boolean)"""
    assert isinstance(value, bool), f"{where}: {value!r} is no Boolean"


def whole(value: Any, where: str) -> None:
    """assignIntValue: an Integer, or text that begins with one."""
    if isinstance(value, str):
        value = int(value.split(".", maxsplit=1)[0])
    integer(value, where)


def whole_64(value: Any, where: str) -> None:
    """assignLongValue and assignBigIntegerValue: a number without fraction, also as text."""
    if isinstance(value, str):
        value = int(value.split(".", maxsplit=1)[0])
    assert type(value) is int, f"{where}: {value!r} is no whole number"


def fraction(value: Any, where: str) -> None:
    """assignDoubleValue: a Double or text; a whole number is lost."""
    if isinstance(value, str):
        value = float(value)
    assert isinstance(value, float), f"{where}: {value!r} is no Double"


def flag(value: Any, where: str) -> None:
    """assignBoolValue: what is no Boolean is true if its text is."""
    assert str(value).lower() in ("true", "false"), f"{where}: {value!r} is neither true nor false"


def digits(value: Any, where: str) -> None:
    """Integer.parseInt(value.toString())"""
    int(str(value))
    assert type(value) in (int, str), f"{where}: {value!r} is no number"


def guid(value: Any, where: str) -> None:
    """new Guid((String) value)"""
    text(value, where)
    assert _GUID.fullmatch(value), f"{where}: {value!r} is no UUID"


def one_of(*words: str) -> Kind:
    """The name of an enum's member, in whichever case."""

    def check(value: Any, where: str) -> None:
        text(value, where)
        assert value.lower() in {word.lower() for word in words}, f"{where}: {value!r} is unknown"

    return check


def vm_status(value: Any, where: str) -> None:
    """convertToVmStatus, which takes the blanks out."""
    text(value, where)
    assert value.replace(" ", "") in VM_STATUSES, f"{where}: {value!r} is no status"


def date(value: Any, where: str) -> None:
    """assignDatetimeValue"""
    text(value, where)
    assert _DATE.fullmatch(value), f"{where}: {value!r} is no date"


def of_table(table: Table) -> Kind:
    """A map whose members are those of the table, as far as the engine reads them."""

    def check(value: Any, where: str) -> None:
        assert isinstance(value, dict), f"{where}: {value!r} is no Map"
        for name, kind in table.items():
            key = name.removesuffix("?")
            if key in value:
                kind(value[key], f"{where}.{key}")
            else:
                assert name.endswith("?"), f"{where}.{key} is missing"

    return check


def map_of(kind: Kind) -> Kind:
    """A map with any keys."""

    def check(value: Any, where: str) -> None:
        assert isinstance(value, dict), f"{where}: {value!r} is no Map"
        for key, member in value.items():
            kind(member, f"{where}.{key}")

    return check


def list_of(kind: Kind) -> Kind:
    """An Object[]"""

    def check(value: Any, where: str) -> None:
        assert isinstance(value, list), f"{where}: {value!r} is no array"
        for i, member in enumerate(value):
            kind(member, f"{where}[{i}]")

    return check


# A VM

VM_DYNAMIC: Table = {
    "vmId": guid,
    "status": vm_status,
    "session?": one_of("Unknown", "UserLoggedOn", "Locked", "Active", "LoggedOff"),
    "acpiEnable?": text,
    "displayInfo?": list_of(map_of(text)),
    "displayIp?": text,
    "displayPort?": digits,
    "displaySecurePort?": digits,
    "timeOffset?": digits,
    "username?": text,
    "guestFQDN?": text,
    "guestIPs?": text,
    "appsList?": list_of(text),
    "exitCode?": digits,
    "exitMessage?": text,
    "exitReason?": digits,
    "monitorResponse?": digits,
    "clientIp?": text,
    "pauseCode?": one_of("NONE", "EOTHER", "EIO", "ENOSPC", "EPERM", "NOERR", "POSTCOPY"),
    "cdrom?": text,
    "guestCPUCount?": whole,
    "hash?": text,
    "tpmHash?": text,
    "nvramHash?": text,
}
DISK_STATISTICS: Table = {
    "imageID?": guid,
    "truesize": whole_64,
    **dict.fromkeys(("readRate", "readOps", "writeRate", "writeOps"), whole_64),
    **dict.fromkeys(("readLatency", "writeLatency", "flushLatency"), fraction),
}
INTERFACE_STATISTICS: Table = {
    "name": text,
    **dict.fromkeys(("rx", "tx", "rxDropped", "txDropped"), whole_64),
    "sampleTime": fraction,
    "speed": whole,
}
VM_STATISTICS: Table = {
    **VM_DYNAMIC,
    "statusTime": fraction,
    **dict.fromkeys(("elapsedTime", "cpuSys", "cpuUser"), fraction),
    "memUsage": whole,
    "memoryStats?": of_table(
        dict.fromkeys(("mem_buffers?", "mem_cached?", "mem_free?", "mem_unused?"), whole_64)
    ),
    "migrationProgress?": whole,
    # The balloon counts as enabled if there are four members or more.
    "balloonInfo?": of_table(
        dict.fromkeys(("balloon_cur", "balloon_max", "balloon_min", "balloon_target"), whole_64)
    ),
    "vmJobs?": map_of(of_table({"id": guid, "imgUUID": guid, "jobType": text})),
    "disks": map_of(of_table(DISK_STATISTICS)),
    "network": map_of(of_table({**INTERFACE_STATISTICS, "macAddr": text})),
}
EXITED_VM: Table = {
    **VM_DYNAMIC,
    "statusTime": fraction,
    **{name: VM_DYNAMIC[f"{name}?"] for name in ("exitCode", "exitMessage", "exitReason")},
}
VM_DEFINITION: Table = {
    **VM_DYNAMIC,
    "devices": list_of(
        of_table(
            {
                "device": text,
                "alias": text,
                "apparentsize": whole_64,
                "format": one_of("raw", "cow"),
                "iface": text,
                "deviceId?": guid,
            }
        )
    ),
}
MIGRATION_STATUS: Table = {"status": of_table({"code": integer, "message": text})}
MIGRATED_STATUS: Table = {**MIGRATION_STATUS, "downtime": integer}
MIGRATION_EVENT: Table = {"progress": integer, "downtime?": integer, "postcopy?": boolean}

# A host

_HUGE_PAGES: Table = {"vm.free_hugepages": whole, "nr_hugepages": whole}
HOST_STATISTICS: Table = {
    "network": map_of(of_table({**INTERFACE_STATISTICS, "state": text})),
    **dict.fromkeys(("cpuSys", "cpuUser", "cpuLoad", "cpuIdle"), fraction),
    **dict.fromkeys(("memFree", "memShared", "swapFree", "swapTotal", "ksmPages"), whole_64),
    "ksmCpu": whole,
    "ksmState": flag,
    "thpState": one_of("never", "madvise", "always"),
    "anonHugePages": whole,
    # How much of the memory is taken is reckoned only with it.
    "hugepages": map_of(of_table(_HUGE_PAGES)),
    "netConfigDirty": flag,
    **dict.fromkeys(("vmCount", "vmActive", "vmMigrating"), whole),
    **dict.fromkeys(("incomingVmMigrations", "outgoingVmMigrations"), whole),
    "storageDomains": map_of(
        of_table(
            {
                "code": integer,
                **dict.fromkeys(("lastCheck", "delay"), text),
                **dict.fromkeys(("actual", "acquired", "valid"), boolean),
            }
        )
    ),
    "diskStats": map_of(of_table({"free": whole_64})),
    "haStats": of_table(
        {
            "score": whole,
            **dict.fromkeys(("configured", "active"), flag),
            **dict.fromkeys(("globalMaintenance", "localMaintenance"), flag),
        }
    ),
    "bootTime": whole_64,
    "cpuStatistics": map_of(
        of_table({"nodeIndex": whole, **dict.fromkeys(("cpuUser", "cpuSys", "cpuIdle"), fraction)})
    ),
    "numaNodeMemFree": map_of(
        of_table(
            {
                "memFree": whole_64,
                "memPercent": whole,
                "hugepages": map_of(of_table({"freePages": whole})),
            }
        )
    ),
    "dateTime": date,
    "v2vJobs?": map_of(of_table({"status": text, "description": text, "progress": whole})),
}

_ADDRESSING: Table = {
    **dict.fromkeys(("addr", "netmask", "gateway", "ipv6gateway"), text),
    "ipv6addrs": list_of(text),
    "mtu": whole,
    **dict.fromkeys(("dhcpv4", "dhcpv6"), boolean),
    "ipv6autoconf?": boolean,
    "ipv4defaultroute?": flag,
}
_BRIDGE: Table = {**_ADDRESSING, "ports": list_of(text)}
HOST_CAPABILITIES: Table = {
    **dict.fromkeys(("clusterLevels", "supportedENGINEs", "emulatedMachines"), list_of(text)),
    **dict.fromkeys(("nameservers", "rngSources", "additionalFeatures"), list_of(text)),
    "vdsmToCpusAffinity": list_of(integer),
    "nics": map_of(of_table({**_ADDRESSING, "hwaddr": text, "speed": integer})),
    "bondings": map_of(
        of_table(
            {
                **_ADDRESSING,
                "hwaddr": text,
                "slaves": list_of(text),
                "opts": map_of(text),
                "active_slave": text,
            }
        )
    ),
    "vlans": map_of(of_table({**_ADDRESSING, "vlanid": integer, "iface": text})),
    "bridges": map_of(of_table(_BRIDGE)),
    "networks": map_of(of_table({**_BRIDGE, "iface": text, "switch": text, "bridged": flag})),
    "autoNumaBalancing": whole,
    "numaNodes": map_of(of_table({"cpus": list_of(integer), "totalMemory": whole_64})),
    "numaNodeDistance": map_of(list_of(integer)),
    "cpuTopology": list_of(
        of_table(dict.fromkeys(("numa_cell_id", "socket_id", "core_id", "cpu_id"), integer))
    ),
    **dict.fromkeys(("cpuThreads", "cpuCores", "cpuSockets"), whole),
    **dict.fromkeys(("memSize", "reservedMem", "guestOverhead"), whole),
    **dict.fromkeys(("cpuModel", "onlineCpus", "kernelArgs", "cpuFlags"), text),
    "cpuSpeed": fraction,
    "kvmEnabled": flag,
    "hostdevPassthrough": flag,
    **dict.fromkeys(("version_name", "software_version", "ISCSIInitiatorName"), text),
    "operatingSystem": of_table(dict.fromkeys(("name", "version", "release", "pretty_name"), text)),
    "packages2": map_of(of_table({"version": text, "release": text})),
    "HBAInventory": map_of(list_of(map_of(text))),
    "kdumpStatus": whole,
    "selinux": of_table({"mode": whole}),
    "hostedEngineDeployed?": flag,
    **dict.fromkeys(("vncEncrypted", "backupEnabled", "fipsEnabled", "tscScaling"), flag),
    "ovnConfigured?": flag,
    "connector_info?": map_of(lambda value, where: None),
    "kernelFeatures?": map_of(lambda value, where: None),
    "supported_block_size?": map_of(list_of(integer)),
    "domain_versions?": list_of(integer),
    "tscFrequency": text,
    "boot_uuid": text,
}


def read_capabilities(found: Any) -> None:
    """Read Host.getCapabilities whole."""
    read(found, HOST_CAPABILITIES, "capabilities")
    assert "vdsm" in found["packages2"]
    # A VLAN has the speed of what it is on, which has to be there.
    interfaces = found["nics"].keys() | found["vlans"].keys() | found["bondings"].keys()
    for name, vlan in found["vlans"].items():
        assert vlan["iface"] in interfaces, f"{name} is on {vlan['iface']}, which is not told"


def read_vm_stats(found: Any) -> None:
    """Read one of what VM.getStats and Host.getAllVmStats tell."""
    read(found, EXITED_VM if found["status"] == "Down" else VM_STATISTICS, "VM")
