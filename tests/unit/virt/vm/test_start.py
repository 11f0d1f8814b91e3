# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest runs when its images were looked at once more, of which engines see nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.faults import pluggable
from tests.unit.transport.serving import until
from tests.unit.virt.vm.test_registry import domain, new_id, plugs, status
from tests.unit.whole import Whole, running
from vdsmcinder.errors import CreateFailed
from vdsmcinder.hypervisor.connection import ConnectionLost
from vdsmcinder.stomp.client import StompSession
from vdsmcinder.virt.storage.consent import NO_CONSENT, Consent
from vdsmcinder.virt.storage.preflight import Preflight

UNCHECKED = {"allowUnchecked": True}


class Ceph:
    """What becomes of looks at images that QEMU has open.

    fault: what the next ones raise. states: of the domain at each of them; consents: given then.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fault: Exception | None = None
        self.whole: Whole | None = None
        self.states: list[int] = []
        self.consents: list[Consent] = []

        async def confirm(
            preflight: Preflight,
            _images: object,
            vm_id: str,
            _claims: object,
            _failure: object,
            consent: Consent = NO_CONSENT,
        ) -> None:
            assert self.whole is not None
            self.states.append(domain(self.whole, vm_id).state()[0])
            self.consents.append(consent)
            if self.fault is not None:
                raise self.fault

        async def check(preflight: Preflight, *_args: object, **_named: object) -> Any:
            return preflight.no_claims()

        def create(domain: libvirt.virDomain, flags: int) -> None:
            # libvirt's test driver starts none paused.
            domain.create()
            if flags & libvirt.VIR_DOMAIN_START_PAUSED:
                domain.suspend()

        monkeypatch.setattr(libvirt.virDomain, "createWithFlags", create)
        monkeypatch.setattr(Preflight, "confirm", confirm)
        monkeypatch.setattr(Preflight, "check", check)


@pytest.fixture
def ceph(monkeypatch: pytest.MonkeyPatch) -> Ceph:
    return Ceph(monkeypatch)


def options(directory: Path) -> dict[str, Any]:
    return {**pluggable.host(directory), "ceph": {"preflight": "enforce"}}


def params(vm_id: str, **more: Any) -> dict[str, Any]:
    disk = pluggable.DISK.format(image="x", target="vda")
    xml = pluggable.DOMAIN.format(uuid=vm_id).replace("<devices/>", f"<devices>{disk}</devices>")
    return {"vmID": vm_id, "vmParams": {"vmId": vm_id, "xml": xml, **more}}


async def statuses(session: StompSession, vm_id: str, last: str) -> list[str]:
    """All statuses of the VM that were told, up to the last one."""
    told: list[str] = []
    name = f"|virt|VM_status|{vm_id}"
    while last not in told:
        heard = await session.wait_for_event(lambda e: e["method"] == name, 10)
        told.append(heard["params"][vm_id]["status"])
    return told


async def test_the_guest_runs_when_its_images_were_looked_at(tmp_path, ceph):
    vm_id = new_id()
    with plugs():
        async with running(tmp_path, **options(tmp_path)) as whole:
            ceph.whole, session = whole, await whole.client()
            await session.subscribe_events()
            await session.call("VM.create", params(vm_id, **UNCHECKED))
            told = await statuses(session, vm_id, "Up")
            assert set(told) <= {"WaitForLaunch", "Powering up", "Up"}
            assert ceph.states == [libvirt.VIR_DOMAIN_PAUSED]
            assert ceph.consents == [Consent(unchecked=True)]
            assert "starting" not in domain(whole, vm_id).XMLDesc()
            # A pause of the engine's is one.
            await session.call("VM.pause", {"vmID": vm_id})
            assert await statuses(session, vm_id, "Paused") == ["Paused"]
            await session.close()


async def test_one_that_is_to_start_paused_stays_so(tmp_path, ceph):
    vm_id = new_id()
    with plugs():
        async with running(tmp_path, **options(tmp_path)) as whole:
            ceph.whole, session = whole, await whole.client()
            await session.call("VM.create", params(vm_id, launchPaused=True))
            await until(lambda: status(whole, vm_id) == "Paused", "it did not start")
            assert ceph.states == [libvirt.VIR_DOMAIN_PAUSED]
            assert "starting" not in domain(whole, vm_id).XMLDesc()
            await session.close()


async def test_one_whose_image_another_has_opened_meanwhile_never_runs(tmp_path, ceph):
    vm_id, ceph.fault = (
        new_id(),
        CreateFailed("disk vda (volumes/x): the image is in use elsewhere"),
    )
    with plugs():
        async with running(tmp_path, **options(tmp_path)) as whole:
            ceph.whole, session = whole, await whole.client()
            await session.subscribe_events()
            await session.call("VM.create", params(vm_id))
            assert "Up" not in await statuses(session, vm_id, "Down")
            (stats,) = await session.call("VM.getStats", {"vmID": vm_id})
            assert f"VM {vm_id} could not be started: disk vda" in stats["exitMessage"]
            assert (stats["exitReason"], domain(whole, vm_id).isActive()) == (3, 0)
            await session.close()


@pytest.mark.parametrize("more, consent", [({}, NO_CONSENT), (UNCHECKED, Consent(unchecked=True))])
async def test_a_start_that_was_left_half_done_goes_on(tmp_path, ceph, more, consent):
    """As it is when the daemon was killed, or libvirt went away, while QEMU was there, paused."""
    vm_id, ceph.fault = new_id(), ConnectionLost("libvirt went away")
    with plugs():
        async with running(tmp_path, **options(tmp_path)) as whole:
            ceph.whole, session = whole, await whole.client()
            await session.subscribe_events()
            await session.call("VM.create", params(vm_id, **more))
            await until(lambda: whole.daemon._registry.get(vm_id).adrift, "it was not lost")
            ceph.fault = None
            await whole.daemon._watch.recover()
            told = await statuses(session, vm_id, "Up")
            assert set(told) <= {"WaitForLaunch", "Powering up", "Up"}
            assert ceph.consents[-1] == consent
            # What was let run is paused for good when it is paused, whoever reads it next.
            await session.call("VM.pause", {"vmID": vm_id})
            await whole.daemon._watch.recover()
            assert status(whole, vm_id) == "Paused"
            await session.close()
