# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a disk's data is: a file, a block device or an RBD image; one class for each.

Each writes itself into a <disk> element and reads itself back
(https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms, `source`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Union

from lxml import etree

from vdsmcinder.ceph.connection_info import ConnectionInfo
from vdsmcinder.ceph.image import IMAGE, is_image_path
from vdsmcinder.ceph.monitor_address import HOST, PORT, MonitorHost
from vdsmcinder.errors import InvalidParameter, UnsupportedDrive
from vdsmcinder.fields import TEXT, Fields, Kind, kind_of, matching, word
from vdsmcinder.hypervisor.xmldoc import (
    check_text,
    child_attribute,
    need_attribute,
    refuse_attributes,
    refuse_children,
    refuse_repeated,
)
from vdsmcinder.virt.disk.disk_auth import Auth, Encryption

ABSOLUTE_PATH = matching("(?s)/.+", "an absolute path on this host")

# libvirt's own words for where a disk may be, and for what it may be reached by over the network.
SOURCE_TYPES = ("file", "block", "dir", "network", "volume", "nvme", "vhostuser", "vhostvdpa")
PROTOCOLS = (
    *("nbd", "rbd", "sheepdog", "gluster", "iscsi", "http", "https", "ftp", "ftps", "tftp"),
    *("ssh", "nfs", "vxhs"),
)

# What libvirt adds to the sources of running VMs and does not want back.
_LIVE_ATTRIBUTES = ("index",)
_LOCAL_CHILDREN = ("seclabel", "encryption", "privateData")
_NETWORK_CHILDREN = ("host", "snapshot", "config", "auth", "encryption", "privateData")


@dataclass(frozen=True)
class FileSource:
    """An image file on this host; the empty path is a drive without a medium.

    startup_policy: what libvirt does when the file is missing; None is its default, to refuse.
    """

    type: ClassVar[str] = "file"

    path: str
    startup_policy: str | None = None
    encryption: Encryption | None = None

    def __post_init__(self) -> None:
        check_text("file source", self.path or None, self.startup_policy)
        if not self.path and (self.startup_policy is not None or self.encryption is not None):
            raise InvalidParameter(
                "file source: path is empty; only a source with a path has a startup policy or "
                "encryption, give it one",
                field="path",
            )

    def write(self, disk: etree._Element) -> None:
        """Append <source>; a drive without a medium has none."""
        if not self.path:
            return
        attributes = {"file": self.path}
        if self.startup_policy is not None:
            attributes["startupPolicy"] = self.startup_policy
        source = etree.SubElement(disk, "source", attributes)
        _write_seclabel(source)
        _write_encryption(source, self.encryption)

    @property
    def location(self) -> str:
        """What tells this source from others: its path."""
        return self.path

    @classmethod
    def read(cls, disk: etree._Element, thing: str) -> FileSource:
        """Read <source>; without one, or without its path, the drive is empty."""
        source = disk.find("source")
        if source is None or not source.get("file"):
            return cls("")
        refuse_attributes(source, ("file", "startupPolicy", *_LIVE_ATTRIBUTES), thing)
        refuse_children(source, _LOCAL_CHILDREN, thing)
        refuse_repeated(source, thing, but=("seclabel",))
        return cls(source.get("file", ""), source.get("startupPolicy"), _encryption(disk, thing))


@dataclass(frozen=True)
class BlockSource:
    """A block device of this host."""

    type: ClassVar[str] = "block"

    path: str
    encryption: Encryption | None = None

    def __post_init__(self) -> None:
        check_text("block source", self.path)
        if not self.path:
            raise InvalidParameter(
                f"block source: path is empty; expected {ABSOLUTE_PATH.expected}", field="path"
            )

    def write(self, disk: etree._Element) -> None:
        """Append <source>."""
        source = etree.SubElement(disk, "source", {"dev": self.path})
        _write_seclabel(source)
        _write_encryption(source, self.encryption)

    @property
    def location(self) -> str:
        """What tells this source from others: its path."""
        return self.path

    @classmethod
    def read(cls, disk: etree._Element, thing: str) -> BlockSource:
        """Read <source>."""
        source = _source(disk, thing)
        refuse_attributes(source, ("dev", *_LIVE_ATTRIBUTES), thing)
        refuse_children(source, _LOCAL_CHILDREN, thing)
        refuse_repeated(source, thing, but=("seclabel",))
        return cls(need_attribute(source, "dev", thing), _encryption(disk, thing))


@dataclass(frozen=True)
class NetworkSource:
    """An RBD image.

    path: pool/image, or pool/namespace/image (libvirt serves namespaces from 11.1 on).
    hosts: the monitors; without any, config_file or this host's /etc/ceph/ceph.conf names them.
    auth: None where the cluster does not use CEPHX. snapshot: name of a snapshot, read-only then.
    """

    type: ClassVar[str] = "network"
    protocol: ClassVar[str] = "rbd"

    path: str
    hosts: tuple[MonitorHost, ...] = ()
    auth: Auth | None = None
    snapshot: str | None = None
    config_file: str | None = None
    encryption: Encryption | None = None

    def __post_init__(self) -> None:
        check_text("network source", self.path, self.snapshot, self.config_file)
        if not is_image_path(self.path):
            raise InvalidParameter(
                f"network source: path is {kind_of(self.path)}; expected {IMAGE.expected}",
                field="path",
            )

    @property
    def pool(self) -> str:
        """The image's pool."""
        return self.path.partition("/")[0]

    @property
    def image(self) -> str:
        """The image's name, without pool and namespace."""
        return self.path.rpartition("/")[2]

    @property
    def location(self) -> str:
        """What tells this source from others: the image, with its snapshot if it is one."""
        return self.path if self.snapshot is None else f"{self.path}@{self.snapshot}"

    def write(self, disk: etree._Element) -> None:
        """Append <source>, and <auth> where there is one."""
        source = etree.SubElement(disk, "source", {"protocol": self.protocol, "name": self.path})
        for host in self.hosts:
            attributes = {"name": host.name}
            if host.port is not None:
                attributes["port"] = str(host.port)
            if host.transport is not None:
                attributes["transport"] = host.transport
            etree.SubElement(source, "host", attributes)
        if self.snapshot is not None:
            etree.SubElement(source, "snapshot", {"name": self.snapshot})
        if self.config_file is not None:
            etree.SubElement(source, "config", {"file": self.config_file})
        if self.encryption is not None:
            self.encryption.write(source)
        if self.auth is not None:
            self.auth.write(disk)

    @classmethod
    def read(cls, disk: etree._Element, thing: str) -> NetworkSource:
        """Read <source> and <auth>, which stands in <disk> or, in newer documents, in <source>."""
        source = _source(disk, thing)
        protocol = need_attribute(source, "protocol", thing)
        if protocol != cls.protocol:
            raise _foreign_protocol(thing, protocol)
        refuse_attributes(source, ("protocol", "name", *_LIVE_ATTRIBUTES), thing)
        refuse_children(source, _NETWORK_CHILDREN, thing)
        refuse_repeated(source, thing, but=("host",))
        auth = _child_of_either(disk, "auth", thing)
        return cls(
            path=need_attribute(source, "name", thing),
            hosts=tuple(_host(host, thing) for host in source.iterfind("host")),
            auth=None if auth is None else Auth.read(auth, thing),
            snapshot=child_attribute(source, "snapshot", "name"),
            config_file=child_attribute(source, "config", "file"),
            encryption=_encryption(disk, thing),
        )

    @classmethod
    def from_fields(cls, fields: Fields) -> NetworkSource:
        """Read a device description.

        Fields: protocol, path (perhaps with @snapshot), hosts, auth, configFile, encryption.
        """
        protocol = fields.need("protocol", Kind(TEXT.convert, "rbd"))
        if protocol != cls.protocol:
            raise _foreign_protocol(fields.thing, protocol)
        hosts = tuple(MonitorHost.from_fields(host) for host in fields.sections("hosts"))
        config_file = fields.get("configFile", ABSOLUTE_PATH)
        if not hosts and config_file is None:
            raise fields.missing("hosts", "the address of at least one Ceph monitor")
        image = fields.need("path", IMAGE)
        auth = Auth.from_fields(fields.section("auth")) if "auth" in fields else None
        encryption = Encryption.from_fields(fields)
        return cls(image.path, hosts, auth, image.snapshot, config_file, encryption)

    @classmethod
    def from_connection(
        cls, info: ConnectionInfo, encryption: Encryption | None = None
    ) -> NetworkSource:
        """Turn Cinder's answer into a source; encryption is what Cinder does not tell."""
        auth = Auth(info.username, info.secret_uuid) if info.username and info.secret_uuid else None
        own_config = not info.hosts and info.cluster_name != "ceph"
        return cls(
            path=info.image.path,
            hosts=info.hosts,
            auth=auth,
            snapshot=info.image.snapshot,
            config_file=f"/etc/ceph/{info.cluster_name}.conf" if own_config else None,
            encryption=encryption,
        )


Source = Union[FileSource, BlockSource, NetworkSource]


def _source(disk: etree._Element, thing: str) -> etree._Element:
    source = disk.find("source")
    if source is None:
        raise UnsupportedDrive(
            f"{thing}: it has no <source>; only a cdrom or a floppy of type file may be empty",
            field="source",
        )
    return source


def _host(host: etree._Element, thing: str) -> MonitorHost:
    fields = Fields(dict(host.attrib), thing, "host")
    return MonitorHost(
        name=fields.need("name", HOST),
        port=fields.get("port", PORT),
        transport=host.get("transport"),
    )


def _encryption(disk: etree._Element, thing: str) -> Encryption | None:
    element = _child_of_either(disk, "encryption", thing)
    return None if element is None else Encryption.read(element, thing)


def _child_of_either(disk: etree._Element, name: str, thing: str) -> etree._Element | None:
    """auth and encryption stand in <disk> in older documents, in <source> in newer ones."""
    inner, outer = disk.find(f"source/{name}"), disk.find(name)
    if inner is not None and outer is not None:
        raise InvalidParameter(
            f"{thing}: {name} stands in <disk> and in <source>; expected it once, in <source>",
            field=name,
        )
    return outer if inner is None else inner


def _write_seclabel(source: etree._Element) -> None:
    # Images of several hosts share their storage: libvirt must not change their owner.
    etree.SubElement(source, "seclabel", {"model": "dac", "type": "none", "relabel": "no"})


def _write_encryption(source: etree._Element, encryption: Encryption | None) -> None:
    if encryption is not None:
        encryption.write(source)


def _foreign_protocol(thing: str, protocol: str) -> UnsupportedDrive:
    return UnsupportedDrive(
        f"{thing}: protocol is {word(protocol, PROTOCOLS)}; expected rbd, the only one that this "
        "host can serve",
        field="protocol",
    )
