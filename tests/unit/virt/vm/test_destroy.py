# SPDX-License-Identifier: GPL-2.0-or-later
"""VM.destroy of a VM that cannot be destroyed: it is said, and the VM is as good as before."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.refusals import libvirt_error
from vdsmcinder.errors import DestroyFailed, MigrationFailed, ResourceUnavailable, VdsmCinderError
from vdsmcinder.virt.disk.ceph_images import NO_IMAGES, CephImage, CephImages
from vdsmcinder.virt.domain import metadata
from vdsmcinder.virt.vm import lifecycle, power
from vdsmcinder.virt.vm.parts.commands import Commands
from vdsmcinder.virt.vm.parts.ending import Ending
from vdsmcinder.virt.vm.status import Status

DOUBT = DestroyFailed("host2 may let its copy run")
IMAGES = CephImages((CephImage("vda", "volumes/web"),))


class World:
    """libvirt, Ceph and the other hosts. fails: what libvirt raises, by the call that does.

    doubt: what is said of copies. opened: what is said of who has the images open.
    """

    call_timeout_s = 1.0

    def __init__(self) -> None:
        self.fails: dict[Any, Exception] = {}
        self.doubt: VdsmCinderError | None = None
        self.opened: VdsmCinderError | None = None
        self.removed = self.recorded = False

    async def on_domain(self, _uuid: str, func: Any, *_: Any, timeout_s: float = 0) -> None:
        if func in self.fails:
            raise self.fails[func]
        self.removed = self.removed or func is power._undefine
        self.recorded = self.recorded or func is metadata.set_lasting

    async def end(self, _vm_id: str) -> VdsmCinderError | None:
        return self.doubt

    async def check(self, *_: Any) -> Any:
        if self.opened is not None:
            raise self.opened

        async def release() -> None:
            """Nothing was claimed."""

        return SimpleNamespace(release=release)


class Web(SimpleNamespace):
    """A VM."""

    @property
    def wanted_exit(self) -> Any:
        return self.ending.wanted


def vm(world: World, images: CephImages = NO_IMAGES) -> Any:
    ending = Ending()
    ending.told()
    return Web(
        id="web",
        name="web",
        status=Status.UP,
        running=True,
        lock=asyncio.Lock(),
        migration=None,
        exit=None,
        ending=ending,
        monitor=SimpleNamespace(hangs=False),
        commands=Commands(),
        domain=SimpleNamespace(ceph=images),
        services=SimpleNamespace(connection=world, copies=world, preflight=world),
        apply=lambda change: None,
    )


@pytest.mark.parametrize("func", [power._destroy, power._undefine])
@pytest.mark.parametrize("error", [libvirt_error("Device or resource busy"), None])
async def test_one_that_cannot_be_ended_or_removed_goes_on(func: Any, error: Any) -> None:
    world = World()
    world.fails[func] = error or ResourceUnavailable("libvirt is gone")
    web = vm(world)
    with pytest.raises((DestroyFailed, ResourceUnavailable)):
        await power.destroy(web, 0)
    assert not web.ending.doomed
    # What becomes of it next is its own end.
    assert web.ending.explained(lifecycle.GUEST_SHUT_DOWN) is lifecycle.GUEST_SHUT_DOWN
    world.fails.clear()
    await power.destroy(web, 0)
    assert web.ending.doomed
    assert world.removed


@pytest.mark.parametrize(
    ("images", "opened", "removed"),
    [
        (IMAGES, None, True),
        (IMAGES, MigrationFailed("its image is open on another host"), False),
        # Nothing tells whether that copy has a process.
        (NO_IMAGES, None, False),
    ],
)
async def test_one_whose_copy_may_run(images: CephImages, opened: Any, removed: bool) -> None:
    world = World()
    world.doubt, world.opened = DOUBT, opened
    web = vm(world, images)
    if removed:
        await power.destroy(web, 0)
    else:
        with pytest.raises(DestroyFailed, match="host2 may let its copy run"):
            await power.destroy(web, 0)
    assert world.removed is removed
    assert web.ending.doomed is removed


class Leaving:
    """A migration. ends: what becomes of the VM when it is over; None if that is not known."""

    words = "migrates to host2:54321"

    def __init__(self, web: Any, ends: lifecycle.Change | None) -> None:
        self._web, self._ends = web, ends
        web.migration = self

    async def end(self) -> None:
        """In post-copy it ends with the QEMU process."""

    async def over(self) -> None:
        if self._ends is not None:
            self._web.migration = None
            self._web.exit = self._ends.exit


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (None, "migrates to host2:54321, and whether it runs there is not known yet"),
        (lifecycle.migrated_to("host2"), "runs there: The VM migrated to host host2. Destroy it"),
        (lifecycle.POSTCOPY_FAILED, None),
        (lifecycle.DESTROYED, None),
    ],
)
async def test_one_that_leaves_meanwhile(ends: lifecycle.Change | None, words: str | None) -> None:
    world = World()
    web = vm(world)
    Leaving(web, ends)
    if words is None:
        await power.destroy(web, 0)
    else:
        with pytest.raises(DestroyFailed, match=words):
            await power.destroy(web, 0)
    assert world.removed is (words is None)
    # Or the next daemon would take the migration up again.
    assert world.recorded is (words is not None and ends is not None)
