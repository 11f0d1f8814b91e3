# SPDX-License-Identifier: GPL-2.0-or-later
"""Providers of volumes, the types that their volumes may have, and authentication keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cinderengine.api.resources.empty import empty
from cinderengine.api.resources.sent import NAMED, given, referred, text
from cinderengine.api.resources.table import Call, Collection
from cinderengine.api.types import entity as made
from cinderengine.api.types.entity import Entity, entity
from cinderengine.flows.keys import NewKey
from cinderengine.flows.providers import NewProvider
from cinderengine.model.providers import AuthenticationKey, Provider
from cinderengine.model.secret import Secret
from cinderengine.store.entities import authentication_keys, data_centers, providers

_AT = "/openstackvolumeproviders"
_KIND = "openstack_volume_provider"
_FIELDS = {
    **NAMED,
    "url": "url",
    "requires_authentication": "requires_authentication",
    "username": "username",
    "authentication_url": "authentication_url",
    "tenant_name": "project",
    "project_name": "project",
    "user_domain_name": "user_domain",
    "project_domain_name": "project_domain",
}
# What oVirt's providers of volumes have no field for, and clients give as a property.
_PROPERTIES = {
    "region": "region",
    "user_domain_name": "user_domain",
    "project_domain_name": "project_domain",
}


async def _rows(call: Call) -> Sequence[Provider]:
    return await call.parts.store.read(providers.all)


async def _row(call: Call) -> Provider | None:
    return await call.parts.store.read(providers.get, call.id("openstackvolumeproviders"))


def _show(call: Call, provider: Provider) -> Entity:
    told = {name: getattr(provider, ours) for name, ours in _PROPERTIES.items()}
    return entity(
        _KIND,
        id=provider.id,
        href=made.below(_AT, provider.id),
        name=provider.name,
        description=provider.description,
        comment=provider.comment,
        url=provider.url,
        requires_authentication=provider.requires_authentication,
        username=provider.username or None,
        authentication_url=provider.authentication_url or None,
        tenant_name=provider.project or None,
        properties=_properties({name: value for name, value in told.items() if value}) or None,
        data_center=made.reference("data_center", provider.data_center_id, "/datacenters"),
    )


def _properties(known: Mapping[str, str]) -> tuple[Entity, ...]:
    return tuple(entity("property", name=name, value=value) for name, value in known.items())


async def _given(call: Call, sent: Entity) -> dict[str, Any]:
    """What was sent, as the model has it; without the password."""
    found = given(sent, _FIELDS)
    for one in sent.many("properties") or ():
        ours = _PROPERTIES.get(one.text("name") or "")
        if ours:
            found[ours] = one.text("value") or ""
    center = sent.one("data_center")
    if center is not None and (center.id or center.text("name")):
        found["data_center_id"] = (await call.parts.store.read(referred, data_centers, center)).id
    return found


def _password(sent: Entity) -> Secret | None:
    password = sent.text("password")
    return None if password is None else Secret(password)


async def _add(call: Call, sent: Entity) -> Provider:
    text(sent, "name", "one that no other has")
    text(sent, "url", "that of a Cinder, or rbd://MONITOR,…/POOL")
    new = NewProvider(**await _given(call, sent), password=_password(sent))
    return await call.parts.providers.add(new, call.caller)


async def _edit(call: Call, sent: Entity) -> Provider:
    changes = await _given(call, sent)
    provider_id = call.id("openstackvolumeproviders")
    return await call.parts.providers.edit(
        provider_id, call.caller, password=_password(sent), **changes
    )


async def _remove(call: Call) -> None:
    await call.parts.providers.remove(call.id("openstackvolumeproviders"), call.caller)


async def _test(call: Call, sent: Entity) -> None:
    await call.parts.providers.test(call.id("openstackvolumeproviders"))


# The types that volumes may have


class _VolumeType(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def properties(self) -> Mapping[str, str]: ...


async def _types(call: Call) -> Sequence[_VolumeType]:
    return await call.parts.providers.volume_types(call.id("openstackvolumeproviders"))


def _show_type(call: Call, kind: _VolumeType) -> Entity:
    provider_id = call.id("openstackvolumeproviders")
    return entity(
        "openstack_volume_type",
        id=kind.id,
        href=made.below(f"{made.below(_AT, provider_id)}/volumetypes", kind.id),
        name=kind.name,
        description=kind.description,
        properties=_properties(kind.properties),
        openstack_volume_provider=made.reference(_KIND, provider_id, _AT),
    )


# Authentication keys


async def _keys(call: Call) -> Sequence[AuthenticationKey]:
    provider_id = call.id("openstackvolumeproviders")
    return await call.parts.store.read(authentication_keys.all, provider_id=provider_id)


async def _key(call: Call) -> AuthenticationKey | None:
    found = await call.parts.store.read(authentication_keys.get, call.id("authenticationkeys"))
    return found if found and found.provider_id == call.id("openstackvolumeproviders") else None


def _show_key(call: Call, key: AuthenticationKey) -> Entity:
    return entity(
        "openstack_volume_authentication_key",
        id=key.id,
        href=made.below(f"{made.below(_AT, key.provider_id)}/authenticationkeys", key.id),
        uuid=key.uuid,
        description=key.description,
        usage_type=key.usage_type,
        creation_date=key.created_ms,
        openstack_volume_provider=made.reference(_KIND, key.provider_id, _AT),
    )


_KEY_FIELDS = {"uuid": "uuid", "usage_type": "usage_type", "description": "description"}


async def _add_key(call: Call, sent: Entity) -> AuthenticationKey:
    text(sent, "uuid", "that of the secret which cinder.conf names as rbd_secret_uuid")
    new = NewKey(**given(sent, _KEY_FIELDS), value=Secret(sent.text("value") or ""))
    return await call.parts.keys.add(call.id("openstackvolumeproviders"), new, call.caller)


async def _edit_key(call: Call, sent: Entity) -> AuthenticationKey:
    value = sent.text("value")
    return await call.parts.keys.edit(
        call.id("openstackvolumeproviders"),
        call.id("authenticationkeys"),
        call.caller,
        value=None if value is None else Secret(value),
        **given(sent, _KEY_FIELDS),
    )


async def _remove_key(call: Call) -> None:
    await call.parts.keys.remove(
        call.id("openstackvolumeproviders"), call.id("authenticationkeys"), call.caller
    )


PROVIDERS = Collection(
    "openstackvolumeproviders",
    _KIND,
    rows=_rows,
    row=_row,
    show=_show,
    add=_add,
    edit=_edit,
    remove=_remove,
    actions={"testconnectivity": _test},
    whole=("data_center",),
    fields={
        "name": lambda provider: provider.name,
        "id": lambda provider: provider.id,
        "description": lambda provider: provider.description,
        "comment": lambda provider: provider.comment,
        "url": lambda provider: provider.url,
        "type": lambda provider: "openstack_volume",
    },
    under=(
        Collection("volumetypes", "openstack_volume_type", rows=_types, show=_show_type),
        Collection(
            "authenticationkeys",
            "openstack_volume_authentication_key",
            rows=_keys,
            row=_key,
            show=_show_key,
            add=_add_key,
            edit=_edit_key,
            remove=_remove_key,
        ),
        empty("certificates", "certificate"),
    ),
)
