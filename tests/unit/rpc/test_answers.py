# SPDX-License-Identifier: GPL-2.0-or-later
"""schema.yml tells which error codes each verb can answer; here they are collected from the code.

answers.py beside this reads them. What it cannot see, or sees and cannot come about, stands below
with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.unit import engine_parsing
from tests.unit.rpc.answers import Code
from tests.unit.rpc.source import Function
from vdsmcinder.ceph.fault_kinds import Kind
from vdsmcinder.errors import InvalidParams as WrongParams
from vdsmcinder.errors import (
    PeerUnreachable,
    Recovering,
    SecretUnregistrationFailed,
    Unexpected,
    UnsupportedOperation,
    VdsmCinderError,
)
from vdsmcinder.rpc.schema import schema
from vdsmcinder.rpc.schema.verb import Verb
from vdsmcinder.virt.vm.libvirt_errors import MEANINGS

CONTRACT = schema.load()
OF_QEMU = frozenset(meaning.error for meaning in MEANINGS if meaning.error is not None)
# Verbs that have QEMU open an image, or say what became of that; in what it says about others the
# patterns of libvirt_errors.MEANINGS do not occur.
OPENS_IMAGES = {
    "VM.create",
    "VM.hotplugDisk",
    "VM.changeCD",
    "VM.migrate",
    "VM.migrationCreate",
    "VM.diskSizeExtend",
}
INSTEAD: Mapping[Function, frozenset[type[VdsmCinderError]]] = {
    # Its table, for OPENS_IMAGES; what else it raises is named by who calls it.
    Function("vdsmcinder.virt.vm.libvirt_errors", None, "explain"): frozenset(),
    # Its table.
    Function("vdsmcinder.virt.storage.ceph_access", None, "error"): frozenset(
        kind.error for kind in Kind if kind.error is not None
    ),
    # They read what libvirt wrote, or what was read before.
    Function("vdsmcinder.virt.vm.vm", None, "described"): frozenset(),
    Function("vdsmcinder.virt.domain.metadata", None, "set_live"): frozenset(),
    Function("vdsmcinder.ceph.monitor_address", "MonitorHost", "__post_init__"): frozenset(),
}
CODE = Code(INSTEAD)
# Others of our secrets are only removed with clear, which a VM that comes does not have.
NEVER = {"VM.migrationCreate": {SecretUnregistrationFailed.code}}


def found(verb: Verb) -> set[int]:
    """The codes that a verb's handler and all that it calls may answer."""
    part, _, name = verb.name.partition(".")
    owner = {"Host": "HostVerbs", "VM": "VmVerbs"}[part]
    handler = Function(f"vdsmcinder.rpc.{part.lower()}", owner, name)
    raised = CODE.errors_of(handler) | (OF_QEMU if verb.name in OPENS_IMAGES else frozenset())
    codes = {error.code for error in raised} - NEVER.get(verb.name, set())
    if verb.name == "VM.migrate":
        # A task of its own tells it, through a future, what the other host said, or that none did.
        codes |= {PeerUnreachable.code} | found(CONTRACT.verbs["VM.migrationCreate"])
    return codes


def brought_along(verb: Verb) -> set[int]:
    """What method.py answers before a verb's handler is called, and for a fault in it."""
    codes = {Unexpected.code}
    if verb.params:
        codes.add(WrongParams.code)
    if verb.needs_vms:
        codes.add(Recovering.code)
    if verb.changes or verb.shows_secrets:
        codes.add(UnsupportedOperation.code)
    return codes


@pytest.mark.parametrize("verb", CONTRACT.served, ids=lambda verb: verb.name)
def test_the_schema_names_the_codes_that_a_verb_can_answer(verb: Verb) -> None:
    assert set(verb.codes) == found(verb) | brought_along(verb)


# What oVirt's engine has no name for is answered where VDSM answers it too, for the same reason: a
# kind of disk that is not served, policies and limits that are not set, malformed secrets and those
# that libvirt does not take, no migration to change, too many of them, memory that the guest keeps,
# a reset that fails; and JSON-RPC's own.
AS_VDSM = {36, 63, 64, 72, 73, 74, 81, 82, 85, 90, WrongParams.code}


@pytest.mark.parametrize("verb", CONTRACT.served, ids=lambda verb: verb.name)
def test_codes_are_those_that_ovirts_engine_knows_where_it_knows_one(verb: Verb) -> None:
    assert set(verb.codes) <= engine_parsing.KNOWN_CODES | AS_VDSM
    # The engine goes on with other VMs after the code that it knows for it.
    assert verb.name != "VM.migrateCancel" or 81 not in verb.codes


@pytest.mark.parametrize("verb", CONTRACT.served, ids=lambda verb: verb.name)
def test_the_schema_lists_what_is_a_verbs_own(verb: Verb) -> None:
    assert set(verb.errors) & brought_along(verb) == set()
    assert list(verb.errors) == sorted(set(verb.errors))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        # Raised by the handler, by what it calls, by an attribute's method, by what is handed on.
        ("Host.setLogLevel", 91),
        ("VM.pause", 51),
        ("Host.registerSecrets", 73),
        ("VM.setIoTune", 64),
        # By a property, and by one that a table names.
        ("VM.getInfo", 1),
        ("VM.create", 13),
    ],
)
def test_codes_are_found(name: str, code: int) -> None:
    assert code in found(CONTRACT.verbs[name])


@pytest.mark.parametrize(
    ("name", "code"),
    [
        # Caught and told as something else; left to a task; of a class that is only asked for.
        ("VM.snapshot", 76),
        ("VM.shutdown", 19),
        ("VM.getStats", 40),
    ],
)
def test_codes_of_others_are_not(name: str, code: int) -> None:
    assert code not in found(CONTRACT.verbs[name])
