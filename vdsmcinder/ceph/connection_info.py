# SPDX-License-Identifier: GPL-2.0-or-later
"""What Cinder's os-initialize_connection answers for a volume on RBD, checked and typed.

Follows the RBD driver's connection properties in the Cinder documentation and contract/wire.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vdsmcinder.ceph.image import IMAGE, ImageName
from vdsmcinder.ceph.monitor_address import HOST, PORT, MonitorHost
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
    def from_dict(
        cls, info: Mapping[str, Any], default_secret: str | None = None
    ) -> ConnectionInfo:
        """Check and convert an answer of os-initialize_connection, whole or its `connection_info`.

        default_secret: UUID of the secret that is meant where the answer names none, as it does
        while Cinder's configuration has no rbd_secret_uuid.
        Raises UnsupportedDrive for a driver_volume_type other than rbd, MissingParameter and
        InvalidParameter for fields that are absent or do not fit.
        """
        fields = Fields(unwrapped(info), _thing(info))
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
            secret_uuid=_secret_uuid(data, default_secret) if auth else None,
            volume_id=data.get("volume_id", TEXT),
            discard=data.get("discard", BOOLEAN) or False,
            readonly=data.get("access_mode", choice("rw", "ro")) == "ro",
            encrypted=data.get("encrypted", BOOLEAN) or False,
            qos=data.section("qos_specs").values,
        )


def unwrapped(info: Mapping[str, Any]) -> Any:
    """What stands in `connection_info`, in which Cinder's API wraps its answer; or info itself."""
    return info.get("connection_info", info)


def _thing(info: Mapping[str, Any]) -> str:
    """What errors call it: by the volume, as soon as it names one."""
    inner = unwrapped(info)
    data = inner.get("data") if isinstance(inner, Mapping) else None
    name = data.get("name") if isinstance(data, Mapping) else None
    named = f" of {name[:100]!r}" if isinstance(name, str) and name else ""
    return f"Cinder connection info{named}"


def _secret_uuid(data: Fields, default: str | None) -> str:
    data.get("secret_type", choice("ceph"))
    if default is not None and "secret_uuid" not in data:
        return default
    expected = (
        "the UUID of a libvirt secret, from rbd_secret_uuid in Cinder's configuration or else from "
        "vms.cinder_secret_uuid in this host's"
    )
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
