# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold for any bytes, target by target: each raises nothing but AssertionError.

For the corpus, for what hypothesis makes up, and for what atheris finds.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

from tests.fuzz.http import http
from vdsmcinder.errors import NoSuchVM, VdsmCinderError
from vdsmcinder.rpc.dispatch import Caller, Dispatcher, Rules
from vdsmcinder.rpc.method import Handler
from vdsmcinder.rpc.requests.vm import read_vm
from vdsmcinder.rpc.schema import schema
from vdsmcinder.rpc.schema.verb import Verb
from vdsmcinder.stomp.frames import (
    SERVER_COMMANDS,
    Decoder,
    Frame,
    Limits,
    ProtocolError,
    encode,
    encode_head,
)
from vdsmcinder.stomp.session import Session
from vdsmcinder.transport.protocol_detect import Spoken, recognise
from vdsmcinder.virt.domain.create_request import make_domain

CORPUS = Path(__file__).parent / "corpus"
LIMITS = Limits(frame=4096, head=1024, line=256, headers=16)
CALLER = Caller("192.0.2.7:1", "CN=engine", "stomp")
# A fault of the daemon's own: contract/errors.md, and JSON-RPC's internal error.
FAULTS = (16, -32603)


def frames(data: bytes) -> None:
    """The codec gives frames or one reason; cut differently, the same; and writes what it read."""
    whole = read_frames(data, len(data) or 1)
    assert whole == read_frames(data, 1) == read_frames(data, 7)
    for frame in whole[0]:
        try:
            wire = encode(frame)
        except ProtocolError:
            continue  # CONNECT can hold what cannot be written without escapes
        (again,), failed = read_frames(wire, len(wire), Limits())
        assert not failed
        assert (again.command, again.body) == (frame.command, frame.body)
        assert dict(frame.headers).items() <= dict(again.headers).items()


def read_frames(data: bytes, step: int, limits: Limits = LIMITS) -> tuple[list[Frame], bool]:
    """The frames in data that arrives in steps, and whether the rest was refused."""
    decoder, read = Decoder(limits), []
    try:
        for start in range(0, len(data), step):
            decoder.receive(data[start : start + step])
            while (frame := decoder.next_frame()) is not None:
                read.append(frame)
    except ProtocolError as e:
        assert "expected" in str(e)
        return read, True
    return read, False


def session(data: bytes) -> None:
    """A session takes or refuses what comes; ERROR is its last word.

    Nothing comes before CONNECTED but what was asked for before CONNECT. Each request is answered
    as if a verb had done so.
    """
    play = Session(LIMITS, heartbeat_floor_ms=1000)
    said = b""
    for start in range(0, len(data), 64):
        play.receive(data[start : start + 64])
        while (request := play.next_request()) is not None:
            play.reply(request.subscription, b'{"a":"\0"}')
        play.event(b"%b\n\0" % encode_head("MESSAGE", {})[len("MESSAGE\n") :])
        said += b"".join(play.take_output())
    said += play.farewell or b""
    decoder = Decoder(Limits(frame=1 << 24, head=1 << 16, line=1 << 16))
    decoder.receive(said)
    heard = list(iter(decoder.next_frame, None))
    words = [frame.command for frame in heard]
    assert set(words) <= set(SERVER_COMMANDS)
    asked_before = not data.lstrip(b"\r\n").startswith((b"CONNECT\n", b"STOMP\n"))
    assert not words or words[0] in ("CONNECTED", "ERROR") or asked_before
    assert words.count("CONNECTED") == play.connects
    assert "ERROR" not in words[:-1]
    assert bool(play.failure) == (words[-1:] == ["ERROR"])


def greeting(data: bytes) -> None:
    """The protocol is told from a bounded number of bytes, and more of them do not change it."""
    spoken = recognise(data)
    assert spoken in (None, *Spoken)
    assert spoken is not None or len(data) < 1024
    assert spoken is None or recognise(data + b"x") is spoken


def dispatcher(data: bytes) -> None:
    """Any body gets a well-formed reply or none, and never one that tells of a fault."""
    reply = _dispatcher().handle(data, CALLER, data[:200].decode(errors="replace"))
    if reply is not None and not isinstance(reply, bytes):
        reply = asyncio.run(_awaited(reply))
    if reply is None:
        return
    content = json.loads(reply)
    for one in content if isinstance(content, list) else [content]:
        check_reply(one)


def check_reply(reply: Any) -> None:
    """Raise AssertionError unless this is a reply of JSON-RPC 2.0 that tells of no fault."""
    assert reply["jsonrpc"] == "2.0"
    assert reply.keys() - {"jsonrpc", "id"} in ({"result"}, {"error"})
    assert reply["id"] is None or isinstance(reply["id"], (str, int, float))
    if "error" in reply:
        assert isinstance(reply["error"]["code"], int)
        assert reply["error"]["message"]
        assert reply["error"]["code"] not in FAULTS, reply


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (frames, session, greeting, http, dispatcher)
}


async def _awaited(reply: Any) -> Any:
    return await asyncio.wait_for(reply, 10)


@functools.cache
def _dispatcher() -> Dispatcher:
    """Every verb of the contract, with its parameters checked; only descriptions are read too."""
    contract = schema.load()
    verbs = {v.name: _handler(v) for v in contract.served}
    return Dispatcher(contract, verbs, Rules(lambda: True), max_batch=20)


def _handler(verb: Verb) -> Handler:
    def refuse(*values: Any) -> Any:
        """Look at what came, as a log would, and refuse."""
        shown = [p.shown(value) for p, value in zip(verb.params, values)]
        raise NoSuchVM(f"there is no VM in {len(shown)} values")

    async def refuse_later(*values: Any) -> Any:
        await asyncio.sleep(0)
        if verb.name == "VM.create":
            _describe(*values)
        refuse(*values)

    handler: Any = refuse_later if verb.changes else refuse
    parameters = [
        inspect.Parameter(f"p{n}", inspect.Parameter.POSITIONAL_ONLY)
        for n in range(len(verb.params))
    ]
    handler.__signature__ = inspect.Signature(parameters)
    return handler  # type: ignore[no-any-return]


def _describe(vm_id: str, description: Any) -> None:
    """Make a domain of what VM.create was given; it is refused in our own words or not at all."""
    try:
        request = read_vm(vm_id, description)
        make_domain(vm_id, request, allow_emulation=True, spare_pcie_ports=1)
    except VdsmCinderError as e:
        assert e.message
        raise
