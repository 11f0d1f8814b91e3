# SPDX-License-Identifier: GPL-2.0-or-later
"""Events: who gets them, in what form, and what they say of a VM."""

from __future__ import annotations

import json
import platform
import time
from types import SimpleNamespace
from typing import Any

import pytest

from vdsmcinder.rpc.events import Events, secrets_missing, vm_status, vm_thawed
from vdsmcinder.rpc.schema import schema
from vdsmcinder.virt.vm.parts.freeze_state import LateThaw
from vdsmcinder.virt.vm.status import Exit, ExitCode, ExitReason, PauseCode, Status

UUID = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"


def test_every_subscriber_gets_the_same_notification():
    events, first, second = Events(), [], []
    events.subscribe(first.append)
    events.subscribe(second.append)
    before = time.monotonic_ns() // 1_000_000
    events.publish("|virt|x", {"a": 1})
    after = time.monotonic_ns() // 1_000_000
    assert first == second
    content = json.loads(first[0])
    notify_time = content["params"].pop("notify_time")
    assert before <= notify_time <= after
    assert content == {"jsonrpc": "2.0", "method": "|virt|x", "params": {"a": 1}}


def test_the_params_of_the_publisher_are_left_alone():
    events, params = Events(), {"a": 1}
    events.subscribe(lambda body: None)
    events.publish("|virt|x", params)
    assert params == {"a": 1}


def test_a_subscription_ends():
    events, got = Events(), []
    twice = [events.subscribe(got.append), events.subscribe(got.append)]
    events.publish("1", {})
    twice[0]()
    twice[0]()
    events.publish("2", {})
    assert [json.loads(body)["method"] for body in got] == ["1", "1", "2"]


def test_a_subscriber_that_fails_does_not_harm_the_others(caplog):
    events, got = Events(), []

    def fail(body):
        raise RuntimeError("no room")

    events.subscribe(fail)
    events.subscribe(got.append)
    events.publish("|virt|x", {})
    assert len(got) == 1
    assert "event |virt|x could not be passed on" in caplog.text


def test_a_subscriber_may_leave_while_it_is_told():
    events, got = Events(), []

    def once(body):
        got.append(body)
        leave()

    leave = events.subscribe(once)
    events.subscribe(got.append)
    events.publish("1", {})
    events.publish("2", {})
    assert [json.loads(body)["method"] for body in got] == ["1", "1", "2"]


def test_a_subscriber_is_greeted_with_all_that_holds_on_once():
    events, missing = Events(), ["key"]

    def of_secrets():
        return [secrets_missing(missing)] if missing else []

    for greeting in (of_secrets, lambda: [("|host|x", {})], of_secrets):
        events.greet_with(greeting)
    told = [json.loads(body) for body in events.greeting()]
    missed = f"|host|secrets_missing|{platform.node()}"
    assert [event["method"] for event in told] == [missed, "|host|x"]
    assert told[0]["params"]["uuids"] == ["key"]
    missing.clear()
    assert len(events.greeting()) == 1


@pytest.mark.parametrize(
    ("vm", "expected"),
    [
        ({"status": Status.UP}, {"status": "Up"}),
        (
            {"status": Status.PAUSED, "pause_code": PauseCode.ENOSPC},
            {"status": "Paused", "pauseCode": "ENOSPC"},
        ),
        (
            {
                "status": Status.DOWN,
                "exit": Exit(ExitCode.ERROR, ExitReason.LOST_QEMU_CONNECTION, "It is gone."),
            },
            {"status": "Down", "exitCode": 1, "exitReason": 2, "exitMessage": "It is gone."},
        ),
    ],
)
def test_vm_status(vm, expected):
    known = {"id": UUID, "hash": "h1", "exit": None, "pause_code": None, "failed_disks": []}
    fake: Any = SimpleNamespace(**{**known, **vm})
    name, params = vm_status(fake)
    assert name == f"|virt|VM_status|{UUID}"
    assert params == {UUID: {**expected, "hash": "h1"}}

    events, got = Events(), []
    events.subscribe(got.append)
    events.publish(name, params)
    declared = next(e for e in schema.load().events if e.name == "|virt|VM_status|<vmId>")
    declared.params.check(json.loads(got[0])["params"], "params")


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (None, {"thawed": True, "frozenSeconds": 60.0}),
        ("no answer", {"thawed": False, "frozenSeconds": 60.0, "reason": "no answer"}),
    ],
)
def test_vm_thawed(failure, expected):
    fake: Any = SimpleNamespace(id=UUID)
    name, params = vm_thawed(fake, LateThaw(60.0, failure))
    assert (name, params) == (f"|virt|VM_thawed|{UUID}", {UUID: expected})

    events, got = Events(), []
    events.subscribe(got.append)
    events.publish(name, params)
    declared = next(e for e in schema.load().events if e.name == "|virt|VM_thawed|<vmId>")
    declared.params.check(json.loads(got[0])["params"], "params")
