# SPDX-License-Identifier: GPL-2.0-or-later
"""What Cinder's os-initialize_connection answers for a volume on RBD, checked and typed.

virt/drive.py turns it into a disk. Follows the RBD driver's connection properties in the Cinder
documentation and contract/wire.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vdsmcinder.ceph.hosts import HOST, PORT, MonitorHost
from vdsmcinder.ceph.image import IMAGE, ImageName
from vdsmcinder.errors import InvalidParameter, UnsupportedDrive
from vdsmcinder.fields import BOOLEAN, TEXT, UUID, Fields, Kind, choice, matching

# Part of the path of a configuration file, hence the narrow choice of characters.
CLUSTER = matching("[A-Za-z0-9_-]+", "the name of a Ceph cluster, letters, digits, - and _")


@dataclass(frozen=True)
class ConnectionInfo:
    """How to reach one volume on RBD.

    hosts: the monitors; empty means that the cluster's configuration file on this host names them.
    username, secret_uuid: None without CEPHX. volume_id: None from a Cinder that does not send it.
    qos: Cinder's qos_specs as they came, keys that are not for a hypervisor included.
    """

    image: ImageName
    hosts: tuple[MonitorHost, ...]
    cluster_name: str
    username: str | None
    secret_uuid: str | None
    volume_id: str | None
    discard: bool
    readonly: bool
    encrypted: bool
    qos: Mapping[str, Any] = field(hash=False)

    def __post_init__(self) -> None:
        if (self.username is None) != (self.secret_uuid is None):
            raise InvalidParameter(
                f"volume {self.image.path}: a user name needs a secret and a secret a user name; "
                "give both or none",
                field="auth_username",
            )

    @classmethod
    def from_dict(cls, info: Mapping[str, Any]) -> ConnectionInfo:
        """Check and convert an answer of os-initialize_connection (its `connection_info`).

        Raises UnsupportedDrive for a driver_volume_type other than rbd, MissingParameter and
        InvalidParameter for fields that are absent or do not fit.
        """
        fields = Fields(info, "Cinder connection info")
        kind = fields.need("driver_volume_type", TEXT)
        if kind != "rbd":
            raise UnsupportedDrive(
                f"Cinder connection info: driver_volume_type is {kind!r}; expected rbd, the only "
                "one that this host can attach",
                field="driver_volume_type",
                value=kind,
            )
        data = fields.section("data")
        auth = data.get("auth_enabled", BOOLEAN)
        if auth is None:
            auth = "auth_username" in data
        return cls(
            image=data.need("name", IMAGE),
            hosts=_hosts(data),
            cluster_name=data.get("cluster_name", CLUSTER) or "ceph",
            username=data.need("auth_username", TEXT) if auth else None,
            secret_uuid=_secret_uuid(data) if auth else None,
            volume_id=data.get("volume_id", TEXT),
            discard=data.get("discard", BOOLEAN) or False,
            readonly=data.get("access_mode", choice("rw", "ro")) == "ro",
            encrypted=data.get("encrypted", BOOLEAN) or False,
            qos=data.section("qos_specs").values,
        )


def _secret_uuid(data: Fields) -> str:
    data.get("secret_type", choice("ceph"))
    expected = "the UUID of a libvirt secret (rbd_secret_uuid in Cinder's configuration)"
    return data.need("secret_uuid", Kind(UUID.convert, expected))


def _hosts(data: Fields) -> tuple[MonitorHost, ...]:
    names = data.items("hosts", HOST)
    ports = data.items("ports", Kind(_port, PORT.expected))
    if ports and len(ports) != len(names):
        raise data.invalid("ports", f"as many as there are hosts, {len(names)}")
    return tuple(
        MonitorHost(name, port, "tcp") for name, port in zip(names, ports or [None] * len(names))
    )


def _port(value: Any) -> int | None:
    return None if value in (None, "") else PORT.convert(value)
