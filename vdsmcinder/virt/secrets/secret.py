# SPDX-License-Identifier: GPL-2.0-or-later
"""A CEPHX or other key as a value: read off the wire, validated, and shown nowhere."""

from __future__ import annotations

import base64
import binascii
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import libvirt
from lxml import etree

from vdsmcinder import uuids
from vdsmcinder.errors import SecretMalformed

# What the description of a secret begins with that has not been given its value yet.
NO_VALUE = "vdsm-cinder: without a value."
OUR_PREFIX = "ovirt/"


class Secret:
    """Bytes that no log, error, repr or JSON document may show."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves, for what needs them: libvirt, librados in its worker, the keyring's
        memory."""
        return self._value

    def __repr__(self) -> str:
        return "********"

    __str__ = __repr__

    def __reduce__(self) -> Any:
        raise TypeError("a Secret is not pickled")


class UsageType(enum.Enum):
    """What a secret is for; libvirt's names, and the element that holds its usage id.

    Follows https://libvirt.org/formatsecret.html#usage-type.
    """

    CEPH = ("ceph", "name")
    VOLUME = ("volume", "volume")
    ISCSI = ("iscsi", "target")

    def __init__(self, wire_name: str, element: str) -> None:
        self.wire_name = wire_name
        self.element = element


USAGE_TYPES: Mapping[str, UsageType] = {t.wire_name: t for t in UsageType}
LIBVIRT_USAGE_TYPES: Mapping[int, UsageType] = {
    libvirt.VIR_SECRET_USAGE_TYPE_CEPH: UsageType.CEPH,
    libvirt.VIR_SECRET_USAGE_TYPE_VOLUME: UsageType.VOLUME,
    libvirt.VIR_SECRET_USAGE_TYPE_ISCSI: UsageType.ISCSI,
}


@dataclass(frozen=True)
class SecretName:
    """How a domain document names a secret: by its uuid, in lower case, or by its usage.

    One of uuid and usage_id is None. usage_type: None for one of which libvirt knows no other.
    """

    uuid: str | None
    usage_type: UsageType | None = None
    usage_id: str | None = None

    def __str__(self) -> str:
        return self.uuid or f"of usage {self.usage_id}"

    def means(self, uuid: str, usage_type: UsageType | None, usage_id: str | None) -> bool:
        """Whether it is the secret of that uuid and usage."""
        if self.uuid is not None:
            return self.uuid == uuid
        return (self.usage_type, self.usage_id) == (usage_type, usage_id)


@dataclass(frozen=True)
class RegisteredSecret:
    """A secret of ours that libvirt holds; never its value."""

    uuid: str
    usage_type: UsageType
    usage_id: str


@dataclass(frozen=True)
class SecretSpec:
    """A secret as an engine sends it (contract/types.txt, SecretInfo), validated."""

    uuid: str
    usage_type: UsageType
    usage_id: str
    value: Secret
    description: str = ""

    @classmethod
    def from_params(cls, params: Any, position: int) -> SecretSpec:
        """Read one element of the list that Host.registerSecrets takes.

        position: its place in the list, from 0, for errors.
        Raises SecretMalformed (72), which names the field and never holds the key.
        """
        where = f"secrets[{position}]"
        if not isinstance(params, Mapping):
            raise SecretMalformed(
                f"{where} must be an object with uuid, usageType, usageID, password"
            )
        return cls(
            uuid=parse_uuid(_text(params, "uuid", where), f"{where}.uuid"),
            usage_type=_usage_type(_text(params, "usageType", where), where),
            usage_id=_usage_id(_text(params, "usageID", where), where),
            value=_key(_text(params, "password", where), where),
            description=_description(params.get("description"), where),
        )

    def xml(self, description: str | None = None) -> str:
        """The document that virSecretDefineXML takes; the key is not part of it.

        description: in place of its own.
        """
        description = self.description if description is None else description
        secret = etree.Element("secret", ephemeral="yes", private="yes")
        etree.SubElement(secret, "uuid").text = self.uuid
        if description:
            etree.SubElement(secret, "description").text = description
        usage = etree.SubElement(secret, "usage", type=self.usage_type.wire_name)
        etree.SubElement(usage, self.usage_type.element).text = self.usage_id
        return etree.tostring(secret, encoding="unicode")


def parse_uuid(text: Any, field: str) -> str:
    """The UUID in lower case with dashes; SecretMalformed names the field of one that is not."""
    try:
        return uuids.parse(text)
    except ValueError:
        raise SecretMalformed(
            f"{field} is not a UUID; send it as 8-4-4-4-12 hexadecimal digits", field=field
        ) from None


def _text(params: Mapping[str, Any], field: str, where: str) -> str:
    if field not in params:
        raise SecretMalformed(f"{where}.{field} is missing; send it as a string", field=field)
    value = params[field]
    if not isinstance(value, str) or not value:
        raise SecretMalformed(
            f"{where}.{field} is {type(value).__name__} or empty; send a string that is not empty",
            field=field,
        )
    return value


def _usage_type(name: str, where: str) -> UsageType:
    usage_type = USAGE_TYPES.get(name)
    if usage_type is None:
        raise SecretMalformed(
            f"{where}.usageType is not known; send one of {', '.join(USAGE_TYPES)}",
            field="usageType",
        )
    return usage_type


def _usage_id(text: str, where: str) -> str:
    if not text.startswith(OUR_PREFIX) or len(text) == len(OUR_PREFIX) or not text.isprintable():
        # A usage id that could be somebody's key in the wrong field is not repeated.
        raise SecretMalformed(
            f"{where}.usageID does not begin with {OUR_PREFIX}; send {OUR_PREFIX} and an id of the "
            "storage, the prefix tells our secrets from those of others",
            field="usageID",
        )
    return text


def _description(text: Any, where: str) -> str:
    if text is None:
        return ""
    if not isinstance(text, str) or not all(c.isprintable() or c.isspace() for c in text):
        raise SecretMalformed(
            f"{where}.description is not plain text; send a string or leave it out",
            field="description",
        )
    return text


def _key(text: str, where: str) -> Secret:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if not value:
        raise SecretMalformed(
            f"{where}.password is not base64; send the key as 'ceph auth get-key' prints it",
            field="password",
        )
    return Secret(value)
