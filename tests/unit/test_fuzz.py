# SPDX-License-Identifier: GPL-2.0-or-later
"""The fuzz targets with their corpus, and with what hypothesis makes of it; `make fuzz` goes on."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import pieces
from tests.fuzz.targets import CORPUS, TARGETS, _dispatcher, check_reply
from tests.unit.transport.serving import listening
from vdsmcinder.rpc.schema import schema
from vdsmcinder.stomp.frames import Frame, encode

SEEDS = [(target, path.name) for target in TARGETS for path in sorted((CORPUS / target).iterdir())]


@pytest.mark.parametrize(("target", "name"), SEEDS)
def test_the_corpus_holds(target: str, name: str) -> None:
    TARGETS[target]((CORPUS / target / name).read_bytes())


def mixed(target: str) -> st.SearchStrategy[bytes]:
    parts = st.sampled_from(pieces(target)) | st.binary(max_size=12)
    return st.lists(parts, max_size=30).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(mixed("frames"))
def test_pieces_of_frames(data: bytes) -> None:
    TARGETS["frames"](data)


@settings(max_examples=300, deadline=None)
@given(mixed("session"))
def test_pieces_of_sessions(data: bytes) -> None:
    TARGETS["session"](data)


@settings(max_examples=200, deadline=None)
@given(mixed("greeting"))
def test_pieces_of_greetings(data: bytes) -> None:
    TARGETS["greeting"](data)


@settings(max_examples=300, deadline=None)
@given(mixed("http"))
def test_pieces_of_http(data: bytes) -> None:
    TARGETS["http"](data)


@settings(max_examples=200, deadline=None)
@given(mixed("dispatcher"))
def test_pieces_of_bodies(data: bytes) -> None:
    TARGETS["dispatcher"](data)


client_frames = st.builds(
    Frame,
    st.sampled_from(
        ["CONNECT", "STOMP", "SEND", "SUBSCRIBE", "UNSUBSCRIBE", "DISCONNECT", "ACK", "BEGIN"]
    ),
    st.dictionaries(
        st.sampled_from(
            ["id", "destination", "reply-to", "receipt", "accept-version", "heart-beat", "ack"]
        ),
        st.sampled_from(
            ["1.2", "r", "jms.topic.vdsm_requests", "jms.queue.events", "0,0", "auto", "\\", ""]
        ),
    ),
    st.binary(max_size=9),
)
CONNECTED = encode(Frame("CONNECT", {"accept-version": "1.2"}))


@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.lists(client_frames, max_size=12))
def test_sequences_of_frames(connected: bool, said: list[Frame]) -> None:
    TARGETS["session"](CONNECTED * connected + b"".join(map(encode, said)))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.sampled_from(["vmID", "vmParams"]), inner)
    ),
    max_leaves=12,
)
verbs = st.sampled_from([*sorted(schema.load().verbs), "x.y"])
requests = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0") | json_like, "method": verbs | json_like},
    optional={"id": json_like, "params": json_like},
)


@settings(max_examples=400, deadline=None)
@given(requests | st.lists(requests | json_like, max_size=5))
def test_requests_of_any_shape(content: object) -> None:
    TARGETS["dispatcher"](json.dumps(content).encode())


@settings(max_examples=25, deadline=None)
@given(st.lists(mixed("dispatcher"), min_size=1, max_size=20))
def test_http_bodies(bodies: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(post_all(Path(directory), bodies))


async def post_all(directory: Path, bodies: list[bytes]) -> None:
    """Each body gets its status and its reply, all on one connection."""
    async with listening(directory) as host:
        host.verbs.handle = _dispatcher().handle  # type: ignore[method-assign]
        reader, writer = await asyncio.open_unix_connection(host.listen.unix_socket)
        for body in bodies:
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith((b"http/1.1 200", b"http/1.1 204"))
            if head.startswith(b"http/1.1 200"):
                length = int(head.partition(b"content-length: ")[2].split()[0])
                content = json.loads(await reader.readexactly(length))
                for reply in content if isinstance(content, list) else [content]:
                    check_reply(reply)
        writer.close()
