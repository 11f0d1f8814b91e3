# SPDX-License-Identifier: GPL-2.0-or-later
"""The dispatcher: bodies in, replies out, and nothing in the log that must not be there."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsmcinder import logs
from vdsmcinder.errors import NoSuchVM, SecretMalformed
from vdsmcinder.rpc.dispatch import Caller, Dispatcher, HandlersDiffer, Rules, handlers
from vdsmcinder.rpc.schema import schema

CALLER = Caller("192.0.2.7", "CN=engine", "stomp")
UUID = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"
KEY = "AQBnYW5kYWxmIHRoZSBncmV5IHdhcyBoZXJl"


class Host:
    """Handlers whose outcome the test chooses by what it sends."""

    def ping2(self):
        return True

    def echo(self, message):
        if message == "unencodable":
            return object()
        if message == "fault":
            raise KeyError(message)
        return message

    def setLogLevel(self, level, name):
        pass

    async def registerSecrets(self, secrets, clear):
        await asyncio.sleep(0)
        if secrets and secrets[0] == "fault":
            raise ValueError(f"quotes {KEY}") from RuntimeError(KEY)
        if secrets:
            raise SecretMalformed("secrets[0].uuid is not a UUID; mend it", field="uuid")


class Vm:
    """As above; remembers what log lines were marked with."""

    def __init__(self):
        self.marks = []

    def getInfo(self, vm_id):
        self.marks.append((logs.flow_id.get(), logs.vm_id.get()))
        raise NoSuchVM(f"there is no VM {vm_id}", vmId=vm_id)

    async def reset(self, vm_id):
        await asyncio.sleep(0)
        self.marks.append((logs.flow_id.get(), logs.vm_id.get()))


SERVED = {
    "Host.ping2",
    "Host.echo",
    "Host.setLogLevel",
    "Host.registerSecrets",
    "VM.getInfo",
    "VM.reset",
}


def contract_of(served):
    contract = schema.load()
    verbs = {n: replace(v, served=n in served) for n, v in contract.verbs.items()}
    return replace(contract, verbs=verbs)


CONTRACT = contract_of(SERVED)


@pytest.fixture
def vm():
    return Vm()


@pytest.fixture
def dispatcher(vm):
    return Dispatcher(CONTRACT, handlers(Host=Host(), VM=vm), Rules(lambda: True), max_batch=5)


def request(method, params=None, **more):
    body = {"jsonrpc": "2.0", "method": method, "id": "1", **more}
    return body if params is None else {**body, "params": params}


async def send(dispatcher, body, flow_id=None):
    """The decoded reply to a body, given as bytes or as what JSON is made of."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = dispatcher.handle(data, CALLER, flow_id)
    if reply is not None and not isinstance(reply, bytes):
        reply = await reply
    return None if reply is None else json.loads(reply)


async def error(dispatcher, body):
    reply = await send(dispatcher, body)
    assert reply.keys() == {"jsonrpc", "id", "error"}
    return reply["error"]


# Requests


def test_a_read_is_answered_at_once(dispatcher):
    reply = dispatcher.handle(json.dumps(request("Host.ping2")).encode(), CALLER)
    assert json.loads(reply) == {"jsonrpc": "2.0", "id": "1", "result": True}


async def test_a_verb_that_takes_time_is_awaited(dispatcher):
    reply = dispatcher.handle(json.dumps(request("VM.reset", [UUID])).encode(), CALLER)
    assert json.loads(await reply) == {"jsonrpc": "2.0", "id": "1", "result": True}


@pytest.mark.parametrize("params", [["ho"], {"message": "ho"}])
async def test_parameters_go_by_name_and_by_position(dispatcher, params):
    assert (await send(dispatcher, request("Host.echo", params)))["result"] == "ho"


@pytest.mark.parametrize("name", ["self", "caller", "context", "args", "kwargs"])
async def test_a_parameter_may_have_any_name(dispatcher, name):
    params = {"message": "ho", name: 1}
    assert (await send(dispatcher, request("Host.echo", params)))["result"] == "ho"


@pytest.mark.parametrize("request_id", ["x", 7, 1.5, None, ""])
async def test_the_id_comes_back_as_it_was(dispatcher, request_id):
    assert (await send(dispatcher, request("Host.ping2", id=request_id)))["id"] == request_id


@pytest.mark.parametrize("method", ["Host.ping2", "VM.reset", "Host.nope"])
async def test_a_notification_is_not_answered(dispatcher, method):
    body = request(method, [UUID])
    del body["id"]
    assert await send(dispatcher, body) is None


# Errors


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "expecting value at line 1, column 1"),
        (b'{"jsonrpc": ', "expecting value at line 1"),
        (b"{'a': 1}", "expecting property name"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'"\xff"', "byte 1 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "too long"),
    ],
)
async def test_what_is_not_json(dispatcher, body, words):
    reply = await send(dispatcher, body)
    assert reply["error"]["code"] == -32700
    assert reply["id"] is None
    assert words in reply["error"]["message"]


@pytest.mark.parametrize(
    ("body", "words", "request_id"),
    [
        ("ping", "not an object", None),
        ([], "batch is empty", None),
        ({"method": "Host.ping2", "id": 3}, 'jsonrpc is not "2.0"', 3),
        ({"jsonrpc": "1.0", "method": "Host.ping2", "id": 3}, 'jsonrpc is not "2.0"', 3),
        ({"jsonrpc": "2.0", "id": "a"}, "method is missing", "a"),
        ({"jsonrpc": "2.0", "method": ["x"], "id": "a"}, "method is missing or is not", "a"),
        (request("Host.ping2", 7), "params is neither", "1"),
        (request("Host.ping2", id={}), "id is none of", None),
        (request("Host.ping2", id=True), "id is none of", None),
        (
            request("Host.ping2", id="AQANLY7YAAAAEBAAfroPNfBE1vyVnkIviCklMQ=="),
            "or holds a CEPHX key",
            None,
        ),
    ],
)
async def test_what_is_not_a_request(dispatcher, body, words, request_id):
    reply = await send(dispatcher, body)
    assert reply["error"]["code"] == -32600
    assert reply["id"] == request_id
    assert words in reply["error"]["message"]


async def test_unknown_verb(dispatcher):
    found = await error(dispatcher, request("VM.getinfo"))
    assert found["code"] == -32601
    assert "did you mean VM.getInfo?" in found["message"]


async def test_a_verb_that_is_not_served_yet(dispatcher):
    found = await error(dispatcher, request("VM.migrate", {}))
    assert found == {
        "code": 44,
        "message": "VM.migrate is not implemented in this version of vdsm-cinder",
    }


async def test_wrong_parameters(dispatcher):
    found = await error(dispatcher, request("VM.getInfo", {"vmID": 1}))
    assert found["code"] == -32602
    assert found["data"]["parameter"] == "vmID"


async def test_an_error_of_ours_keeps_its_code_and_data(dispatcher):
    found = await error(dispatcher, request("VM.getInfo", {"vmID": UUID}))
    assert found == {"code": 1, "message": f"there is no VM {UUID}", "data": {"vmId": UUID}}


async def test_a_fault_is_unexpected_and_its_trace_is_logged(dispatcher, caplog):
    found = await error(dispatcher, request("Host.echo", ["fault"]))
    assert found["code"] == 16
    assert "KeyError" in found["message"]
    assert "in echo" in caplog.text
    assert "KeyError: 'fault'" in caplog.text


async def test_a_fault_of_a_secret_verb_is_logged_without_its_words(dispatcher, caplog):
    found = await error(dispatcher, request("Host.registerSecrets", [["fault"]]))
    assert found["code"] == 16
    assert "in registerSecrets" in caplog.text
    assert "ValueError" in caplog.text
    assert "RuntimeError" in caplog.text
    assert KEY not in caplog.text + json.dumps(found)


async def test_a_result_that_json_cannot_hold(dispatcher):
    reply = await send(dispatcher, request("Host.echo", ["unencodable"]))
    assert reply["error"]["code"] == -32603
    assert reply["id"] == "1"


async def test_recovering(vm):
    known = False
    rules = Rules(lambda: known)
    dispatcher = Dispatcher(CONTRACT, handlers(Host=Host(), VM=vm), rules, max_batch=5)
    assert (await error(dispatcher, request("VM.reset", [UUID])))["code"] == 99
    assert (await send(dispatcher, request("Host.ping2")))["result"] is True
    known = True
    assert (await send(dispatcher, request("VM.reset", [UUID])))["result"] is True


async def test_results_are_checked_on_request(vm, caplog):
    rules = Rules(lambda: True, check_results=True)
    dispatcher = Dispatcher(CONTRACT, handlers(Host=Host(), VM=vm), rules, max_batch=5)
    await send(dispatcher, request("Host.echo", ["unencodable"]))
    assert "Host.echo: the result does not fit the schema: result is a object" in caplog.text


async def test_codes_are_checked_on_request(caplog):
    class Odd(Vm):
        def getInfo(self, vm_id):
            raise SecretMalformed("this verb does not answer so")

    rules = Rules(lambda: True, check_results=True)
    dispatcher = Dispatcher(CONTRACT, handlers(Host=Host(), VM=Odd()), rules, max_batch=5)
    await send(dispatcher, request("VM.getInfo", [UUID]))
    assert "VM.getInfo: the result does not fit the schema: code 72" in caplog.text


# Batches


@pytest.mark.parametrize("extra", [[], [request("VM.reset", [UUID], id="slow")]])
async def test_a_batch_of_everything(dispatcher, extra):
    notification = {"jsonrpc": "2.0", "method": "Host.ping2"}
    batch = [7, request("Host.ping2", id="a"), notification, request("No.such", id="b"), *extra]
    replies = {r["id"]: r for r in await send(dispatcher, batch)}
    assert replies.keys() == {None, "a", "b"} | {r["id"] for r in extra}
    assert replies[None]["error"]["code"] == -32600
    assert replies["a"]["result"] is True
    assert replies["b"]["error"]["code"] == -32601
    for r in extra:
        assert replies[r["id"]]["result"] is True


async def test_a_batch_of_one_is_answered_with_a_list(dispatcher):
    assert [r["id"] for r in await send(dispatcher, [request("Host.ping2")])] == ["1"]


async def test_a_batch_of_notifications_is_not_answered(dispatcher):
    batch = [{"jsonrpc": "2.0", "method": "Host.ping2"}] * 2
    assert await send(dispatcher, batch) is None


async def test_a_batch_of_nothing_well_formed(dispatcher):
    assert [r["error"]["code"] for r in await send(dispatcher, [1, 2])] == [-32600, -32600]


async def test_a_batch_that_is_too_large(dispatcher):
    found = await error(dispatcher, [request("Host.ping2")] * 6)
    assert found["code"] == 1100
    assert "6 requests" in found["message"]


async def test_one_reply_that_cannot_be_written_does_not_take_the_others_with_it(dispatcher):
    batch = [request("Host.echo", ["unencodable"], id="bad"), request("Host.ping2", id="good")]
    replies = {r["id"]: r for r in await send(dispatcher, batch)}
    assert replies["bad"]["error"]["code"] == -32603
    assert replies["good"]["result"] is True


# The log


async def test_log_lines_carry_flow_and_vm(dispatcher, vm):
    await send(dispatcher, request("VM.getInfo", [UUID.upper()]), flow_id="f1")
    await send(dispatcher, request("VM.reset", [UUID]), flow_id="f2")
    assert vm.marks == [("f1", UUID), ("f2", UUID)]
    assert logs.flow_id.get() is None
    assert logs.vm_id.get() is None


async def test_a_mutating_verb_has_one_line_in_and_one_out(dispatcher, caplog):
    caplog.set_level(logging.INFO)
    await send(dispatcher, request("VM.reset", [UUID]))
    called, done = (r.getMessage() for r in caplog.records if r.levelno == logging.INFO)
    assert called == f"VM.reset of VM {UUID} called by CN=engine at 192.0.2.7 (stomp)"
    assert done.startswith(f"VM.reset of VM {UUID} ok in ")


async def test_a_mutating_verb_that_fails_says_why(dispatcher, caplog):
    caplog.set_level(logging.INFO)
    await send(dispatcher, request("Host.registerSecrets", [[{}]]))
    assert "Host.registerSecrets failed with code 72" in caplog.text


async def test_reads_are_logged_at_debug_alone(dispatcher, caplog):
    caplog.set_level(logging.INFO)
    await send(dispatcher, request("Host.ping2"))
    assert not caplog.records
    caplog.set_level(logging.DEBUG)
    await send(dispatcher, request("Host.ping2"))
    assert "Host.ping2 called by" in caplog.text


async def test_unknown_parameters_are_one_warning(dispatcher, caplog):
    reply = await send(dispatcher, request("Host.echo", {"message": "ho", "a": 1, "b": KEY}))
    assert reply["result"] == "ho"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "Host.echo: 2 unknown parameters ignored: 'a', 'b'" in record.getMessage()


async def test_parameters_beyond_the_last_are_ignored_too(dispatcher, caplog):
    assert (await send(dispatcher, request("Host.echo", ["ho", KEY])))["result"] == "ho"
    assert "1 unknown parameters ignored: '#2'" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        f'{{"jsonrpc": "2.0", "params": {{"password": "{KEY}"'.encode(),
        f'"{KEY}'.encode() + b"\xff",
        json.dumps({"jsonrpc": KEY, "method": "VM.create", "id": 1}).encode(),
        json.dumps(request("Host.registerSecrets", {"secrets": KEY})).encode(),
        json.dumps(request("Host.registerSecrets", {"secrets": [{"password": KEY}]})).encode(),
        json.dumps(request("Host.registerSecrets", [["fault"]])).encode(),
        json.dumps(request("VM.getInfo", {"vmID": KEY})).encode(),
        json.dumps(request("VM.setTicket", {"password": KEY})).encode(),
        json.dumps(request("Host.echo", [KEY], jsonrpc="1")).encode(),
        json.dumps([{"password": KEY}]).encode(),
    ],
)
async def test_no_key_is_logged_or_answered(dispatcher, caplog, body):
    caplog.set_level(logging.DEBUG)
    reply = await send(dispatcher, body)
    assert KEY not in json.dumps(reply)
    assert KEY not in caplog.text
    assert caplog.text


@settings(deadline=None)
@given(st.binary() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(sorted(SERVED)),
    lambda inner: st.lists(inner)
    | st.fixed_dictionaries(
        {},
        optional={"jsonrpc": st.just("2.0"), "method": inner, "params": inner, "id": inner},
    ),
))  # fmt: skip
def test_any_body_is_answered_with_json_or_not_at_all(content):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    dispatcher = Dispatcher(CONTRACT, handlers(Host=Host(), VM=Vm()), Rules(lambda: True), 5)
    reply = asyncio.run(send(dispatcher, body))
    if reply is not None:
        for one in reply if isinstance(reply, list) else [reply]:
            assert one["jsonrpc"] == "2.0"
            assert ("result" in one) != ("error" in one)


# At start


def test_a_served_verb_needs_a_handler():
    with pytest.raises(HandlersDiffer, match=r"VM\.\w+ is served, but it has no handler"):
        Dispatcher(CONTRACT, handlers(Host=Host()), Rules(lambda: True), 5)


def test_a_handler_needs_a_verb():
    contract = contract_of(SERVED - {"Host.echo"})
    with pytest.raises(HandlersDiffer, match=r"Host\.echo has a handler, but"):
        Dispatcher(contract, handlers(Host=Host(), VM=Vm()), Rules(lambda: True), 5)


def test_a_handler_takes_the_verbs_parameters():
    some = {**handlers(Host=Host(), VM=Vm()), "Host.ping2": lambda surplus: True}
    with pytest.raises(HandlersDiffer, match=r"Host\.ping2 takes 1 parameters; schema.yml has 0"):
        Dispatcher(CONTRACT, some, Rules(lambda: True), 5)


async def test_a_call_that_is_given_up_says_so(caplog):
    started = asyncio.Event()

    class Slow(Vm):
        async def reset(self, vm_id):
            started.set()
            await asyncio.Event().wait()

    dispatcher = Dispatcher(CONTRACT, handlers(Host=Host(), VM=Slow()), Rules(lambda: True), 5)
    reply = dispatcher.handle(json.dumps(request("VM.reset", [UUID])).encode(), CALLER)
    assert isinstance(reply, Awaitable)
    task = asyncio.ensure_future(reply)
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert f"VM.reset of VM {UUID} given up" in caplog.text
