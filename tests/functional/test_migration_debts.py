# SPDX-License-Identifier: GPL-2.0-or-later
"""What is left on the other host by a migration that failed is ended, whatever fails meanwhile."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest

from tests.functional.helpers import eventually, new_image, session_fixture, status
from tests.functional.two_hosts import SLOW, frozen, host2, idle, where
from vdsmcinder.errors import RemoteError

pytestmark = pytest.mark.asyncio(loop_scope="session")

# What libvirt sends in one and a half minutes to say no more than that it is there.
ALIVE_BYTES = 1000


@session_fixture("module")
async def elsewhere(lab, engine):
    """An engine of the daemon on host2."""
    async with host2(lab, engine, "debts", {}) as other:
        yield other


@dataclass(frozen=True)
class Source:
    """A VM with a disk and nothing to boot, on host1, from where it goes."""

    id: str
    image: str


@session_fixture("function")
async def vm(engine):
    with new_image(engine) as image:
        async with idle(engine, image) as vm_id:
            yield Source(vm_id, image)


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


async def test_a_host_that_does_not_answer_is_told_by_the_next_daemon(engine, elsewhere, vm):
    await engine.call("VM.migrate", **where(elsewhere, vm.id, maxBandwidth=SLOW))
    await copying(engine, vm.id)
    with frozen(elsewhere.daemon):
        await engine.call("VM.migrateCancel", vmID=vm.id)
        assert await status(engine, vm.id) == "Up"
        assert owed(engine, vm.id)
        assert owed(engine, vm.id, "--inactive")
        await killed_and_started(engine)
    await forgotten(elsewhere, vm.id)

    async def paid():
        return not owed(engine, vm.id) and not owed(engine, vm.id, "--inactive")

    await eventually(paid, "nothing to be owed any more")
    assert await status(engine, vm.id) == "Up"


@contextmanager
def cut(*hosts):
    """Each way that they have to one another refuses; engines and Ceph reach both."""
    ways = [(host, other) for host in hosts for other in hosts if host is not other]
    rule = ["OUTPUT", "-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset", "-d"]
    for host, other in ways:
        host.run(["iptables", "-I", *rule, other.address])
    try:
        yield
    finally:
        for host, other in ways:
            host.run(["iptables", "-D", *rule, other.address])


@asynccontextmanager
async def outdated_copy(engine, elsewhere, vm_id):
    """The VM goes on where it was, and the other host has a whole copy and has not heard of that.

    libvirt's last answer to it was lost, and so is all that the hosts say to each other meanwhile.
    """
    here, there = engine.daemon.host, elsewhere.daemon.host
    await engine.call("VM.migrate", **where(elsewhere, vm_id, maxBandwidth=SLOW))
    await copying(engine, vm_id)
    there.namespace.freeze(there.libvirtd_pid)
    try:
        here.virsh("migrate-setspeed", vm_id, 1024)
        await eventually(lambda: asked_for_the_last_step(there, here), "libvirt to ask for it")
        with cut(here, there):
            there.namespace.kill(there.libvirtd_pid, signal.SIGCONT)
            await becomes(here, vm_id, "running")
            await becomes(there, vm_id, "paused (user)")
            yield
    finally:
        there.namespace.kill(there.libvirtd_pid, signal.SIGCONT)


async def asked_for_the_last_step(there, here):
    """Whether a libvirtd that stands has more to read from the other's than that this is alive."""
    ways = there.run(["ss", "-Htn", "state", "established", "sport = :16514"])
    return any(
        int(way.split()[0]) > ALIVE_BYTES and here.address in way for way in ways.splitlines()
    )


async def becomes(host, vm_id, state):
    """Return when libvirt has it so."""

    async def is_so():
        return host.virsh("domstate", "--reason", vm_id).startswith(state)

    await eventually(is_so, f"the VM to be {state} on {host.name}")


def marked(lab, image):
    """Whether the image says that its VM goes on without a copy."""
    return "vdsm-cinder.kept." in lab.ceph.rbd("image-meta", "list", image)


async def test_a_copy_whose_vm_went_on_is_not_let_run_and_is_ended(lab, engine, elsewhere, vm):
    """Whoever vouches that its source is off, and although nobody has the image open any more."""
    async with outdated_copy(engine, elsewhere, vm.id):
        with frozen(elsewhere.daemon):

            async def is_marked():
                return marked(lab, vm.image)

            await eventually(is_marked, "the image to say that its VM goes on")
            assert await status(engine, vm.id) == "Up"
            engine.daemon.host.virsh("destroy", vm.id)
            await engine.wait_status(vm.id, "Down")
            await killed_and_started(engine)
        await elsewhere.connect()
        with pytest.raises(RemoteError) as refusal:
            params = {"verdict": "fenced"}
            await elsewhere.call("VM.migrationConclude", vmID=vm.id, params=params)
        # By itself it ends what the image says is outdated, and may have done so already.
        outdated = "its disks have been written since it was copied" in refusal.value.message
        assert outdated or refusal.value.code == 1
        await forgotten(elsewhere, vm.id)
        assert owed(engine, vm.id, "--inactive")

    async def is_paid():
        return not (marked(lab, vm.image) or owed(engine, vm.id, "--inactive"))

    await eventually(is_paid, "the host to be told")
