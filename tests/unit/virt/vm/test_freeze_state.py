# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a guest stays frozen, whatever becomes of the clock and of the daemon meanwhile."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path

import pytest

from tests.faults import pluggable
from tests.unit.transport.serving import until
from tests.unit.whole import running
from vdsmcinder.virt.vm import guest_agent
from vdsmcinder.virt.vm.parts import freeze_state
from vdsmcinder.virt.vm.parts.freeze_state import Freezing, left_to_thaw_s, thaw_mark
from vdsmcinder.virt.vm.vm import VM

DAY_S = 86400
LIMIT_S = 3000


def left_s(freezing: Freezing) -> float:
    """In how many seconds the guest will be thawed."""
    assert freezing._timer is not None
    return freezing._timer.when() - asyncio.get_running_loop().time()


@pytest.mark.parametrize("step_s", [-DAY_S, DAY_S])
async def test_a_clock_that_is_stepped_does_not_change_when_a_guest_is_thawed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    async def asked(*_: object) -> None:
        """The test driver has no agent."""

    monkeypatch.setattr(guest_agent, "_ask", asked)
    vm_id = str(uuid.uuid4())
    plugs = pluggable.Plugs()
    plugs.install()
    try:
        async with running(tmp_path, **pluggable.host(tmp_path)) as whole:
            session = await whole.client()
            params = {"vmID": vm_id, "vmParams": pluggable.domain(vm_id)}
            await session.call("VM.create", params)
            vm: VM = whole.daemon._registry.get(vm_id)
            await until(lambda: vm.running and not vm.starting, "the VM did not start")
            snapshot = {"vmID": vm_id, "snapDrives": [], "freezeTimeout": LIMIT_S}
            await session.call("VM.snapshot", snapshot)
            # What a daemon that starts anew knows is what libvirt tells it.
            vm.freezing.end()
            now = time.time
            monkeypatch.setattr(time, "time", lambda: now() + step_s)
            await whole.daemon._watch.recover()
            assert 0 < left_s(vm.freezing) < LIMIT_S + 1
            monkeypatch.setattr(time, "time", now)
            await session.close()
    finally:
        plugs.uninstall()


def test_a_mark_says_when_on_this_boot_of_this_host_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    since_boot_s = 5000.25
    monkeypatch.setattr(time, "clock_gettime", lambda clock: since_boot_s)
    mark = thaw_mark(100)
    assert left_to_thaw_s(mark, 7) == 100
    since_boot_s += 60
    assert left_to_thaw_s(mark, 7) == 40
    since_boot_s += 60
    assert left_to_thaw_s(mark, 7) == 0
    # What is no such mark, one of a daemon before this one, and one of another host's.
    for other in ("", "soon", "1764307671", f"{mark}9999999999999", mark.replace(" ", "")):
        assert left_to_thaw_s(other, 7) == 7
    another = tmp_path / "boot_id"
    another.write_text("2b8e2a0c-6f3c-4d0e-9c57-5f0c7cf3a0ff\n")
    monkeypatch.setattr(freeze_state, "BOOT_ID", another)
    assert left_to_thaw_s(mark, 7) == 7
