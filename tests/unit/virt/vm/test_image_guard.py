# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that stands is not continued while, or once, another host has opened its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults import pluggable
from tests.unit.transport.serving import until
from tests.unit.virt.vm.test_registry import document, new_id, plugs
from tests.unit.whole import Whole, running
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp.client import StompSession
from vdsmcinder.virt.storage.preflight import Preflight
from vdsmcinder.virt.vm import image_guard, io_resume, lifecycle
from vdsmcinder.virt.vm.parts import io_errors

ELSEWHERE = "the image of disk vda (volumes/v) is open on another host (client.7 at 10.0.0.9)"


class Ceph:
    """What Ceph tells of the images of all VMs. looks: how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.elsewhere: str | None = ""
        self.looks = 0

        async def open_elsewhere(
            _preflight: Preflight, _images: object, _within_s: float
        ) -> str | None:
            self.looks += 1
            return self.elsewhere

        async def answers(_vm: object) -> bool:
            return True

        monkeypatch.setattr(Preflight, "open_elsewhere", open_elsewhere)
        monkeypatch.setattr(io_resume, "_storage_answers", answers)
        monkeypatch.setattr(io_errors, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def ceph(monkeypatch: pytest.MonkeyPatch) -> Ceph:
    return Ceph(monkeypatch)


def options(directory: Path, *documents: str, mode: str = "enforce") -> dict[str, Any]:
    return {**pluggable.host(directory, *documents), "ceph": {"preflight": mode}}


async def paused_by_an_error(whole: Whole, vm_id: str) -> Any:
    """The VM, which QEMU has paused for an I/O error."""
    vm = whole.daemon._registry.get(vm_id)
    await vm.call(lambda domain: domain.suspend())
    await until(lambda: vm.status.value == "Paused", "it was not paused")
    vm.io_error("vda", "")
    vm.pause_code = None
    vm.apply(lifecycle.RUNNING)
    vm.io_error("vda", "")
    vm.apply(lifecycle.PAUSED_BY_IO_ERROR)
    return vm


async def event(session: StompSession, name: str) -> dict[str, Any]:
    heard = await session.wait_for_event(lambda e: e["method"] == name, 10)
    params: dict[str, Any] = heard["params"]
    return params


async def test_one_whose_image_another_host_has_opened_is_paused_for_good(
    tmp_path, monkeypatch, ceph
):
    monkeypatch.setattr(image_guard, "LINGER_S", 0.05)
    ceph.elsewhere, vm_id = ELSEWHERE, new_id()
    made = options(tmp_path, document(vm_id))
    with plugs():
        async with running(tmp_path, **made) as whole:
            session = await whole.client()
            await session.subscribe_events()
            vm = await paused_by_an_error(whole, vm_id)
            told = await event(session, f"|virt|VM_image_taken|{vm_id}")
            assert ELSEWHERE in told[vm_id]["reason"]
            (stats,) = await session.call("VM.getStats", {"vmID": vm_id})
            assert (stats["status"], stats["pauseCode"]) == ("Paused", "EPERM")
            _, health = await whole.health()
            (reason,) = (r for r in health["reasons"] if vm_id in r)
            assert ELSEWHERE in reason
            # The other one has let go of it, and has changed it.
            ceph.elsewhere = ""
            with pytest.raises(RemoteError, match="cannot be continued") as refused:
                await session.call("VM.cont", {"vmID": vm_id})
            assert refused.value.code == 16
            # The next daemon knows it from the domain.
            document_now = await vm.call(lambda domain: domain.XMLDesc())
            assert ELSEWHERE in document_now
            await session.close()


async def test_one_whose_image_a_dead_host_still_holds_is_continued_when_ceph_lets_go(
    tmp_path, ceph
):
    ceph.elsewhere, vm_id = ELSEWHERE, new_id()
    with plugs():
        async with running(tmp_path, **options(tmp_path, document(vm_id))) as whole:
            vm = await paused_by_an_error(whole, vm_id)
            await until(lambda: ceph.looks > 1, "nobody looked again")
            # A Ceph that does not tell just now is not one that tells that nobody has it.
            ceph.elsewhere, looks = None, ceph.looks
            vm.io.storage_may_be_back()
            await until(lambda: ceph.looks > looks, "nobody looked again")
            assert (vm.status.value, vm.taken) == ("Paused", "")
            ceph.elsewhere = ""
            vm.io.storage_may_be_back()
            await until(lambda: vm.status.value == "Up", "it was not continued")


@pytest.mark.parametrize("mode, refused", [("enforce", True), ("warn", True), ("off", False)])
async def test_an_operator_is_refused_while_another_host_has_it(tmp_path, ceph, mode, refused):
    vm_id = new_id()
    with plugs():
        async with running(tmp_path, **options(tmp_path, document(vm_id), mode=mode)) as whole:
            session, ceph.elsewhere = await whole.client(), ELSEWHERE
            vm = await paused_by_an_error(whole, vm_id)
            await session.call("VM.pause", {"vmID": vm_id})
            assert vm.io.held
            if refused:
                with pytest.raises(RemoteError, match="is open on another host"):
                    await session.call("VM.cont", {"vmID": vm_id})
                assert whole.daemon._registry.get(vm_id).status.value == "Paused"
                ceph.elsewhere = None
            # Where Ceph does not tell, it is the operator's to know.
            await session.call("VM.cont", {"vmID": vm_id})
            assert whole.daemon._registry.get(vm_id).status.value == "Up"
            await session.close()


async def test_one_that_only_an_operator_has_paused_is_continued(tmp_path, ceph):
    """As when a copy that a migration left on another host has just been ended there."""
    ceph.elsewhere, vm_id = ELSEWHERE, new_id()
    with plugs():
        async with running(tmp_path, **options(tmp_path, document(vm_id))) as whole:
            session = await whole.client()
            await session.call("VM.pause", {"vmID": vm_id})
            await session.call("VM.cont", {"vmID": vm_id})
            vm = whole.daemon._registry.get(vm_id)
            await until(lambda: vm.status.value == "Up", "it was not continued")
            await session.close()
