# SPDX-License-Identifier: GPL-2.0-or-later
"""What Cinder answers for a volume on RBD, checked and typed.

It does so to os-initialize_connection, where the image is described in `data`, and about
attachments (microversion 3.27 and later), where that stands beside driver_volume_type. Follows the
RBD driver's connection properties and the attachments in the Cinder documentation, and
contract/wire.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vdsmcinder.ceph.image import IMAGE, ImageName, is_image_path
from vdsmcinder.ceph.monitor_address import HOST, PORT, MonitorHost
from vdsmcinder.errors import InvalidParameter, MissingParameter, UnsupportedDrive
from vdsmcinder.fields import BOOLEAN, TEXT, UUID, Fields, Kind, choice, matching, word
from vdsmcinder.uuids import is_uuid

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
        """Check and convert an answer of Cinder's, whole or what stands in its `attachment` or its
        `connection_info`.

        default_secret: UUID of the secret that is meant where the answer names none, as it does
        while Cinder's configuration has no rbd_secret_uuid.
        Raises UnsupportedDrive for a driver_volume_type other than rbd, MissingParameter and
        InvalidParameter for fields that are absent or do not fit.
        """
        attachment, inner = _unwrapped(info)
        _refuse_unconnected(attachment, inner)
        fields = Fields(inner, _thing(attachment, inner))
        kind = fields.need("driver_volume_type", TEXT)
        if kind != "rbd":
            raise UnsupportedDrive(
                f"{fields.thing}: driver_volume_type is {word(kind, _OTHERS)}; expected rbd, the "
                "only one that this host can attach",
                field="driver_volume_type",
            )
        data = _image_data(fields)
        auth = data.get("auth_enabled", BOOLEAN)
        if auth is None:
            auth = "auth_username" in data
        return cls(
            image=data.need("name", IMAGE),
            hosts=_hosts(data),
            cluster_name=data.get("cluster_name", CLUSTER) or "ceph",
            username=data.need("auth_username", TEXT) if auth else None,
            secret_uuid=_secret_uuid(data, default_secret) if auth else None,
            volume_id=data.get("volume_id", TEXT) or _text(attachment.get("volume_id")),
            discard=data.get("discard", BOOLEAN) or False,
            readonly="ro" in (data.get("access_mode", _MODE), attachment.get("attach_mode")),
            encrypted=data.get("encrypted", BOOLEAN) or False,
            qos=data.section("qos_specs").values,
        )


def image_path(answer: Mapping[str, Any]) -> str | None:
    """The path of the image that an answer of Cinder's is about, with @snapshot if it is one.

    None if it names none. The rest of the answer may be stale, and is not looked at.
    """
    _, inner = _unwrapped(answer)
    return _image_data(Fields(inner or {}, "Cinder connection info")).get("name", TEXT)


def is_answer(description: Mapping[str, Any]) -> bool:
    """Whether an object is an answer of Cinder's, in whatever it comes wrapped."""
    return not description.keys().isdisjoint({"driver_volume_type", *_WRAPPERS})


# In what Cinder's API wraps its answers, from the outside to the inside.
_WRAPPERS = ("attachment", "connection_info")
_MODE = choice("rw", "ro")
# What is told of each attachment in a list.
_SUMMARY = {"id", "status", "instance", "volume_id"}
# Other values of driver_volume_type that Cinder's drivers answer.
_OTHERS = (
    *("iscsi", "iser", "fibre_channel", "nvmeof", "nfs", "glusterfs", "gpfs"),
    *("quobyte", "smbfs", "vzstorage", "local", "vmdk", "vstorageobject", "scaleio", "storpool"),
    *("lightos", "huaweisdshypervisor", "sheepdog", "disco", "hgst", "drbd", "fake"),
)


def _unwrapped(answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
    """What holds the connection info, perhaps an attachment, and the connection info itself."""
    holder: Mapping[str, Any] = {}
    inner: Any = answer
    for name in _WRAPPERS:
        if isinstance(inner, Mapping) and name in inner:
            holder, inner = inner, inner[name]
    return holder, inner


def _image_data(info: Fields) -> Fields:
    """What describes the image: flat in an attachment, in `data` else."""
    beside = info.values.keys() - {"driver_volume_type"}
    return info if beside and "data" not in beside else info.section("data")


def _refuse_unconnected(attachment: Mapping[str, Any], info: Any) -> None:
    """Of an attachment that was made for no host yet the connection info is {}, of one that
    os-attach made it is null, and a list of attachments without details has none at all."""
    if isinstance(info, Mapping) and info.keys() >= _SUMMARY and "driver_volume_type" not in info:
        attachment, info = info, None
    if "volume_id" in attachment and info in ({}, None):
        raise MissingParameter(
            f"Cinder attachment{_of(attachment['volume_id'])}: connection_info is empty, as "
            "no host is known of it; expected an answer of Cinder's after the attachment "
            "was updated with this host's connector",
            field="connection_info",
        )


def _thing(attachment: Mapping[str, Any], inner: Any) -> str:
    """What errors call it: by the volume, as soon as it names one."""
    data = inner.get("data", inner) if isinstance(inner, Mapping) else None
    name = data.get("name") if isinstance(data, Mapping) else None
    return f"Cinder connection info{_of(name) or _of(attachment.get('volume_id'))}"


def _of(name: Any) -> str:
    """Which image or volume is meant, if that is what the name has the form of."""
    if not isinstance(name, str) or not name.isprintable():
        return ""
    return f" of {name[:100]!r}" if is_image_path(name) or is_uuid(name) else ""


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


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
