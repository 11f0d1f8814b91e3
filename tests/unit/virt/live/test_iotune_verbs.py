# SPDX-License-Identifier: GPL-2.0-or-later
"""I/O limits: what a request asks for, what an engine's policy says, what the wire tells."""

from __future__ import annotations

import pytest
from lxml import etree

from tests.unit.rpc.test_wire import CONTRACT, XML, vm
from vdsmcinder.errors import InvalidParameter, MissingParameter
from vdsmcinder.rpc.requests.iotune import read_tunables
from vdsmcinder.rpc.wire import iotune
from vdsmcinder.virt.disk import iotune_policy
from vdsmcinder.virt.disk.iotune_policy import DevicePolicy

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


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"ioTune": {"total_iops_sec": 5}}, MissingParameter, "tunables[2].name is missing"),
        ({"name": "vda", "ioTune": {}}, MissingParameter, "tunables[2].ioTune is missing"),
        ({"name": "vda", "ioTune": {"x": 5}}, InvalidParameter, "tunables[2].ioTune.x is 5"),
        ([], InvalidParameter, "tunables[2] is []; expected an object"),
    ],
)
def test_refused(params, error, words):
    with pytest.raises(error) as caught:
        read_tunables([*[{"name": "vda", "ioTune": {"total_iops_sec": 5}}] * 2, params])
    assert words in caught.value.message
