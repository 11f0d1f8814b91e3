# SPDX-License-Identifier: GPL-2.0-or-later
"""The balloon's target, with libvirt's test driver: what it cannot be is told with what it can."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.unit.transport.serving import until
from tests.unit.virt.domain.test_create_request import flat
from tests.unit.whole import running
from vdsmcinder.errors import RemoteError
from vdsmcinder.virt.vm.status import Status


async def test_targets_that_it_cannot_have(tmp_path: Path) -> None:
    vm_id = str(uuid.uuid4())
    async with running(tmp_path, vms={"allow_emulation": True}) as whole:
        client = await whole.client()
        await client.call("VM.create", {"vmID": vm_id, "vmParams": flat(kvmEnable="false")})
        vm = whole.daemon._registry.get(vm_id)
        await until(lambda: vm.status in (Status.UP, Status.POWERING_UP), "the VM does not run")
        for target, code, words in (
            (0, 56, "could not be told to leave 0 KiB, with which no guest runs; ask for 1 to "),
            (262145, 56, "higher than max memory; ask for 1 to 262144 KiB, which is what it has"),
            (2**63 - 1, 56, "; ask for 1 to 262144 KiB"),
            (2**63, -32602, "target is a number; expected a whole number"),
            (10**40, -32602, "target is a number; expected a whole number"),
        ):
            with pytest.raises(RemoteError) as caught:
                await client.call("VM.setBalloonTarget", {"vmID": vm_id, "target": target})
            assert caught.value.code == code, target
            assert words in caught.value.message
        await client.call("VM.setBalloonTarget", {"vmID": vm_id, "target": 262144})
