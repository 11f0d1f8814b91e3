# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of VM.migrate and VM.migrateChangeParams (contract/types.txt, MigrateParams)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsmcinder.config import Migration as MigrationOptions
from vdsmcinder.errors import UnsupportedOperation
from vdsmcinder.fields import BOOLEAN, UUID, Fields, choice, number
from vdsmcinder.virt.vm.convergence import Action, Deed, Schedule, Stalling
from vdsmcinder.virt.vm.migration_request import ADDRESS, HOST, MigrationRequest

_BANDWIDTH = number(0, 2**31 - 1)
_LIMIT = number(1, 2**16)
_PARALLEL = number(0, 255)
_DEED = choice(*(deed.value for deed in Deed))
_DOWNTIME_MS = number(1, 2_000_000)
_PASSES = number(-1, 2**31 - 1)
_ENCRYPTION: Mapping[str, bool | None] = {"auto": None, "required": True, "off": False}


def read_migration(
    vm_id: str, params: Mapping[str, Any], options: MigrationOptions
) -> MigrationRequest:
    """Read MigrateParams. Raises MissingParameter (11), InvalidParameter (91), and
    UnsupportedOperation (75) for ways to migrate that there are not."""
    fields = Fields(params, f"migration of VM {vm_id}")
    if fields.get("vmId", UUID) not in (None, vm_id):
        raise fields.invalid("vmId", f"the request's vmID, {vm_id}")
    peer = fields.need("dst", ADDRESS)
    _refuse_other_ways(fields)
    bandwidth = fields.get("maxBandwidth", _BANDWIDTH)
    encrypted = fields.get("encrypted", BOOLEAN)
    schedule = read_schedule(fields, options.max_downtime_ms)
    return MigrationRequest(
        peer=peer,
        data_host=fields.get("dstqemu", HOST) or peer.host,
        console_address=fields.get("consoleAddress", HOST),
        auto_converge=fields.get("autoConverge", BOOLEAN) or schedule.auto_converge,
        compressed=fields.get("compressed", BOOLEAN) or False,
        abort_on_error=fields.get("abortOnError", BOOLEAN) is not False,
        # Engines that have no wish say false, which is not to forbid it.
        encrypted=True if encrypted else _ENCRYPTION[options.encryption],
        connections=fields.get("parallel", _PARALLEL) or 0,
        max_bandwidth_mib_s=options.max_bandwidth_mib_s if bandwidth is None else bandwidth,
        schedule=schedule,
        outgoing_limit=fields.get("outgoingLimit", _LIMIT) or options.outgoing_limit,
        incoming_limit=fields.get("incomingLimit", _LIMIT),
    )


def read_bandwidth(vm_id: str, params: Mapping[str, Any]) -> int | None:
    """Read MigrationParameters: the new limit in MiB/s, 0 for none; None if it is to stay."""
    return Fields(params, f"migration of VM {vm_id}").get("maxBandwidth", _BANDWIDTH)


def _refuse_other_ways(fields: Fields) -> None:
    fields.get("method", choice("online"))
    if fields.get("mode", choice("remote", "file")) == "file":
        raise UnsupportedOperation(
            f"{fields.thing}: mode is 'file', but VMs are migrated to hosts alone; leave it out"
        )
    for name in ("tunneled", "zerocopy"):
        if fields.get(name, BOOLEAN):
            raise UnsupportedOperation(
                f"{fields.thing}: {name} is true, but QEMU's data goes from host to host by itself "
                "and is copied; leave it out, encrypted protects it"
            )


def read_schedule(fields: Fields, max_downtime_ms: int) -> Schedule:
    """Read convergenceSchedule of MigrateParams.

    max_downtime_ms: where it does not say. Raises MissingParameter, InvalidParameter.
    """
    given = fields.section("convergenceSchedule")
    init = [_read_action(action) for action in given.sections("init")]
    if any(action.deed is Deed.ABORT for action in init):
        raise fields.invalid("convergenceSchedule", "init without abort, which is for stalling")
    stalling = [
        Stalling(item.need("limit", _PASSES), _read_action(item.section("action")))
        for item in given.sections("stalling")
    ]
    if not init and not stalling:
        return Schedule.by_steps(max_downtime_ms)
    if not any(action.deed is Deed.SET_DOWNTIME for action in init):
        init.insert(0, Action(Deed.SET_DOWNTIME, max_downtime_ms))
    return Schedule(tuple(init), tuple(stalling))


def _read_action(action: Fields) -> Action:
    """Read a ConvergenceAction: its name, and its parameters as text."""
    deed = Deed(action.need("name", _DEED))
    if deed is not Deed.SET_DOWNTIME:
        return Action(deed)
    values = action.items("params", _DOWNTIME_MS)
    if len(values) != 1:
        raise action.invalid("params", "one number, the longest downtime in ms")
    return Action(deed, values[0])
