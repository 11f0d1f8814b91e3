# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that is plugged into a running VM and unplugged, with libvirt's test driver."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from tests.faults import pluggable
from tests.unit.virt.domain.test_create_request import flat, request
from tests.unit.whole import running
from vdsmcinder.errors import InvalidParameter, MissingParameter, RemoteError, VdsmCinderError
from vdsmcinder.rpc.requests.memory import read_plug, read_unplug
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.vm.status import Status

ID = "0d9c1f5e-7a57-4b8b-9b59-6f0f7d0f8a11"
XML = """<hotplug><devices><memory model='dimm'>
  <target><size unit='KiB'>131072</size><node>0</node></target><alias name='ua-x'/>
</memory></devices></hotplug>"""
# As oVirt's engine sends it.
DESCRIBED = {
    "memGuaranteedSize": 300,
    "memory": {"type": "memory", "device": "memory", "size": 128, "node": 0, "deviceId": ID},
}


def test_a_description_and_xml_come_to_the_same() -> None:
    described, given = read_plug(DESCRIBED), read_plug({"xml": XML})
    assert etree.tostring(described.device).decode() == (
        '<memory model="dimm"><target><size unit="MiB">128</size><node>0</node></target>'
        f'<alias name="ua-{ID}"/></memory>'
    )
    assert (described.guaranteed_mib, given.guaranteed_mib) == (300, None)
    assert given.device.findtext("target/size") == "131072"
    assert read_unplug(DESCRIBED).alias == f"ua-{ID}"
    assert read_unplug({"memory": {"alias": "dimm0"}}).alias == "dimm0"
    assert read_unplug({"xml": XML}).alias == "ua-x"


@pytest.mark.parametrize(
    ("read", "params", "error", "words"),
    [
        (read_plug, {}, MissingParameter, "xml is missing"),
        (read_plug, {"memory": {"node": 1}}, MissingParameter, "memory.size is missing"),
        (read_plug, {"memory": {"size": "0"}}, InvalidParameter, "memory.size is a string of 1"),
        (read_plug, {"xml": "<hotplug/>"}, InvalidParameter, "holds 0 memorys"),
        (read_plug, {"xml": XML.replace("ua-x", "ua-x.y")}, InvalidParameter, "alias.name is"),
        (read_unplug, {"memory": {"size": 128}}, MissingParameter, "alias is missing"),
        (read_unplug, {"xml": "<memory/>"}, MissingParameter, "alias is missing"),
    ],
)
def test_refused(read: Any, params: Any, error: type[VdsmCinderError], words: str) -> None:
    with pytest.raises(error) as caught:
        read(params)
    assert words in caught.value.message


def test_a_vm_that_is_described_with_room_for_memory_has_slots_and_a_node() -> None:
    xml = request(flat(memSize=512, maxMemSize=2048, maxMemSlots=4, smp=2)).xml
    root = etree.fromstring(xml)
    (cell,) = root.iterfind("cpu/numa/cell")
    assert (cell.get("cpus"), cell.get("memory"), cell.get("unit")) == ("0-1", "512", "MiB")
    domain = Domain.from_xml(xml)
    assert (domain.max_memory_mib, domain.memory_slots, domain.memory_mib) == (2048, 4, 512)
    without = Domain.from_xml(request(flat(memSize=512, maxMemSize=512)).xml)
    assert (without.max_memory_mib, without.memory_slots) == (None, 0)
    with pytest.raises(InvalidParameter, match="maxMemSize is 256; expected at least memSize"):
        request(flat(memSize=512, maxMemSize=256))


async def test_memory_comes_and_goes(tmp_path: Path) -> None:
    vm_id, without = str(uuid.uuid4()), str(uuid.uuid4())
    roomy = pluggable.DOMAIN.format(uuid=vm_id).replace(
        "<os>", "<maxMemory slots='4' unit='MiB'>256</maxMemory><os>"
    )
    plugs = pluggable.Plugs()
    plugs.install()
    try:
        async with running(tmp_path, **pluggable.host(tmp_path)) as whole:
            session = await whole.client()

            async def call(verb: str, vm: str = vm_id, **params: Any) -> Any:
                return await session.call(f"VM.{verb}", {"vmID": vm, **params})

            async def plugged() -> list[str]:
                xml = (await session.call("Host.dumpxmls", {"vmList": [vm_id]}))[vm_id]
                found = etree.fromstring(xml).iterfind("devices/memory/alias")
                return [str(alias.get("name")) for alias in found]

            await call("create", vmParams={"vmId": vm_id, "xml": roomy})
            await call("create", without, vmParams=pluggable.domain(without))
            find = whole.daemon._registry.find
            for vm in map(find, (vm_id, without)):
                assert vm is not None
                await vm.wait_while(Status.WAIT_FOR_LAUNCH)
            info = await call("hotplugMemory", params=DESCRIBED)
            assert (info["maxMemSize"], info["maxMemSlots"]) == (256, 4)
            assert info["memGuaranteedSize"] == 300
            assert await plugged() == [f"ua-{ID}"]
            with pytest.raises(RemoteError, match="no slots for memory") as refused:
                await call("hotplugMemory", without, params=DESCRIBED)
            assert refused.value.code == 70
            assert await call("hotunplugMemory", params=DESCRIBED) is True
            assert await plugged() == []
            with pytest.raises(RemoteError, match="no device has alias") as refused:
                await call("hotunplugMemory", params=DESCRIBED)
            assert refused.value.code == 85
            await session.close()
    finally:
        plugs.uninstall()
