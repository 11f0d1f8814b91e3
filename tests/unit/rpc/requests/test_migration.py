# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of VM.migrate, and what libvirt is told because of them."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from vdsmcinder.config import Migration
from vdsmcinder.errors import InvalidParameter, MissingParameter, UnsupportedOperation
from vdsmcinder.rpc.requests.migration import read_migration
from vdsmcinder.virt.migration.common import migration_job
from vdsmcinder.virt.vm.migration import Handover
from vdsmcinder.virt.vm.migration_request import Address, MigrationRequest

VM = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"


def request(options: Migration | None = None, **params: Any) -> MigrationRequest:
    return read_migration(VM, {"dst": "node2:54321", **params}, options or Migration())


@pytest.mark.parametrize(
    ("dst", "address", "shown"),
    [
        ("node2.example.com:54322", Address("node2.example.com", 54322), None),
        ("node2", Address("node2", 54321), "node2:54321"),
        ("10.0.0.2:1", Address("10.0.0.2", 1), None),
        ("[2001:db8::2]:54321", Address("2001:db8::2", 54321), None),
        ("2001:db8::2", Address("2001:db8::2", 54321), "[2001:db8::2]:54321"),
    ],
)
def test_where_to(dst: str, address: Address, shown: str | None) -> None:
    assert request(dst=dst).peer == address
    assert str(address) == (shown or dst)


@pytest.mark.parametrize(
    "dst",
    [
        *("node2:0", "node2:x", "node2:65536", "a b", "node/2", "node2:1:2"),
        *("node2..example.com", ".", "n" * 64, "node." * 60),
    ],
)
def test_what_is_no_host(dst: str) -> None:
    with pytest.raises(InvalidParameter, match=r"dst is .*; expected a host, or host:port"):
        request(dst=dst)


def test_without_a_destination() -> None:
    with pytest.raises(MissingParameter, match="dst is missing"):
        request(dst="")


def test_another_vm_than_the_request_is_about() -> None:
    with pytest.raises(InvalidParameter, match="vmId is"):
        request(vmId=VM.replace("5", "6"))


@pytest.mark.parametrize("way", [{"mode": "file"}, {"tunneled": True}, {"zerocopy": "true"}])
def test_ways_that_there_are_not(way: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedOperation, match="migration of VM"):
        request(**way)


def test_an_engine_that_says_nothing_gets_what_is_configured() -> None:
    options = Migration(outgoing_limit=3, max_bandwidth_mib_s=52, encryption="required")
    found = request(options)
    assert (found.outgoing_limit, found.max_bandwidth_mib_s, found.encrypted) == (3, 52, True)
    assert found.incoming_limit is None
    told = request(options, outgoingLimit=1, maxBandwidth=10, incomingLimit=4)
    assert (told.outgoing_limit, told.max_bandwidth_mib_s, told.incoming_limit) == (1, 10, 4)


@pytest.mark.parametrize(
    ("configured", "asked", "encrypted"),
    [("auto", None, None), ("auto", False, None), ("off", None, False), ("off", True, True)],
)
def test_encryption(configured: str, asked: bool | None, encrypted: bool | None) -> None:
    assert request(Migration(encryption=configured), encrypted=asked).encrypted is encrypted


@pytest.mark.parametrize(
    ("params", "flag"),
    [
        ({"autoConverge": True}, libvirt.VIR_MIGRATE_AUTO_CONVERGE),
        ({"compressed": True}, libvirt.VIR_MIGRATE_COMPRESSED),
        ({"parallel": 2}, libvirt.VIR_MIGRATE_PARALLEL),
    ],
)
def test_flags(params: dict[str, Any], flag: int) -> None:
    def flags(**given: Any) -> int:
        return migration_job.flags(request(**given), Handover.CONFIRMED, encrypted=False)

    assert flags(**params) == flags() | flag
    # The source's definition is the engine's to remove, and the copy is not to run by itself.
    assert not flags() & libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    assert flags() & libvirt.VIR_MIGRATE_PAUSED


def test_libvirt_s_parameters() -> None:
    wanted = request(dstqemu="2001:db8::2", maxBandwidth=52, parallel=2)
    assert migration_job.params(wanted, encrypted=True) == {
        libvirt.VIR_MIGRATE_PARAM_URI: "tcp://[2001:db8::2]",
        libvirt.VIR_MIGRATE_PARAM_TLS_DESTINATION: "node2",
        libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: 52,
        libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS: 2,
    }
    assert migration_job.params(request(), encrypted=False) == {
        libvirt.VIR_MIGRATE_PARAM_URI: "tcp://node2"
    }
