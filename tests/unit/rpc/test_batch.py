# SPDX-License-Identifier: GPL-2.0-or-later
"""Batches: answered whole, in turns, with few verbs at once and a bound to what comes back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.transport.serving import until
from vdsmcinder import fair_scheduling
from vdsmcinder.rpc import dispatch
from vdsmcinder.rpc.dispatch import Caller, Dispatcher, Rules, handlers
from vdsmcinder.rpc.schema import schema

CALLER = Caller("192.0.2.7", "CN=engine", "stomp")
UUID = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"


class Host:
    """Quick verbs."""

    def ping2(self) -> bool:
        return True

    def echo(self, message: str) -> str:
        return message


class Vm:
    """A slow one; counts how often it runs at the same time. If it has a gate, it ends once that
    is open.
    """

    def __init__(self) -> None:
        self.running = self.most = 0
        self.gate: asyncio.Event | None = None

    async def pause(self, vm_id: str) -> dict[str, Any]:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        self.running -= 1
        return {}


@pytest.fixture
def vm() -> Vm:
    return Vm()


@pytest.fixture
def dispatcher(vm: Vm) -> Dispatcher:
    contract = schema.load()
    served = {"Host.ping2", "Host.echo", "VM.pause"}
    verbs = {n: replace(v, served=n in served) for n, v in contract.verbs.items()}
    rules = Rules(lambda: True)
    return Dispatcher(replace(contract, verbs=verbs), handlers(Host=Host(), VM=vm), rules, 1000)


def call(method: str, request_id: object, *params: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": list(params), "id": request_id}


async def send(dispatcher: Dispatcher, batch: list[Any]) -> Any:
    reply = dispatcher.handle(json.dumps(batch).encode(), CALLER)
    assert reply is not None
    return json.loads(reply if isinstance(reply, bytes) else await reply or b"null")


async def test_each_request_gets_its_own_answer(dispatcher: Dispatcher) -> None:
    batch = [call("Host.echo", "a", "x"), {"id": "b"}, call("VM.pause", "c", UUID), 7]
    batch.append({"jsonrpc": "2.0", "method": "Host.ping2"})
    replies = {r["id"]: r for r in await send(dispatcher, batch)}
    assert replies.keys() == {"a", "b", "c", None}
    assert replies["a"]["result"] == "x"
    assert replies["c"]["result"] == {}
    assert {replies[i]["error"]["code"] for i in ("b", None)} == {-32600}


async def test_few_slow_verbs_run_at_once(dispatcher: Dispatcher, vm: Vm) -> None:
    replies = await send(dispatcher, [call("VM.pause", n, UUID) for n in range(50)])
    assert sorted(r["id"] for r in replies) == list(range(50))
    assert 1 < vm.most <= dispatch._SLOW_AT_ONCE


async def test_a_long_batch_lets_others_in(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = 0

    def count() -> None:
        nonlocal passes
        passes += 1
        dispatcher.turns.ask(count)

    monkeypatch.setattr(fair_scheduling, "turn_end", lambda: 0.0)  # every turn is over at once
    dispatcher.turns.ask(count)
    replies = await send(dispatcher, [call("Host.ping2", n) for n in range(1000)])
    assert len(replies) == 1000
    assert passes >= 999


async def test_what_comes_back_is_bounded(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_MAX_BATCH_REPLY_BYTES", 5000)
    batch = [call("Host.echo", n, "x" * 1000) for n in range(20)]
    del batch[-1]["id"]
    replies = await send(dispatcher, batch)
    assert [r["id"] for r in replies] == list(range(19))
    assert [r["error"]["code"] for r in replies if "error" in r] == [1100] * 14
    assert "in a smaller batch" in replies[-1]["error"]["message"]


async def test_what_comes_back_to_all_batches_is_bounded(
    dispatcher: Dispatcher, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of batches under way together those that come late are told to come again."""
    monkeypatch.setattr(dispatch, "_MAX_BATCH_REPLIES_BYTES", 5000)
    echo = call("Host.echo", 1, "x" * 1000)
    vm.gate = asyncio.Event()
    first = asyncio.ensure_future(send(dispatcher, [call("VM.pause", 2, UUID), *[echo] * 5]))
    await until(lambda: dispatcher._batches.replies_bytes > 5000, "five echoes were not answered")
    assert [r["error"]["code"] for r in await send(dispatcher, [echo] * 4)] == [1100] * 4
    vm.gate.set()
    assert [r["result"] for r in (await first) if r["id"] == 1] == ["x" * 1000] * 5
    # What was answered counts no more.
    assert ["result" in r for r in await send(dispatcher, [echo] * 4)] == [True] * 4


async def test_few_batches_of_one_client_are_worked_off_together(
    dispatcher: Dispatcher, vm: Vm
) -> None:
    batch = json.dumps([call("VM.pause", n, UUID) for n in range(10)]).encode()
    another = Caller("192.0.2.8", "CN=another", "stomp")

    async def sent(caller: Caller) -> None:
        reply = dispatcher.handle(batch, caller)
        assert not isinstance(reply, bytes) and reply is not None
        await reply

    vm.gate = asyncio.Event()
    of_one = dispatch._BATCHES_OF_CLIENT * dispatch._SLOW_AT_ONCE
    mine = [asyncio.ensure_future(sent(CALLER)) for _ in range(10)]
    await until(lambda: vm.running >= of_one, "they did not begin")
    others = [asyncio.ensure_future(sent(another)) for _ in range(10)]
    await until(lambda: vm.running >= 2 * of_one, "another client's had to wait")
    vm.gate.set()
    await asyncio.gather(*mine, *others)
    assert vm.most == 2 * of_one


async def test_a_batch_of_notifications_is_not_answered(dispatcher: Dispatcher) -> None:
    assert await send(dispatcher, [{"jsonrpc": "2.0", "method": "Host.ping2"}] * 3) is None
