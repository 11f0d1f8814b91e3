# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs that are to migrate and wait: for their turn to leave, or for a host that takes in others."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import pytest

from tests.functional.helpers import (
    new_image,
    refused,
    session_fixture,
    status,
    within,
)
from tests.functional.two_hosts import host2, idle, offer, where

pytestmark = pytest.mark.asyncio(loop_scope="session")

# How many may leave at once, by what the second waits for.
PLACES = {"host2": 9, "its turn": 1}


@session_fixture("module")
async def elsewhere(lab, engine):
    """An engine of the daemon on host2, which takes in one VM at a time."""
    async with host2(lab, engine, "waiting", {"incoming_limit": 1}) as other:
        yield other


@session_fixture("module")
async def ahead(engine, elsewhere):
    """A VM that host2 was told of and that does not come, so that another waits for host2."""
    with new_image(engine) as image, new_image(engine) as other:
        async with idle(engine, image) as announced, idle(engine, other) as vm_id:
            await elsewhere.call("VM.migrationCreate", **await offer(engine, announced))
            await engine.call("VM.migrate", **where(elsewhere, vm_id))
            yield vm_id
            await engine.call("VM.migrateCancel", vmID=vm_id)


@session_fixture("function")
async def make(engine):
    async with AsyncExitStack() as stack:

        async def make():
            image = stack.enter_context(new_image(engine))
            return await stack.enter_async_context(idle(engine, image))

        yield make


@pytest.mark.parametrize("place", PLACES)
async def test_one_that_does_not_run_any_more_waits_no_longer(
    engine, elsewhere, ahead, make, place
):
    async def waiting():
        vm_id = await make()
        limit = PLACES[place]
        await engine.call("VM.migrate", **where(elsewhere, vm_id, outgoingLimit=limit))
        assert await status(engine, vm_id) == "Migration Source"
        return vm_id

    virsh = engine.daemon.host.virsh
    ended = await waiting()
    virsh("destroy", ended)
    assert (await engine.wait_status(ended, "Down"))["exitReason"] == 6
    with refused(12, "was not migrated to host host2:", "it ended meanwhile"):
        await engine.call("VM.getMigrationStatus", vmID=ended)
    paused = await waiting()
    virsh("suspend", paused)
    assert (await engine.wait_status(paused, "Paused"))["pauseCode"] == "NOERR"
    with refused(12, "it was paused before its turn came"):
        await engine.call("VM.getMigrationStatus", vmID=paused)

    async def destroyed():
        vm_id, began_s = await waiting(), time.monotonic()
        await engine.destroy(vm_id)
        return time.monotonic() - began_s

    await within(5, destroyed, "VM.destroy of a VM that waits")
    assert b"migrations_waiting 0.0" in engine.daemon.page("/metrics")
    assert await status(engine, ahead) == "Migration Source"
