# SPDX-License-Identifier: GPL-2.0-or-later
"""The schema: that schema.yml holds together, what it takes and refuses, and docs/api.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsmcinder import errors
from vdsmcinder.errors import InvalidParams
from vdsmcinder.fields import kind_of
from vdsmcinder.rpc.schema import apidoc, schema
from vdsmcinder.rpc.schema.schema import SchemaError
from vdsmcinder.rpc.schema.types import BUILTIN, Mismatch

ROOT = Path(__file__).parents[3]
UUID = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"

CONTRACT = schema.load()

# The verbs of the contract, with their parameters in order.
VERBS = {
    "Host.ping": "",
    "Host.ping2": "",
    "Host.echo": "message",
    "Host.getCapabilities": "",
    "Host.getHardwareInfo": "",
    "Host.getStats": "",
    "Host.getVMList": "fullStatus vmList onlyUUID",
    "Host.getVMFullList": "vmList",
    "Host.getAllVmStats": "",
    "Host.getAllVmIoTunePolicies": "",
    "Host.dumpxmls": "vmList",
    "Host.setLogLevel": "level name",
    "Host.setMOMPolicyParameters": "key_value_store",
    "Host.hostdevListByCaps": "caps",
    "Host.setSafeNetworkConfig": "",
    "Host.registerSecrets": "secrets clear",
    "Host.unregisterSecrets": "uuids",
    "VM.create": "vmID vmParams",
    "VM.destroy": "vmID gracefulAttempts",
    "VM.shutdown": "vmID delay message reboot timeout force",
    "VM.reset": "vmID",
    "VM.pause": "vmID",
    "VM.cont": "vmID",
    "VM.getStats": "vmID",
    "VM.getInfo": "vmID",
    "VM.hotplugDisk": "vmID params",
    "VM.hotunplugDisk": "vmID params",
    "VM.hotplugNic": "vmID params",
    "VM.hotunplugNic": "vmID params",
    "VM.updateDevice": "vmID params",
    "VM.changeCD": "vmID driveSpec",
    "VM.diskSizeExtend": "vmID driveSpecs newSize",
    "VM.setIoTune": "vmID tunables",
    "VM.getIoTune": "vmID",
    "VM.getIoTunePolicy": "vmID",
    "VM.freeze": "vmID",
    "VM.thaw": "vmID",
    "VM.snapshot": "vmID snapDrives snapMemory frozen freezeTimeout freeze_timeout jobUUID timeout",
    "VM.setNumberOfCpus": "vmID numberOfCpus",
    "VM.setBalloonTarget": "vmID target",
    "VM.hotplugMemory": "vmID params",
    "VM.hotunplugMemory": "vmID params",
    "VM.updateVmPolicy": "vmID params",
    "VM.setDestroyOnReboot": "vmID",
    "VM.getExternalData": "vmID kind lastHash forceUpdate",
    "VM.setTicket": "vmID password ttl existingConnAction params",
    "VM.screenshot": "vmID",
    "VM.migrate": "vmID params",
    "VM.migrationCreate": "vmID params incomingLimit",
    "VM.migrateCancel": "vmID",
    "VM.getMigrationStatus": "vmID",
    "VM.migrateChangeParams": "vmID params",
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_of_the_contract_is_declared(verb):
    assert [p.name for p in CONTRACT.verbs[verb].params] == VERBS[verb].split()


OURS = {
    *("Host.getSecrets", "Host.checkDisk", "VM.checkDisks"),
    *("VM.migrationConclude", "VM.migrationKept"),
}


def test_what_is_not_of_the_contract_is_marked_ours():
    ours = {v.name for v in CONTRACT.verbs.values() if v.ours}
    assert ours == CONTRACT.verbs.keys() - VERBS.keys() == OURS


def test_error_codes_are_those_of_errors_py():
    known = {cls.code for cls in errors.VdsmCinderError.__subclasses__()}
    for verb in CONTRACT.verbs.values():
        assert set(verb.errors) <= known, verb.name


def test_verbs_that_carry_keys_are_secret():
    secret = {v.name for v in CONTRACT.verbs.values() if v.is_secret}
    assert secret >= {"Host.registerSecrets", "VM.create", "VM.setTicket", "VM.migrationCreate"}


def test_api_page_is_not_stale():
    written = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert written == apidoc.page(CONTRACT), "docs/api.md is stale; run make api"


# Parameters


def values(verb, **given):
    return CONTRACT.verbs[verb].values(given)


def test_defaults_are_filled_in():
    assert values("Host.getVMList") == (False, [], False)
    assert values("VM.destroy", vmID=UUID) == (UUID, 1)
    assert values("VM.shutdown", vmID=UUID) == (UUID, 0, "", False, None, False)


def test_null_is_absent_where_a_parameter_is_optional():
    assert values("VM.shutdown", vmID=UUID, timeout=None, delay=None)[1] == 0


@pytest.mark.parametrize(
    ("verb", "given", "index", "expected"),
    [
        ("VM.shutdown", {"vmID": UUID, "delay": "30"}, 1, 30),
        ("VM.shutdown", {"vmID": UUID, "delay": 30}, 1, 30),
        ("VM.shutdown", {"vmID": UUID, "reboot": "true"}, 3, True),
        ("VM.shutdown", {"vmID": UUID, "reboot": "False"}, 3, False),
        ("VM.getInfo", {"vmID": UUID.upper()}, 0, UUID),
        ("Host.dumpxmls", {"vmList": [UUID.upper()]}, 0, [UUID]),
        ("VM.create", {"vmID": UUID, "vmParams": {"memSize": "1"}}, 1, {"memSize": "1"}),
    ],
)
def test_what_engines_send_is_converted_once(verb, given, index, expected):
    assert values(verb, **given)[index] == expected


@pytest.mark.parametrize(
    ("verb", "given", "words"),
    [
        ("VM.create", {"vmID": UUID}, "parameter vmParams is missing"),
        ("VM.create", {"vmParams": {}}, "parameter vmID is missing"),
        ("VM.getInfo", {"vmID": "x"}, "vmID is a string of 1 character; expected a UUID"),
        ("VM.getInfo", {"vmID": 7}, "vmID is a number; expected a UUID"),
        ("VM.getInfo", {"vmID": None}, "vmID is null; expected a UUID"),
        ("VM.create", {"vmID": UUID, "vmParams": [1]}, "vmParams is a list of 1; expected an obj"),
        ("VM.shutdown", {"vmID": UUID, "delay": "soon"}, "delay is a string of 4 characters"),
        ("VM.shutdown", {"vmID": UUID, "delay": -1}, "expected a whole number that is not neg"),
        ("VM.shutdown", {"vmID": UUID, "delay": True}, "delay is a boolean; expected a whole"),
        ("VM.shutdown", {"vmID": UUID, "force": 1}, "force is a number; expected true or false"),
        ("VM.shutdown", {"vmID": UUID, "message": {}}, "message is an object with 0 members"),
        ("Host.dumpxmls", {"vmList": [UUID, 1]}, r"vmList\[1\] is a number; expected a UUID"),
        ("Host.setLogLevel", {"level": "LOUD"}, "expected one of: DEBUG, INFO, WARNING, ERROR"),
        ("Host.registerSecrets", {"secrets": {}}, "secrets is an object with 0 members; expected"),
    ],
)
def test_what_does_not_fit_is_named(verb, given, words):
    with pytest.raises(InvalidParams, match=words) as caught:
        values(verb, **given)
    assert caught.value.code == -32602
    assert caught.value.data["parameter"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None)
@given(st.sampled_from(CONTRACT.served), st.data())
def test_any_parameters_are_taken_or_refused_and_never_quoted(verb, data):
    key = "AQBnYW5kYWxmIHRoZSBncmV5IHdhcyBoZXJl"
    names = [p.name for p in verb.params]
    given = data.draw(st.dictionaries(st.sampled_from(names or ["x"]), st.just(key) | json_values))
    try:
        assert len(verb.values(given)) == len(names)
    except InvalidParams as e:
        assert key not in e.message + repr(e.data)


@settings(deadline=None)
@given(json_values)
def test_a_value_is_shown_by_kind_alone(value):
    for name, kind in BUILTIN.items():
        if name in ("string", "any", "Password", "map"):
            assert kind.shown(value) == kind_of(value)


# Types


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("VmExitCode", 1),
        ("VmStatus", "Powering up"),
        ("VmInfo", UUID),
        ("VmInfo", {"vmId": UUID, "status": "Up"}),
        ("StringMap", {"a": "b"}),
        ("VmSharedDriveType", False),
        ("PathStatsMap", {"/": {"free": "1"}}),
    ],
)
def test_results_that_fit(kind, value):
    CONTRACT.type(kind).check(value, "result")


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("VmExitCode", True, "one of: 0, 1"),
        ("VmStatus", "up", "is a string of 2 characters; expected one of"),
        ("VmShortStatus", {"vmId": UUID}, r"result\.status is missing"),
        ("VmShortStatus", {"vmId": UUID, "status": "Up", "x": 1}, "no such member"),
        ("PathStats", {"free": 1}, r"result\.free is a number; expected a string"),
        ("VmInfo", 7, "expected one of: VmDefinition"),
        ("uint", "7", "is a string of 1 character"),
        ("uint", 2**63, "expected a whole number that is not negative, of 64 bits"),
        ("int", -(2**63) - 1, "expected a whole number of 64 bits"),
        ("long", 10**40, "expected a whole number of 64 bits"),
        ("boolean", "true", "expected true or false"),
        ("UUID", UUID[:-1], "a UUID"),
    ],
)
def test_results_are_checked_strictly(kind, value, words):
    with pytest.raises(Mismatch, match=words):
        CONTRACT.type(kind).check(value, "result")


# schema.yml itself


def verb_yaml(more, types="{}"):
    return f"verbs: {{A.b: {{description: d, result: string, {more}}}}}\ntypes: {types}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (verb_yaml("paramz: []"), "A.b: unknown key paramz; known are"),
        (verb_yaml("params: [{name: x, type: Nope, description: d}]"), "type Nope is not defined"),
        (verb_yaml("params: [{name: x, kind: string}]"), "parameter x: unknown key kind"),
        (verb_yaml("params: [{name: x, type: [a, b], description: d}]"), "is not a type"),
        (verb_yaml("", "{T: {object: {a: Nope}}}"), "T.a: type Nope is not defined"),
        (verb_yaml("", "{T: {}}"), "T: a type has one of"),
    ],
)
def test_a_schema_that_does_not_hold_together_is_refused(text, words):
    with pytest.raises(SchemaError, match=words):
        schema.parse(text)


def test_types_may_refer_to_later_ones():
    types = "{A: {object: {b?: [B]}}, B: {map: {string: A}}}"
    contract = schema.parse(verb_yaml("", types))
    contract.type("A").check({"b": [{"x": {}}]}, "result")
    with pytest.raises(Mismatch, match=r"result\.b\[0\]\.x\.b is a string"):
        contract.type("A").check({"b": [{"x": {"b": ""}}]}, "result")


def test_the_name_of_an_event_has_three_parts_or_more() -> None:
    """oVirt's engine drops events whose names have less."""
    assert [event.name for event in CONTRACT.events if event.name.count("|") < 3] == []
