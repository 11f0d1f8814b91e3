# SPDX-License-Identifier: GPL-2.0-or-later
"""I/O limits: what a request asks for, what an engine's policy says, what the wire tells."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from lxml import etree

from tests.unit.rpc.test_wire import CONTRACT, XML, vm
from vdsmcinder.errors import InvalidParameter, MissingParameter
from vdsmcinder.rpc.requests.iotune import read_tunables
from vdsmcinder.rpc.wire import iotune
from vdsmcinder.virt.disk import iotune_policy
from vdsmcinder.virt.disk.iotune_policy import DevicePolicy
from vdsmcinder.virt.disk.tuning import IoTune
from vdsmcinder.virt.live.iotune import set_limits
from vdsmcinder.virt.vm.vm import VM

QOS = """
<metadata><t:qos xmlns:t='http://ovirt.org/vm/tune/1.0'><t:vcpuLimit>50</t:vcpuLimit><t:ioTune>
  <t:device name='vda' path=''>
    <t:guaranteed><t:total_iops_sec>50</t:total_iops_sec></t:guaranteed>
    <t:maximum><t:total_iops_sec>500</t:total_iops_sec><t:weight>7</t:weight>
      <t:read_bytes_sec>many</t:read_bytes_sec></t:maximum>
  </t:device>
  <t:device path='volumes/volume-2'/>
</t:ioTune></t:qos></metadata>
"""


def test_the_policy_in_the_metadata():
    assert iotune_policy.read(etree.fromstring(f"<domain>{QOS}</domain>")) == (
        DevicePolicy("vda", None, {"total_iops_sec": 50}, {"total_iops_sec": 500}),
        DevicePolicy(None, "volumes/volume-2"),
    )
    assert iotune_policy.read(etree.fromstring("<domain><metadata/></domain>")) == ()


def test_the_policy_on_the_wire():
    told = iotune.policy(vm(XML.replace("<metadata>", QOS[:-12], 1)))
    assert told == [
        {"name": "vda", "guaranteed": {"total_iops_sec": 50}, "maximum": {"total_iops_sec": 500}},
        {"path": "volumes/volume-2"},
    ]
    for policy in told:
        CONTRACT.type("IoTunePolicy").check(policy, "policy")


def test_the_limits_on_the_wire():
    values = {v["name"]: v for v in iotune.values(vm())}
    assert list(values) == ["vda", "sdb", "sdc"]
    assert values["vda"]["ioTune"]["read_iops_sec"] == 10
    assert set(values["sdc"]["ioTune"].values()) == {0}
    for value in values.values():
        CONTRACT.type("VmDiskDeviceTuneParams").check(value, "value")


def test_a_disk_is_meant_by_its_name_or_else_by_its_path():
    (drive, *_) = vm().domain.drives
    limits = {"ioTune": {"total_iops_sec": "5"}}
    for params, fits in (
        ({"name": "vda"}, True),
        ({"name": "vda", "path": "elsewhere"}, True),
        ({"name": "vdb", "path": "volumes/volume-1"}, False),
        ({"path": "volumes/volume-1"}, True),
        ({"path": "volumes/volume-2"}, False),
    ):
        (tunable,) = read_tunables([{**params, **limits}])
        assert tunable.fits(drive) is fits
        assert tunable.limits.limits == (("total_iops_sec", 5),)


def test_what_is_told_of_a_disk_means_the_disk():
    """Its path too, which is that of a snapshot where the disk is on one."""
    snapshot = "<snapshot name='s'/><host name='192.0.2.1'"
    this = vm(XML.replace("<host name='192.0.2.1'", snapshot, 1))
    for value, drive in zip(iotune.values(this), this.domain.drives):
        (tunable,) = read_tunables([{"path": value["path"], "ioTune": {"total_iops_sec": 5}}])
        assert [d for d in this.domain.drives if tunable.fits(d)] == [drive]
    assert iotune.values(this)[0]["path"] == "volumes/volume-1@s"


@pytest.mark.parametrize(
    ("before", "change", "after"),
    [
        ({}, {"total_iops_sec": 5}, {"total_iops_sec": 5}),
        # Of one kind libvirt keeps none that is not named, of others all.
        (
            {"read_iops_sec": 5, "write_iops_sec": 6, "read_bytes_sec": 7},
            {"total_iops_sec": 8},
            {"total_iops_sec": 8, "read_bytes_sec": 7},
        ),
        (
            {"total_iops_sec": 5, "size_iops_sec": 4096},
            {"total_iops_sec_max": 9, "total_iops_sec_max_length": 2},
            {
                **{"size_iops_sec": 4096, "total_iops_sec": 5, "total_iops_sec_max": 9},
                "total_iops_sec_max_length": 2,
            },
        ),
    ],
)
def test_limits_that_are_set_beside_those_in_force(before, change, after):
    limits = IoTune(tuple(sorted(before.items())), "g")
    becomes = limits.changed_by(IoTune(tuple(sorted(change.items()))))
    assert (dict(becomes.limits), becomes.group) == (after, "g")
    assert becomes.refusal() is None


def test_a_disk_without_limits_is_in_no_group():
    limits = IoTune((("total_iops_sec", 5),), "g")
    lifted = limits.changed_by(IoTune((("total_iops_sec", 0),)))
    assert (lifted.group, lifted.refusal()) == (None, None)
    grouped = lifted.changed_by(IoTune((), "g")).refusal()
    assert grouped is not None
    assert grouped.limit == "group_name"


class Limited(SimpleNamespace):
    """As much of a VM as setIoTune looks at; each call of libvirt's is remembered."""

    def __init__(self, iotune_xml: str) -> None:
        xml = XML.replace("<iotune>", f"<iotune>{iotune_xml}", 1)
        super().__init__(id="v", domain=vm(xml).domain, lock=asyncio.Lock(), calls=[])

    def require_running(self, doing: str) -> None:
        pass

    async def call(self, _func: object, target: str, values: dict[str, int]) -> None:
        self.calls.append((target, values))

    async def refresh(self) -> None:
        pass


@pytest.mark.parametrize(
    ("tunables", "words"),
    [
        # In force are read_iops_sec 10, read_iops_sec_max 20, and size_iops_sec 4096.
        ([{"total_iops_sec_max": 9}], "ioTune.total_iops_sec_max is 9; expected 0, or total_iops"),
        (
            [{"read_iops_sec": 21}],
            "ioTune.read_iops_sec_max is 20; expected at least read_iops_sec",
        ),
        (
            [{"read_iops_sec": 0, "read_iops_sec_max": 0}],
            "ioTune.size_iops_sec is 4096; expected 0",
        ),
        ([{"total_iops_sec": 5}], "ioTune.read_iops_sec_max is 20; expected 0, or read_iops_sec"),
        ([{"read_iops_sec": 15}, {"read_iops_sec_max": 14}], "read_iops_sec_max is 14"),
    ],
)
async def test_limits_that_do_not_go_with_those_in_force(tunables, words):
    this = Limited("<size_iops_sec>4096</size_iops_sec>")
    wanted = [{"name": "sdc", "ioTune": {"total_iops_sec": 7}}]
    wanted += [{"name": "vda", "ioTune": limits} for limits in tunables]
    with pytest.raises(InvalidParameter) as caught:
        await set_limits(cast(VM, this), read_tunables(wanted))
    assert words in caught.value.message
    assert "disk vda (volumes/volume-1) of VM v, which is as it was" in caught.value.message
    assert this.calls == []


async def test_a_group_of_a_disk_without_limits():
    this = Limited("")
    (tunable,) = read_tunables([{"name": "sdc", "ioTune": {"group_name": "g"}}])
    with pytest.raises(InvalidParameter) as caught:
        await set_limits(cast(VM, this), (tunable,))
    assert "ioTune.group_name is a string of 1 character; expected none" in caught.value.message
    assert this.calls == []


async def test_limits_that_go_with_those_in_force():
    this = Limited("")
    limits = {"read_iops_sec_max": 40, "read_iops_sec_max_length": 3}
    await set_limits(cast(VM, this), read_tunables([{"name": "vda", "ioTune": limits}]))
    assert this.calls == [("vda", limits)]


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"ioTune": {"total_iops_sec": 5}}, MissingParameter, "tunables[2].name is missing"),
        ({"name": "vda", "ioTune": {}}, MissingParameter, "tunables[2].ioTune is missing"),
        ({"name": "vda", "ioTune": {"x": 5}}, InvalidParameter, "tunables[2].ioTune.x is 5"),
        ([], InvalidParameter, "tunables[2] is a list of 0; expected an object"),
    ],
)
def test_refused(params, error, words):
    with pytest.raises(error) as caught:
        read_tunables([*[{"name": "vda", "ioTune": {"total_iops_sec": 5}}] * 2, params])
    assert words in caught.value.message
