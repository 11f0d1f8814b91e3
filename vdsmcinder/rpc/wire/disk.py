# SPDX-License-Identifier: GPL-2.0-or-later
"""A drive as the wire's VmDiskDevice (contract/types.txt)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.uuids import is_uuid
from vdsmcinder.virt.disk.address import Address
from vdsmcinder.virt.disk.disk_auth import Encryption
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.source import NetworkSource
from vdsmcinder.virt.disk.tuning import IoTune
from vdsmcinder.virt.domain.stats import DiskSample

# What engines call a format, by QEMU's name for it.
_FORMATS: Mapping[str, str] = {"raw": "raw", "qcow2": "cow"}
# Parts of addresses by type; what the wire has no form for, as USB addresses, is left out.
_ADDRESSES: Mapping[str, tuple[str, ...]] = {
    "pci": ("domain", "bus", "slot", "function"),
    "drive": ("controller", "bus", "unit"),
    "virtio-serial": ("controller", "bus", "port"),
}
IO_TUNE_LIMITS = frozenset(
    f"{what}_{unit}_sec" for what in ("total", "read", "write") for unit in ("bytes", "iops")
)


def device(drive: Drive, sample: DiskSample) -> dict[str, Any]:
    """The drive as VmDiskDevice, with its sizes from the sample."""
    return {
        "deviceType": "disk",
        "device": drive.device.value,
        "name": drive.target,
        "iface": drive.bus,
        "index": drive.index,
        "alias": drive.alias or "",
        "format": _FORMATS[drive.format],
        "readonly": drive.readonly,
        "shared": "shared" if drive.shared else "none",
        "optional": False,
        "propagateErrors": drive.driver.error_policy in ("enospace", "report"),
        "apparentsize": sample.capacity,
        "truesize": sample.allocation,
        "volumeChain": [],
        "specParams": _spec_params(drive),
        **_source(drive),
        **_optional(drive),
    }


def _source(drive: Drive) -> dict[str, Any]:
    source = drive.source
    fields: dict[str, Any] = {"diskType": source.type, "path": source.location}
    if isinstance(source, NetworkSource):
        fields["protocol"] = source.protocol
        fields["hosts"] = [_host(h) for h in source.hosts]
        if source.auth is not None:
            fields["auth"] = {
                "type": source.auth.secret_type,
                "username": source.auth.username,
                "uuid": source.auth.secret_uuid,
            }
        if source.config_file is not None:
            fields["configFile"] = source.config_file
    if source.encryption is not None:
        fields["encryption"] = _encryption(source.encryption)
    return fields


def _encryption(encryption: Encryption) -> dict[str, str]:
    engine = encryption.engine or "qemu"
    return {"uuid": encryption.secret_uuid, "format": encryption.format, "engine": engine}


def _host(host: MonitorHost) -> dict[str, str]:
    return {
        "name": host.name,
        "port": "" if host.port is None else str(host.port),
        "transport": host.transport or "tcp",
    }


def _spec_params(drive: Drive) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if drive.io_tune is not None:
        params["ioTune"] = io_tune(drive.io_tune)
    if drive.driver.iothread is not None:
        params["pinToIoThread"] = drive.driver.iothread
    return params


def io_tune(limits: IoTune) -> dict[str, int]:
    """The limits as VmDiskDeviceIoTuneParams, which knows the plain ones alone."""
    return {name: value for name, value in limits.limits if name in IO_TUNE_LIMITS}


def _optional(drive: Drive) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if is_uuid(drive.device_id):
        fields["deviceId"] = drive.device_id
    if drive.boot_order is not None:
        fields["bootOrder"] = drive.boot_order
    if drive.address is not None and drive.address.type in _ADDRESSES:
        fields["address"] = _address(drive.address)
    return fields


def _address(address: Address) -> dict[str, Any]:
    numbers = {name: address.number(name) for name in _ADDRESSES[address.type]}
    return {"addressType": address.type, **numbers}
