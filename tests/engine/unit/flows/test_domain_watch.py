# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage domains as they are seen: their room, and providers that go and come back."""

from __future__ import annotations

from cinderengine.errors import Unavailable
from cinderengine.flows.domain_watch import DomainWatch
from cinderengine.model.domains import DomainStatus
from cinderengine.store.entities import events, storage_domains
from tests.engine.unit.flows.memory import World
from tests.engine.unit.flows.whole import ADMIN, Whole, settle_in


async def test_providers_go_and_come_back(store):
    whole = Whole(store, World())
    await settle_in(whole)
    domain_id = whole.domain_id
    watch = DomainWatch(store, whole.services, 60)

    async def domain():
        return await store.read(storage_domains.get, domain_id)

    await watch.look()
    assert ((await domain()).used_bytes, (await domain()).available_bytes) == (1, 2)
    whole.world.failing["check"] = Unavailable("no monitor can be reached; start one")
    await watch.look()
    assert (await domain()).status is DomainStatus.ACTIVE
    for _ in range(2):
        await watch.look()
        assert (await domain()).status is DomainStatus.INACTIVE
        assert (await domain()).reason == "no monitor can be reached; start one"
    whole.world.failing.clear()
    await watch.look()
    assert ((await domain()).status, (await domain()).reason) == (DomainStatus.ACTIVE, "")
    told = [event.code for event in await store.read(events.all)]
    assert told[-2:] == [970, 1]
    await whole.domains.deactivate(domain_id, ADMIN)
    await watch.look()
    assert (await domain()).status is DomainStatus.MAINTENANCE
