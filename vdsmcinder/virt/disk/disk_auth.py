# SPDX-License-Identifier: GPL-2.0-or-later
"""What it takes to read a disk's data: an image's CEPHX user, the passphrase of its encryption.

Both name a libvirt secret; neither ever holds a key (https://libvirt.org/formatsecret.html).
"""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from vdsmcinder.errors import UnsupportedDrive
from vdsmcinder.fields import TEXT, UUID, Fields, choice
from vdsmcinder.hypervisor.xmldoc import (
    check_text,
    need_attribute,
    refuse_attributes,
    refuse_children,
    refuse_repeated,
)

_SECRET_TYPE = choice("ceph", "iscsi", "passphrase")


@dataclass(frozen=True)
class Auth:
    """The CEPHX user of an RBD image and the libvirt secret that holds its key."""

    username: str
    secret_uuid: str
    secret_type: str = "ceph"

    def __post_init__(self) -> None:
        check_text("auth", self.username, self.secret_uuid, self.secret_type)

    def write(self, parent: etree._Element) -> None:
        """Append <auth>."""
        auth = etree.SubElement(parent, "auth", {"username": self.username})
        etree.SubElement(auth, "secret", {"type": self.secret_type, "uuid": self.secret_uuid})

    @classmethod
    def read(cls, auth: etree._Element, thing: str) -> Auth:
        """Read <auth>. Raises UnsupportedDrive for a secret that is named by its usage."""
        secret = _secret(auth, thing)
        return cls(
            username=need_attribute(auth, "username", thing),
            secret_uuid=need_attribute(secret, "uuid", thing).lower(),
            secret_type=secret.get("type", "ceph"),
        )

    @classmethod
    def from_fields(cls, auth: Fields) -> Auth:
        """Read a device description's `auth`: type, username, uuid."""
        return cls(
            username=auth.need("username", TEXT),
            secret_uuid=auth.need("uuid", UUID),
            secret_type=auth.get("type", choice("ceph")) or "ceph",
        )


@dataclass(frozen=True)
class Encryption:
    """How an image is encrypted and the libvirt secret that holds its passphrase.

    format: luks or luks2. engine: qemu or librbd; None leaves it to libvirt, which takes qemu.
    """

    format: str
    secret_uuid: str
    engine: str | None = None

    def __post_init__(self) -> None:
        check_text("encryption", self.format, self.secret_uuid, self.engine)

    def write(self, parent: etree._Element) -> None:
        """Append <encryption>."""
        attributes = {"format": self.format}
        if self.engine is not None:
            attributes["engine"] = self.engine
        element = etree.SubElement(parent, "encryption", attributes)
        etree.SubElement(element, "secret", {"type": "passphrase", "uuid": self.secret_uuid})

    @classmethod
    def from_fields(cls, device: Fields) -> Encryption | None:
        """Read a device description's `encryption`: uuid, format, engine; None without one.

        LUKS2 is librbd's, for QEMU itself does not read it; LUKS is QEMU's unless engine is librbd.
        """
        if "encryption" not in device:
            return None
        given = device.section("encryption")
        format = given.get("format", choice("luks", "luks2")) or "luks"
        engine = given.get("engine", choice("qemu", "librbd"))
        return cls(
            format=format,
            secret_uuid=given.need("uuid", UUID),
            engine=engine or ("librbd" if format == "luks2" else None),
        )

    @classmethod
    def read(cls, element: etree._Element, thing: str) -> Encryption:
        """Read <encryption>. Raises UnsupportedDrive for one that names its own cipher."""
        refuse_attributes(element, ("format", "engine"), thing)
        refuse_children(element, ("secret",), thing)
        return cls(
            format=need_attribute(element, "format", thing),
            secret_uuid=need_attribute(_secret(element, thing), "uuid", thing).lower(),
            engine=element.get("engine"),
        )


def check_secrets(domain: etree._Element, thing: str) -> None:
    """Raise InvalidParameter for a <secret> in what a domain opens that cannot name one.

    A key in its place must not reach libvirt, whose errors repeat in its log what they refuse.
    """
    for where in ("devices/disk//secret", "os/nvram//secret"):
        for secret in domain.iterfind(where):
            _check_secret(secret, thing)


def _check_secret(secret: etree._Element, thing: str) -> None:
    named = Fields(dict(secret.attrib), thing, "secret")
    named.get("uuid", UUID)
    named.get("type", _SECRET_TYPE)


def _secret(parent: etree._Element, thing: str) -> etree._Element:
    refuse_repeated(parent, thing)
    secret = parent.find("secret")
    if secret is None:
        raise UnsupportedDrive(
            f"{thing}: <{parent.tag}> names no secret; give it one by uuid",
            field=f"{parent.tag}.secret",
        )
    _check_secret(secret, thing)
    return secret
