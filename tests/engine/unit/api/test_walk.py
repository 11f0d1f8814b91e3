# SPDX-License-Identifier: GPL-2.0-or-later
"""Every collection of the table, asked for everything it has and sent what makes no sense."""

from __future__ import annotations

import pytest

from cinderengine.api.resources.collections import ROOTS
from cinderengine.api.resources.table import Collection, find
from cinderengine.api.types import xml
from cinderengine.api.types.entity import Entity
from cinderengine.api.types.registry import TYPES
from cinderengine.api.types.schema import Media, Version
from tests.engine.unit.api.samples import full
from tests.engine.unit.api.test_contract import KEY, World, added

ALL = dict(find(ROOTS))


def test_every_collection_has_a_type_and_its_own_name() -> None:
    for path, collection in ALL.items():
        assert collection.type in TYPES, path
        names = [below.name for below in collection.under]
        assert len(names) == len(set(names)), path
        assert not set(names) & set(collection.actions), path
        assert set(collection.columns) <= set(collection.fields), path


def test_what_is_followed_has_a_field_to_stand_in() -> None:
    plain = {
        name: {field.name.replace("_", "") for field in declared.fields}
        for name, declared in TYPES.items()
    }
    assert {
        (collection.type, below.name)
        for collection in ALL.values()
        for below in collection.under
        if below.name not in plain[collection.type]
    } == {("host", "storage")}  # which oVirt has as "storages"


@pytest.fixture
async def world(client, engine):
    world = World(client, "4")
    await world.begin()
    await world("POST", f"{world.provider}/authenticationkeys", KEY)
    await world(
        "POST", "/hosts", "<host><name>h</name><cluster><name>Default</name></cluster></host>"
    )
    await added(world, engine)
    return world


async def places(world: World) -> list[tuple[str, Collection]]:
    """Where each collection is, with ids of what there is."""
    found: dict[str, str] = {}
    for path in ALL:
        parent, _, name = path.rpartition("/ID/")
        if not parent:
            found[path] = f"/{name}"
            continue
        got = await world("GET", found[parent])
        ids = [one.get("id") for one in got.xml] or ["none"]
        found[path] = f"{found[parent]}/{ids[0]}/{name}"
    return [(found[path], collection) for path, collection in ALL.items()]


async def test_whatever_is_listed_can_be_got_by_its_link(world) -> None:
    for version in ("3", "4"):
        for accept in Media:
            for path, _ in await places(world):
                got = await world.client("GET", path, Version=version, Accept=accept.value)
                assert got.status in ({404} if "/none/" in path else {200}), path
                if accept is Media.XML and got.status == 200:
                    for one in got.xml[:2]:
                        shown = await world.client("GET", one.get("href"), Version=version)
                        assert (shown.status, shown.id) == (200, one.get("id")), path


@pytest.mark.parametrize("kind", ["empty", "everything", "none"])
async def test_nothing_that_is_sent_is_a_mistake_of_ours(world, engine, kind) -> None:
    def body_for(name: str) -> str | None:
        declared = TYPES[name]
        if kind == "none":
            return None
        sent = full(declared) if kind == "everything" else Entity(declared)
        return xml.writes(sent, Version.V4, "").decode()

    for path, collection in reversed(await places(world)):
        body = body_for(collection.type)
        first = "/x"
        got = await world("GET", path)
        if got.status == 200 and len(got.xml):
            first = f"/{got.xml[0].get('id')}"
        asked = [
            ("PUT", f"{path}{first}", body),
            ("PUT", f"{path}/none", body),
            *(("POST", f"{path}{first}/{name}", body_for("action")) for name in collection.actions),
            *(("POST", f"{path}/none/{name}", body_for("action")) for name in collection.actions),
            ("POST", path, body),
            ("POST", f"{path}?unregistered=true", body),
            ("DELETE", f"{path}/none", body),
            ("DELETE", f"{path}{first}", body),
        ]
        for method, at, sent in asked:
            answer = await world(method, at, sent, Expect="202-accepted")
            assert answer.status < 500, (method, at, answer.body)
            assert answer.xml.tag, at
            await engine.idle()
