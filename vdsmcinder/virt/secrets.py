# SPDX-License-Identifier: GPL-2.0-or-later
"""CEPHX and other keys as libvirt secrets: ephemeral, private, and only ever our own.

rpc/host.py calls it for Host.registerSecrets and Host.unregisterSecrets. A key is a Secret from the
moment it is read off the wire, and leaves that type in one place, where libvirt takes it.
"""

from __future__ import annotations

import base64
import binascii
import enum
import logging
import uuid as uuidlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import libvirt
from lxml import etree

from vdsmcinder.errors import (
    ResourceUnavailable,
    SecretMalformed,
    SecretRegistrationFailed,
    SecretUnregistrationFailed,
)
from vdsmcinder.virt.connection import Connection

log = logging.getLogger(__name__)

OUR_PREFIX = "ovirt/"


class Secret:
    """Bytes that no log, error, repr or JSON document may show."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves, for what needs them: libvirt, and librados in its worker."""
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

    def xml(self) -> str:
        """The document that virSecretDefineXML takes; the key is not part of it."""
        secret = etree.Element("secret", ephemeral="yes", private="yes")
        etree.SubElement(secret, "uuid").text = self.uuid
        if self.description:
            etree.SubElement(secret, "description").text = self.description
        usage = etree.SubElement(secret, "usage", type=self.usage_type.wire_name)
        etree.SubElement(usage, self.usage_type.element).text = self.usage_id
        return etree.tostring(secret, encoding="unicode")


def parse_uuid(text: Any, field: str) -> str:
    """The UUID in lower case with dashes; SecretMalformed names the field of one that is not."""
    try:
        return str(uuidlib.UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise SecretMalformed(
            f"{field} is not a UUID; send it as 8-4-4-4-12 hexadecimal digits", field=field
        ) from None


class Secrets:
    """The secrets that we keep in libvirt, which gives no value of theirs back.

    count: how many there were when libvirt was last asked; None if it has not been.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.count: int | None = None
        self._values: dict[str, Secret] = {}

    def value(self, uuid: str) -> Secret | None:
        """The value of a secret that was registered since the daemon started, or None."""
        return self._values.get(uuid.lower())

    async def registered(self) -> list[RegisteredSecret]:
        """Our secrets; those without our prefix are not ours and are not listed."""
        found = await self._connection.call(_list_secrets, self._connection.handle)
        self.count = len(found)
        return found

    async def recount(self) -> None:
        """Bring count up to date; None if libvirt does not tell."""
        try:
            await self.registered()
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            self.count = None
            log.warning("libvirt does not tell how many secrets there are: %s", e)

    async def missing(self, uuids: Iterable[str]) -> list[str]:
        """Those of the uuids that libvirt holds no secret for, whoever defined it."""
        wanted = list(uuids)
        if not wanted:
            return []
        handle = self._connection.handle
        return await self._connection.call(_missing, handle, wanted)

    async def register(self, params: Sequence[Any], clear: bool) -> None:
        """Register all secrets of the list, replacing those of the same uuid or usage id.

        clear: also remove our secrets that are not in the list.
        Raises SecretMalformed (72) before anything is registered if any element is malformed;
        SecretRegistrationFailed (73) if libvirt refuses one.
        """
        specs = _validated(params)
        handle = self._connection.handle
        for spec in specs:
            try:
                await self._connection.call(_register, handle, spec)
            except libvirt.libvirtError as e:
                raise SecretRegistrationFailed(
                    f"libvirt did not take secret {spec.uuid} of usage {spec.usage_id}: "
                    f"{e.get_error_message()}; the ones before it in the list are registered, "
                    "send the list again when this is mended",
                    uuid=spec.uuid,
                ) from None
            self._values[spec.uuid] = spec.value
            log.info("registered secret %s of usage %s", spec.uuid, spec.usage_id)
        if clear:
            await self._clear({spec.uuid for spec in specs})
        await self.recount()

    async def unregister(self, uuids: Sequence[Any]) -> None:
        """Remove those of our secrets; unknown uuids and those of others are passed over.

        Raises SecretMalformed (72) for something that is not a UUID, before anything is removed;
        SecretUnregistrationFailed (74) if libvirt refuses.
        """
        wanted = {parse_uuid(u, f"uuids[{i}]") for i, u in enumerate(uuids)}
        await self._remove([s for s in await self.registered() if s.uuid in wanted])
        await self.recount()

    async def _clear(self, keep: set[str]) -> None:
        await self._remove([s for s in await self.registered() if s.uuid not in keep])

    async def _remove(self, secrets: list[RegisteredSecret]) -> None:
        handle = self._connection.handle
        for secret in secrets:
            self._values.pop(secret.uuid, None)
            try:
                await self._connection.call(_undefine, handle, secret.uuid)
            except libvirt.libvirtError as e:
                raise SecretUnregistrationFailed(
                    f"libvirt did not remove secret {secret.uuid} of usage {secret.usage_id}: "
                    f"{e.get_error_message()}; call again when this is mended",
                    uuid=secret.uuid,
                ) from None
            log.info("removed secret %s of usage %s", secret.uuid, secret.usage_id)


def _validated(params: Sequence[Any]) -> list[SecretSpec]:
    specs = [SecretSpec.from_params(p, i) for i, p in enumerate(params)]
    for field, values in (
        ("uuid", [s.uuid for s in specs]),
        ("usageID", [f"{s.usage_type.wire_name} {s.usage_id}" for s in specs]),
    ):
        for position, value in enumerate(values):
            if value in values[:position]:
                raise SecretMalformed(
                    f"secrets[{position}].{field} repeats that of secrets[{values.index(value)}]; "
                    "send each secret once",
                    field=field,
                )
    return specs


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


# What follows runs in the connection's thread pool.


def _list_secrets(handle: libvirt.virConnect) -> list[RegisteredSecret]:
    return [
        RegisteredSecret(s.UUIDString(), LIBVIRT_USAGE_TYPES[s.usageType()], s.usageID())
        for s in handle.listAllSecrets()
        if _is_ours(s)
    ]


def _is_ours(secret: libvirt.virSecret) -> bool:
    usage_id = secret.usageID() or ""
    return secret.usageType() in LIBVIRT_USAGE_TYPES and usage_id.startswith(OUR_PREFIX)


def _missing(handle: libvirt.virConnect, uuids: list[str]) -> list[str]:
    known = {s.UUIDString() for s in handle.listAllSecrets()}
    return [u for u in uuids if u not in known]


def _register(handle: libvirt.virConnect, spec: SecretSpec) -> None:
    # libvirt does not change the usage of a defined secret, nor give one usage to two of them.
    for known in handle.listAllSecrets():
        same_usage = (
            LIBVIRT_USAGE_TYPES.get(known.usageType()) is spec.usage_type
            and known.usageID() == spec.usage_id
        )
        same_uuid = known.UUIDString() == spec.uuid
        if same_uuid != same_usage and _is_ours(known):
            known.undefine()
    handle.secretDefineXML(spec.xml()).setValue(spec.value.reveal())


def _undefine(handle: libvirt.virConnect, uuid: str) -> None:
    try:
        handle.secretLookupByUUIDString(uuid).undefine()
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise
