# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest runs when its images were looked at once more, with QEMU at them. On host2.

QEMU is made slow by an emulator that waits until it is let go, so that things happen meanwhile.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from subprocess import DEVNULL, PIPE

import pytest

from lab.base import wait_until
from lab.engine import new_id
from lab.guest.domains import console_of, disk_xml
from tests.functional.helpers import (
    ask,
    destroyed_at_last,
    engine_on,
    eventually,
    recorded_events,
    session_fixture,
    told,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

SLOW, MEETING = "/usr/local/bin/qemu-slow", "/run/qemu-slow"
GO, WAITS = f"{MEETING}/go", f"{MEETING}/waits"
# libvirt runs it for its capabilities, too.
SCRIPT = f"""\
#!/bin/sh
case "$*" in *guest=*)
    touch {WAITS}
    while [ ! -e {GO} ]; do sleep 0.05; done
esac
exec /usr/bin/qemu-system-x86_64 "$@"
"""


@session_fixture("module")
async def engine(lab):
    """An engine of a daemon on host2, whose secret is registered."""
    async with engine_on(lab, lab.hosts["host2"], "start") as engine:
        await engine.register_key()
        yield engine


@pytest.fixture
def slow(engine):
    """Files of the host: the slow QEMU exists, and nobody has let it go."""
    host = engine.daemon.host
    emulator = host.path(SLOW)
    emulator.write_text(SCRIPT)
    emulator.chmod(0o755)
    # Where QEMU's user may make files.
    host.run(["install", "--directory", "--mode=777", MEETING])
    yield host
    host.run(["rm", "-r", SLOW, MEETING])


def go(host):
    host.path(GO).touch()


@asynccontextmanager
async def waiting(engine, host, image, **more):
    """A VM whose QEMU waits to be let go, with its only disk; its id."""
    disk = disk_xml(engine.lab.ceph, image, "vda", engine.secret_id)
    params = engine.document(new_id(), disk)
    xml = params["xml"].replace("<devices>", f"<devices>\n    <emulator>{SLOW}</emulator>")
    async with destroyed_at_last(engine, params["vmId"]) as vm_id:
        await engine.create({**params, "xml": xml, **more})
        await asyncio.to_thread(wait_until, host.path(WAITS).exists, "QEMU to begin", 30)
        yield vm_id


@contextmanager
def watched(ceph, image):
    """Somebody else has the image open."""
    before = len(ceph.watchers(image))
    watch = ["rbd", "--conf", ceph.conf, "--pool", ceph.pool, "watch", image]
    # It ends when somebody presses enter.
    with ceph.namespace.popen(watch, stdin=PIPE, stdout=DEVNULL) as process:
        wait_until(lambda: len(ceph.watchers(image)) > before, "the other one to have it open", 30)
        yield
        process.communicate(b"\n")


async def test_what_is_opened_by_another_while_qemu_starts_is_never_written_to(engine, slow, image):
    name = image()
    async with waiting(engine, slow, name) as vm_id:
        with watched(engine.lab.ceph, name):
            go(slow)
            down = await engine.wait_status(vm_id, "Down")
        words = f"VM {vm_id} could not be started: disk vda (volumes/{name}): the image is in use"
        assert words in down["exitMessage"]
        assert down["exitReason"] == 3
    # It had its firmware, its kernel and its first write before it.
    assert "ready" not in (slow.lab_dir / f"guests/vm-{vm_id}.log").read_text()


async def test_that_it_starts_paused_is_not_seen(engine, slow, image):
    async with recorded_events(engine) as events, waiting(engine, slow, image()) as vm_id:
        go(slow)
        await engine.wait_status(vm_id, "Up")
        assert "starting>" not in slow.virsh("dumpxml", vm_id)
        with console_of(slow, f"vm-{vm_id}") as console:
            await asyncio.to_thread(console.wait_for, "^ready")
    assert told(events, vm_id)[:2] == ["Powering up", "Up"]


async def test_one_that_is_to_be_paused_is(engine, slow, image):
    async with waiting(engine, slow, image(), launchPaused=True) as vm_id:
        go(slow)
        paused = await engine.wait_status(vm_id, "Paused")
        assert paused["pauseCode"] == "NOERR"
        await engine.call("VM.cont", vmID=vm_id)
        await engine.wait_status(vm_id, "Up")


@pytest.mark.parametrize("vouched", [True, False])
async def test_a_start_that_a_killed_daemon_left_goes_on(engine, slow, image, vouched):
    """The next daemon has no key here, where no systemd keeps it; so it must be vouched for."""
    name = image()
    async with waiting(engine, slow, name, allowUnchecked=vouched) as vm_id:
        engine.daemon.kill()
        go(slow)
        await asyncio.to_thread(
            wait_until,
            lambda: slow.virsh("domstate", "--reason", vm_id) == "paused (user)",
            "libvirt to have started it",
            30,
        )
        engine.daemon.start()
        await engine.connect()

        async def settled():
            (stats,) = await ask(engine, "VM.getStats", vmID=vm_id)
            return stats if stats["status"] in ("Up", "Paused", "Down") else None

        stats = await eventually(settled, "its start to come to an end")
        if vouched:
            assert stats["status"] == "Up"
            assert "starting>" not in slow.virsh("dumpxml", vm_id)
            with console_of(slow, f"vm-{vm_id}") as console:
                await asyncio.to_thread(console.wait_for, "^ready")
        else:
            words = "whether the image is open on another host cannot be seen"
            assert words in stats["exitMessage"]
    await engine.register_key()
