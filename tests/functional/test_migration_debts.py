# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left on the other host by a migration that failed is ended, whatever fails meanwhile."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import pytest

from tests.functional.helpers import eventually, new_image, session_fixture, status
from tests.functional.two_hosts import SLOW, host2, idle, where

pytestmark = pytest.mark.asyncio(loop_scope="session")


@session_fixture("module")
async def elsewhere(lab, engine):
    """An engine of the daemon on host2."""
    async with host2(lab, engine, "debts", {}) as other:
        yield other


@session_fixture("function")
async def vm(engine):
    """A VM on host1, which is the source."""
    with new_image(engine) as image:
        async with idle(engine, image) as vm_id:
            yield vm_id


async def copying(engine, vm_id):
    """Return when libvirt copies its memory."""

    async def copied():
        return "Memory processed" in engine.daemon.host.virsh("domjobinfo", vm_id)

    await eventually(copied, "libvirt to copy")


async def forgotten(engine, vm_id):
    async def is_forgotten():
        return vm_id not in await engine.call("Host.getVMList", onlyUUID=True)

    await eventually(is_forgotten, "the VM to be forgotten")
    assert vm_id not in engine.daemon.host.virsh("list", "--all", "--uuid")


def owed(engine, vm_id, *flags):
    return "migrationOwed" in engine.daemon.host.virsh("dumpxml", *flags, vm_id)


async def killed_and_started(engine):
    engine.daemon.kill()
    engine.daemon.start()
    await engine.connect()
    # Without systemd the key's value went with its process.
    await engine.register_key()


@contextmanager
def frozen(daemon):
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)
        daemon.process.send_signal(signal.SIGCONT)


async def test_a_host_that_does_not_answer_is_told_by_the_next_daemon(engine, elsewhere, vm):
    await engine.call("VM.migrate", **where(elsewhere, vm, maxBandwidth=SLOW))
    await copying(engine, vm)
    with frozen(elsewhere.daemon):
        await engine.call("VM.migrateCancel", vmID=vm)
        assert await status(engine, vm) == "Up"
        assert owed(engine, vm)
        assert owed(engine, vm, "--inactive")
        await killed_and_started(engine)
    await forgotten(elsewhere, vm)

    async def paid():
        return not owed(engine, vm) and not owed(engine, vm, "--inactive")

    await eventually(paid, "nothing to be owed any more")
    assert await status(engine, vm) == "Up"
