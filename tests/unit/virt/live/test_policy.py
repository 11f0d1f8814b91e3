# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy of a VM: what is read and kept of it in the metadata, and what is put in force."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, Callable

import libvirt
import pytest
from lxml import etree

from tests.refusals import libvirt_error
from tests.unit.rpc.test_wire import DISK, XML
from vdsmcinder.errors import InvalidParameter, MissingParameter, PolicyFailed, VdsmCinderError
from vdsmcinder.rpc.requests.policy import read_policy
from vdsmcinder.virt.domain import policy as metadata
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.live import policy
from vdsmcinder.virt.vm import cpu_limit

NAMESPACE = "http://ovirt.org/vm/tune/1.0"
# As libvirt gives it of a domain that was defined with a prefix: the children have none.
KNOWN = f"""<ovirt-tune:qos xmlns:ovirt-tune='{NAMESPACE}'>
  <vcpuLimit>50</vcpuLimit><other>7</other>
  <ioTune>
    <device name='vda' path='volumes/volume-1'>
      <maximum><total_iops_sec>9</total_iops_sec></maximum></device>
    <device name='vdb'><maximum><total_iops_sec>8</total_iops_sec></maximum></device>
  </ioTune>
</ovirt-tune:qos>"""
LIMITS = {"read_bytes_sec": 100, "write_bytes_sec": "0"}
# As oVirt's engine asks for it.
ASKED = {
    "vmId": "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d",
    "vcpuLimit": "25",
    "ioTune": [
        {
            **dict.fromkeys(("domainID", "poolID", "volumeID"), None),
            "imageID": DISK.upper(),
            "maximum": LIMITS,
            "guaranteed": LIMITS,
        }
    ],
}


class LibvirtDomain:
    """A running domain of libvirt's; what cannot be done raises what libvirt raises."""

    def __init__(self, element: str | None = None, refuses: str = "") -> None:
        self.element, self._refuses = element, refuses
        self.done: list[tuple[Any, ...]] = []

    def XMLDesc(self) -> str:
        return XML

    def metadata(self, *_: Any) -> str:
        if self.element is None:
            raise libvirt_error("no metadata", libvirt.VIR_ERR_NO_DOMAIN_METADATA)
        return self.element

    def setMetadata(self, _kind: int, element: str, prefix: str, uri: str, flags: int) -> None:
        assert (prefix, uri) == ("ovirt-tune", NAMESPACE)
        self._do("metadata", flags)
        self.element = element

    def setSchedulerParametersFlags(self, values: dict[str, int], flags: int) -> None:
        self._do("schedule", flags, values)

    def setBlockIoTune(self, target: str, values: dict[str, int], flags: int) -> None:
        self._do("limit", flags, target, values)

    def _do(self, what: str, flags: int, *more: Any) -> None:
        assert flags == libvirt.VIR_DOMAIN_AFFECT_LIVE
        if what == self._refuses:
            raise libvirt_error("cgroup CPU controller is not mounted")
        self.done.append((what, *more))


class Vm(SimpleNamespace):
    """A VM of two processors with disk vda, which the engine calls DISK."""

    id, name = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d", "web"

    def __init__(self, libvirts: LibvirtDomain, xml: str = XML) -> None:
        super().__init__(domain=Domain.from_xml(xml), lock=asyncio.Lock(), libvirts=libvirts)

    def require_running(self, _doing: str) -> None: ...

    async def call(self, func: Callable[..., Any], *args: Any) -> Any:
        return func(self.libvirts, *args)

    def take(self, _document: Any) -> None: ...

    async def refresh(self) -> None: ...


def with_policy(qos: str, cputune: str = "") -> Domain:
    return Domain.from_xml(XML.replace("<metadata>", f"{cputune}<metadata>{qos}", 1))


def test_a_domain_s_limit_and_what_is_in_force() -> None:
    cputune = "<cputune><period>100000</period><quota>-1</quota></cputune>"
    assert with_policy(KNOWN, cputune).cpu_limit == metadata.CpuLimit(50, 100000, -1)
    assert with_policy(KNOWN.replace("50", "0")).cpu_limit == metadata.CpuLimit(None, None, None)
    assert with_policy(KNOWN.replace("50", "all")).cpu_limit.limit_pct is None
    assert with_policy("").cpu_limit.limit_pct is None


@pytest.mark.parametrize("known", [None, KNOWN])
def test_what_is_changed_is_read_back_and_the_rest_is_kept(known: str | None) -> None:
    change = read_policy(ASKED)
    domain = Domain.from_xml(XML)
    devices = [disk.of(domain.drives[0]) for disk in change.disks]
    written = metadata.changed(known, change.limit_pct, devices)
    # libvirt puts the root into our namespace.
    found = with_policy(written.replace("<qos", f"<qos xmlns='{NAMESPACE}'", 1))
    assert found.cpu_limit.limit_pct == 25
    policies = {device.name: device for device in found.io_tune_policy}
    limits = {"read_bytes_sec": 100, "write_bytes_sec": 0}
    assert (policies["vda"].maximum, policies["vda"].guaranteed) == (limits, limits)
    assert policies["vda"].path == "volumes/volume-1"
    assert policies.keys() == ({"vda"} if known is None else {"vda", "vdb"})
    assert (known is None) == ("other" not in written)
    assert etree.fromstring(metadata.changed(written, None)).findtext("vcpuLimit") == "25"


@pytest.mark.parametrize(
    ("limit_pct", "host_cpus", "vcpus", "quota"),
    [
        (None, 8, 2, -1),
        (0, 8, 2, -1),
        # Half of eight processors are four, more than two virtual ones can use.
        (50, 8, 2, -1),
        (25, 8, 2, -1),
        (20, 8, 2, 80_000),
        (50, 8, 8, 50_000),
        (100, 2, 4, 50_000),
        (1, 1, 64, 1000),
    ],
)
def test_quota(limit_pct: int | None, host_cpus: int, vcpus: int, quota: int) -> None:
    assert cpu_limit.quota_us(limit_pct, host_cpus, vcpus) == quota


async def test_a_policy_is_put_in_force_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    libvirts = LibvirtDomain()
    vm: Any = Vm(libvirts)
    await policy.change(vm, read_policy(ASKED))
    assert libvirts.done == [
        ("limit", "vda", {"read_bytes_sec": 100, "write_bytes_sec": 0}),
        ("schedule", {"vcpu_period": 100_000, "vcpu_quota": 50_000}),
        ("metadata",),
    ]
    assert "<vcpuLimit>25</vcpuLimit>" in str(libvirts.element)
    await policy.change(vm, read_policy({"vcpuLimit": 0}))
    assert libvirts.done[3] == ("schedule", {"vcpu_period": 100_000, "vcpu_quota": -1})


@pytest.mark.parametrize("refuses", ["limit", "schedule", "metadata"])
async def test_what_libvirt_refuses_is_told_and_not_kept(refuses: str) -> None:
    libvirts = LibvirtDomain(KNOWN, refuses)
    vm: Any = Vm(libvirts)
    with pytest.raises(PolicyFailed, match="CPU controller is not mounted"):
        await policy.change(vm, read_policy(ASKED))
    assert libvirts.element == KNOWN


async def test_nothing_is_changed_for_a_disk_that_is_not_there() -> None:
    libvirts = LibvirtDomain()
    vm: Any = Vm(libvirts)
    disks = [*ASKED["ioTune"], {"name": "vdz", "maximum": LIMITS}]
    with pytest.raises(PolicyFailed, match=r"no disk of name vdz; its disks are: vda \(volumes"):
        await policy.change(vm, read_policy({**ASKED, "ioTune": disks}))
    assert libvirts.done == []


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({}, MissingParameter, "vcpuLimit is missing"),
        ({"vcpuLimit": "-1"}, InvalidParameter, "vcpuLimit is a string of 2"),
        ({"ioTune": [{"maximum": LIMITS}]}, MissingParameter, "ioTune[0].name is missing"),
        ({"ioTune": [{"name": "vda"}]}, MissingParameter, "ioTune[0].maximum is missing"),
        ({"ioTune": [{"name": "vda", "maximum": {"x": 1}}]}, InvalidParameter, "maximum.x is 1"),
    ],
)
def test_refused(asked: dict[str, Any], error: type[VdsmCinderError], words: str) -> None:
    with pytest.raises(error) as caught:
        read_policy(asked)
    assert words in caught.value.message


async def test_a_vm_that_begins_to_run_keeps_to_its_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    limited = XML.replace("<metadata>", f"<metadata>{KNOWN}", 1)
    libvirts = LibvirtDomain()
    vm: Any = Vm(libvirts, limited)
    await cpu_limit.enforce(vm)
    assert libvirts.done == [("schedule", {"vcpu_period": 100_000, "vcpu_quota": 50_000})]
    unlimited: Any = Vm(LibvirtDomain())
    await cpu_limit.enforce(unlimited)
    assert unlimited.libvirts.done == []
    # A host without that controller runs it all the same.
    vm = Vm(LibvirtDomain(refuses="schedule"), limited)
    await cpu_limit.enforce(vm)
    assert "web may use more than the 50 % of the host's processors" in caplog.text
