# SPDX-License-Identifier: GPL-2.0-or-later
"""One VM never spoils what is told of the others, on libvirt's test driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.faults import pluggable
from tests.unit.virt.vm.test_registry import document, new_id
from tests.unit.whole import Whole, running
from vdsmcinder.errors import RemoteError
from vdsmcinder.rpc.wire import common, stats
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.vm.vm import VM

# What libvirt takes in a document and this daemon does not know.
ODD = (
    "<disk type='file'><driver name='qemu' type='vmdk'/><source file='/x'/>"
    "<target dev='vda'/></disk>",
    "<disk type='file'><source file='/x'/><target dev='vda' bus='virtio'/>"
    "<address type='pci' bus='0' slot='07'/></disk>",
    "<disk type='network'><source protocol='nbd' name='x'><host name='h'/></source>"
    "<target dev='vda'/></disk>",
    "<disk type='file'><driver name='qemu' type='raw' iothread='7'/><source file='/x'/>"
    "<target dev='vda'/></disk>",
    "<disk type='file'><driver name='qemu' type='qed'/><source file='/x'/>"
    "<target dev='vda'/></disk>",
)
REFUSED = (
    (
        "<disk type='file'><driver name='qemu' iothread='x'/><source file='/x'/>"
        "<target dev='vda'/></disk>",
        "driver.iothread is a string of 1 character",
    ),
    (
        "<disk type='file'><source file='/x'/><target dev='vda' bus='virtio'/>"
        "<address type='pci' slot='08'/></disk>",
        "address.slot is a string of 2 characters",
    ),
)


async def all_are_told(whole: Whole, expected: set[str]) -> dict[str, Any]:
    """Ask for all that is told of all VMs; the answers by verb."""
    session = await whole.client()
    answers = {
        "full": await session.call("Host.getVMFullList"),
        "list": await session.call("Host.getVMList", {"fullStatus": True}),
        "stats": await session.call("Host.getAllVmStats"),
    }
    for answer in answers.values():
        assert {told["vmId"] for told in answer} == expected
    assert (await session.call("Host.dumpxmls")).keys() == expected
    await session.call("Host.getAllVmIoTunePolicies")
    await session.close()
    return answers


async def test_vms_with_what_is_not_known_here_are_told_with_the_others(tmp_path: Path) -> None:
    good, odd = new_id(), {new_id(): disk for disk in ODD}
    documents = [
        pluggable.DOMAIN.format(uuid=vm_id).replace("<devices/>", f"<devices>{disk}</devices>")
        for vm_id, disk in odd.items()
    ]
    async with running(tmp_path, **pluggable.host(tmp_path, document(good))) as whole:
        session = await whole.client()
        for vm_id, xml in zip(odd, documents):
            await session.call("VM.create", {"vmID": vm_id, "vmParams": {"xml": xml}})
            await all_are_told(whole, {good, *list(odd)[: list(odd).index(vm_id) + 1]})
        bare = pluggable.DOMAIN.format(uuid=new_id())
        for disk, words in REFUSED:
            xml = bare.replace("<devices/>", f"<devices>{disk}</devices>").replace("<uuid>", "<!--")
            xml = xml.replace("</uuid>", "-->")
            with pytest.raises(RemoteError, match=words) as caught:
                await session.call("VM.create", {"vmID": new_id(), "vmParams": {"xml": xml}})
            assert caught.value.code == 91
        await session.close()
        _, health = await whole.health()
        assert health["reasons"] == []


async def test_a_vm_whose_document_is_a_riddle_is_in_health_and_the_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = new_id(), new_id()
    read = Domain.from_xml

    def from_xml(xml: str) -> Domain:
        if bad in xml:
            raise KeyError("vmdk")
        return read(xml)

    monkeypatch.setattr(Domain, "from_xml", from_xml)
    options = pluggable.host(tmp_path, document(bad), document(good))
    async with running(tmp_path, **options) as whole:
        await all_are_told(whole, {good})
        _, health = await whole.health()
        (reason,) = health["reasons"]
        assert bad in reason and "KeyError: 'vmdk'" in reason


async def test_a_vm_that_cannot_be_described_is_told_by_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = new_id(), new_id()
    definition, state = common.definition, stats._state

    def describe(vm: VM) -> dict[str, Any]:
        if vm.id == bad:
            raise KeyError("vmdk")
        return definition(vm)

    def describe_state(vm: VM) -> dict[str, Any]:
        if vm.id == bad:
            raise ValueError("07")
        return state(vm)

    options = pluggable.host(tmp_path, document(bad), document(good))
    async with running(tmp_path, **options) as whole:
        monkeypatch.setattr(common, "definition", describe)
        monkeypatch.setattr(stats, "_state", describe_state)
        answers = await all_are_told(whole, {bad, good})
        for answer in answers.values():
            whole_, short = sorted(answer, key=lambda told: told["vmId"] == bad)
            assert (short["vmId"], short["status"]) == (bad, "Up")
            assert len(whole_) > len(short)
