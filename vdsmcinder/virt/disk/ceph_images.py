# SPDX-License-Identifier: GPL-2.0-or-later
"""The RBD images that a domain document has QEMU open, and the secrets that its disks name.

Whatever else stands in a <disk>, and whether or not a Drive can express it: an image is read here,
or said to be one that cannot be told. What counts is what libvirt takes: of several <source> or
<auth> the first, and no element of a namespace (https://libvirt.org/formatdomain.html).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lxml import etree

from vdsmcinder.ceph.image import IMAGE, is_image_path
from vdsmcinder.ceph.monitor_address import HOST, PORT, MonitorHost
from vdsmcinder.errors import InvalidParameter, VdsmCinderError
from vdsmcinder.fields import UUID, Fields, choice
from vdsmcinder.hypervisor.xmldoc import child_attribute
from vdsmcinder.virt.secrets.secret import USAGE_TYPES, SecretName, UsageType

# The firmware's variables, which may be an image as well.
NVRAM = "nvram"


class Part(enum.Enum):
    """What an image is to the disk in whose element it stands."""

    DATA = "what the guest reads and writes"
    BASE = "what stands below that, and is only read"
    MIRROR = "what a copy that is under way writes to"


@dataclass(frozen=True)
class CephImage:
    """An image as a disk uses it.

    disk: the disk's target name. path: pool/image or pool/namespace/image. hosts: the monitors;
    without any, config_file or this host's ceph.conf names them. user, secret: None where the
    cluster does not use CEPHX. shared: several VMs write to it at once.
    """

    disk: str
    path: str
    hosts: tuple[MonitorHost, ...] = ()
    config_file: str | None = None
    snapshot: str | None = None
    user: str | None = None
    secret: SecretName | None = None
    readonly: bool = False
    shared: bool = False
    part: Part = Part.DATA

    @property
    def pool(self) -> str:
        """The image's pool."""
        return self.path.partition("/")[0]

    @property
    def location(self) -> str:
        """The image, with its snapshot if it is one."""
        return self.path if self.snapshot is None else f"{self.path}@{self.snapshot}"

    @property
    def words(self) -> str:
        """How errors name it."""
        return f"disk {self.disk} ({self.location})"

    @property
    def only_read(self) -> bool:
        """Whether nothing is written to it."""
        return self.readonly or self.snapshot is not None

    @property
    def exclusive(self) -> bool:
        """Whether nobody else may have it open."""
        return not (self.only_read or self.shared)


@dataclass(frozen=True)
class UntoldImage:
    """An image on Ceph that cannot be asked for. why: a sentence that names the disk."""

    disk: str
    why: str
    part: Part = Part.DATA


@dataclass(frozen=True)
class CephImages:
    """All of a document. needs: disks, on Ceph or not, and the secrets that they name."""

    images: tuple[CephImage, ...] = ()
    untold: tuple[UntoldImage, ...] = ()
    needs: tuple[tuple[str, SecretName], ...] = ()

    @property
    def secrets(self) -> frozenset[SecretName]:
        """Keys of Ceph users, passphrases and others."""
        return frozenset(secret for _, secret in self.needs)

    @property
    def keys(self) -> frozenset[SecretName]:
        """The keys of Ceph users among them."""
        return frozenset(image.secret for image in self.images if image.secret is not None)

    def of_disk(self, target: str) -> CephImage | None:
        """What the guest's disk of that target name is; None for one that is not on Ceph."""
        wanted = (i for i in self.images if i.disk == target and i.part is Part.DATA)
        return next(wanted, None)

    @property
    def opened(self) -> CephImages:
        """Without what a new QEMU process does not open: the targets of copies under way."""
        images = tuple(image for image in self.images if image.part is not Part.MIRROR)
        untold = tuple(image for image in self.untold if image.part is not Part.MIRROR)
        return CephImages(images, untold, self.needs)


NO_IMAGES = CephImages()


def of_domain(root: etree._Element) -> CephImages:
    """All images of a <domain>."""
    return _read([*root.iterfind("devices/disk"), *root.iterfind(f"os/{NVRAM}")])


def of_disks(*disks: etree._Element) -> CephImages:
    """Those of <disk> elements."""
    return _read(disks)


def twice(images: Sequence[CephImage], more: Sequence[CephImage] = ()) -> CephImage | None:
    """Of images, the first that `more` or one before it has as well, though one of them writes.

    What is shared may be there twice, and what is only read. Monitors that have nothing in common
    are those of different clusters; whoever claims an image finds out if they are not.
    """
    known = list(more)
    for image in images:
        for other in known:
            alone = image.exclusive or other.exclusive
            snapshot = image.snapshot is not None or other.snapshot is not None
            if alone and not snapshot and image.path == other.path and _same_cluster(image, other):
                return image
        known.append(image)
    return None


def _same_cluster(one: CephImage, other: CephImage) -> bool:
    if not (one.hosts and other.hosts):
        return True
    names = [{host.name for host in image.hosts} for image in (one, other)]
    return not names[0].isdisjoint(names[1])


def _read(disks: Iterable[etree._Element]) -> CephImages:
    images: list[CephImage] = []
    untold: list[UntoldImage] = []
    needs: list[tuple[str, SecretName]] = []
    for disk in disks:
        name = _name(disk)
        for holder, part in _holders(disk):
            source = holder.find("source")
            if source is None or not _is_rbd(holder, source):
                continue
            try:
                images.append(_image(disk, holder, source, part))
            except VdsmCinderError as e:
                untold.append(UntoldImage(name, e.message, part))
        needs.extend((name, secret) for secret in _secrets(disk))
    return CephImages(tuple(images), tuple(untold), tuple(needs))


def _holders(disk: etree._Element) -> Iterator[tuple[etree._Element, Part]]:
    """What has a <source> of its own: the disk, what stands below it, and where it is copied to."""
    yield disk, Part.DATA
    # Besides those that libvirt has today, newer ones hold others (dataStore).
    for source in disk.iterfind(".//source"):
        holder = source.getparent()
        if holder is None or holder is disk or holder.find("source") is not source:
            continue
        if _is_cut_off(holder):
            continue
        yield holder, Part.MIRROR if _is_mirrored(holder) else Part.BASE


def _is_cut_off(holder: etree._Element) -> bool:
    """Whether it stands below a <backingStore> without a type, with which all ends for libvirt."""
    above = (holder, *holder.iterancestors("backingStore"))
    return any(one.tag == "backingStore" and not one.get("type") for one in above)


def _is_mirrored(element: etree._Element) -> bool:
    return any(above.tag == "mirror" for above in (element, *element.iterancestors()))


def _secrets(disk: etree._Element) -> Iterator[SecretName]:
    """What QEMU needs to open it; a copy that is under way has got what it needs."""
    for secret in disk.iterfind(".//secret"):
        unused = _is_mirrored(secret) or _is_cut_off(secret)
        name = None if unused else _secret(secret)
        if name is not None:
            yield name


def _is_rbd(holder: etree._Element, source: etree._Element) -> bool:
    return holder.get("type") == "network" and source.get("protocol") == "rbd"


def _name(disk: etree._Element) -> str:
    if disk.tag == NVRAM:
        return NVRAM
    return child_attribute(disk, "target", "dev") or "without target"


def _image(
    disk: etree._Element, holder: etree._Element, source: etree._Element, part: Part
) -> CephImage:
    """Read a <source>. Raises InvalidParameter, MissingParameter."""
    name = _name(disk)
    thing = f"disk {name}"
    path = source.get("name", "")
    if not is_image_path(path):
        raise InvalidParameter(
            f"{thing}: its image is {path!r}; expected {IMAGE.expected}", field="name"
        )
    auth = source.find("auth")
    if auth is None:
        auth = holder.find("auth")
    return CephImage(
        disk=name,
        path=path,
        hosts=tuple(_host(host, thing) for host in source.iterfind("host")),
        config_file=child_attribute(source, "config", "file"),
        snapshot=child_attribute(source, "snapshot", "name"),
        user=None if auth is None else auth.get("username") or None,
        secret=None if auth is None else _key(auth, thing),
        readonly=part is Part.BASE or _is_readonly(disk),
        shared=disk.find("shareable") is not None,
        part=part,
    )


def _is_readonly(disk: etree._Element) -> bool:
    # libvirt opens a CD's image for reading alone, without being told to.
    return disk.find("readonly") is not None or disk.get("device") == "cdrom"


def _host(host: etree._Element, thing: str) -> MonitorHost:
    fields = Fields(dict(host.attrib), thing, "host")
    name, port = fields.need("name", HOST), fields.get("port", PORT)
    # TCP is what is meant without it, and what librados alone can do.
    fields.get("transport", choice("tcp"))
    return MonitorHost(name, port)


def _key(auth: etree._Element, thing: str) -> SecretName:
    secret = auth.find("secret")
    name = None if secret is None else _secret(secret)
    if name is None:
        raise InvalidParameter(
            f"{thing}: <auth> names no secret; expected one by uuid", field="auth.secret"
        )
    return name


def _secret(secret: etree._Element) -> SecretName | None:
    """The secret that a <secret> names; None for one that libvirt would not take."""
    uuid, usage = secret.get("uuid"), secret.get("usage")
    if uuid is not None:
        try:
            return SecretName(UUID.convert(uuid))
        except ValueError:
            return None
    # A passphrase is what libvirt calls the secret of a volume.
    kind = secret.get("type", "")
    type_ = UsageType.VOLUME if kind == "passphrase" else USAGE_TYPES.get(kind)
    return None if usage is None else SecretName(None, type_, usage)
