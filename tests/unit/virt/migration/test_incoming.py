# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said of a VM that comes, and of a source that is not heard of any more."""

from __future__ import annotations

import asyncio
import shlex
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import libvirt
import pytest

from vdsmcinder.client import arguments
from vdsmcinder.rpc.schema import schema
from vdsmcinder.virt.migration import incoming
from vdsmcinder.virt.migration.common.context import Counts
from vdsmcinder.virt.migration.incoming import Incoming
from vdsmcinder.virt.vm.migration import Handover

VM = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"
MIGRATION = "0b4f9c52-11d0-4b8e-8f5d-1c7e0a9d3b62"
COMES = (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED)
IS_WHOLE = (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)
ENDED = (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED)


def coming() -> Incoming:
    vm: Any = Mock(id=VM, wanted_exit=None)
    vm.name = "web"
    travel: Any = SimpleNamespace(
        counts=Counts(), tasks=Mock(spawn=lambda work, name: work.close())
    )
    return Incoming(vm, MIGRATION, Handover.CONFIRMED, "host1", travel, lambda vm_id: None)


async def timers_ran() -> None:
    """Return when those that are due by now have run."""
    due = asyncio.Event()
    asyncio.get_running_loop().call_later(0.0, due.set)
    await due.wait()


async def test_a_whole_copy_tells_what_to_do_when_its_source_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(incoming, "SILENT_S", 0.0)
    web = coming()
    web.lifecycle(*COMES)
    assert "VM.migrateCancel on the other host" in web.remedy
    web.lifecycle(*IS_WHOLE)
    assert "see that it is off" in web.remedy
    assert web.trouble == ""
    await timers_ran()
    assert web.trouble.startswith(f"VM {VM} (web) has come whole from host1 and stands still")
    words = shlex.split(web.trouble[web.trouble.index("vdsm-cinder call") :])
    verb = schema.load().verbs[words[2]]
    given = arguments.parameters(verb, words[3:])
    verb.values(given)
    assert given == {"vmID": VM, "params": {"verdict": "fenced"}}


async def test_nothing_is_told_of_a_copy_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "SILENT_S", 0.0)
    web = coming()
    for event in (COMES, IS_WHOLE, ENDED):
        web.lifecycle(*event)
    await timers_ran()
    assert web.trouble == ""
