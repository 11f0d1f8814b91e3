# SPDX-License-Identifier: GPL-2.0-or-later
"""The frame codec: what STOMP 1.2 allows is read, what it does not is refused with a reason."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vdsmcinder.stomp.frames import (
    COMMANDS,
    HEARTBEAT,
    UNESCAPED,
    Decoder,
    Frame,
    Limits,
    ProtocolError,
    encode,
    encode_head,
)

DEFAULT = Limits()


def decode(*segments: bytes, limits: Limits = DEFAULT) -> list[Frame]:
    decoder = Decoder(limits)
    frames = []
    for segment in segments:
        decoder.receive(segment)
        while (frame := decoder.next_frame()) is not None:
            frames.append(frame)
    return frames


@pytest.mark.parametrize(
    ("wire", "frame"),
    [
        (b"DISCONNECT\n\n\0", Frame("DISCONNECT", {})),
        (b"SEND\ndestination:x\n\nbody\0", Frame("SEND", {"destination": "x"}, b"body")),
        (b"SEND\r\ndestination:x\r\n\r\nbody\0", Frame("SEND", {"destination": "x"}, b"body")),
        (b"SEND\ncontent-length:3\n\na\0b\0", Frame("SEND", {"content-length": "3"}, b"a\0b")),
        (b"SEND\na:1\na:2\n\n\0", Frame("SEND", {"a": "1"})),
        (
            rb"SEND|a\cb:c\nd\\e\r||".replace(b"|", b"\n") + b"\0",
            Frame("SEND", {"a:b": "c\nd\\e\r"}),
        ),
        (b"SEND\na:b:c\n\n\0", Frame("SEND", {"a": "b:c"})),
        (b"SEND\na: b \n\n\0", Frame("SEND", {"a": " b "})),
        (b"SEND\na:\n\n\0", Frame("SEND", {"a": ""})),
        (b"CONNECT\nhost:a\\nb\n\n\0", Frame("CONNECT", {"host": "a\\nb"})),
        ("SEND\nname:žluťoučký\n\n\0".encode(), Frame("SEND", {"name": "žluťoučký"})),
        (b"SEND\n\nwith\n\nblank lines\0", Frame("SEND", {}, b"with\n\nblank lines")),
    ],
)
def test_a_frame_is_read(wire: bytes, frame: Frame) -> None:
    assert decode(wire) == [frame]
    assert decode(*(wire[i : i + 1] for i in range(len(wire)))) == [frame]


def test_a_frame_that_comes_again_is_read_again() -> None:
    first, crlf = b"SEND\na:1\n\nbody\0", b"SEND\r\na:1\r\n\r\nbody\0"
    other = b"SEND\na:12\n\nbody\0"
    stream = first + first + crlf + crlf + first + other + b"\n" + other + first
    expected = [Frame("SEND", {"a": a}, b"body") for a in (*"11111", "12", "12", "1")]
    for size in range(1, len(stream)):
        pieces = (stream[i : i + size] for i in range(0, len(stream), size))
        assert decode(*pieces) == expected


def test_heartbeats_between_frames_are_skipped() -> None:
    assert decode(b"\n\r\n\nRECEIPT\n\n\0\n\n", b"\r", b"\nERROR\n\n\0") == [
        Frame("RECEIPT", {}),
        Frame("ERROR", {}),
    ]


def test_a_frame_waits_for_its_last_byte() -> None:
    decoder = Decoder()
    decoder.receive(b"SEND\ncontent-length:4\n\nbody")
    assert decoder.next_frame() is None
    decoder.receive(b"\0")
    assert decoder.next_frame() == Frame("SEND", {"content-length": "4"}, b"body")


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"GET / HTTP/1.1", "begins with 'GET / HTTP/1.'; expected a STOMP command"),
        (b"send\n\n\0", "begins with 'send'; expected a STOMP command"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x01", "expected"),
        (b"SEND\nno colon\n\n\0", "header line 'no colon' of SEND; expected 'name:value'"),
        (b"SEND\n:value\n\n\0", "header line ':value' of SEND; expected 'name:value'"),
        (b"SEND\na:\\t\n\n\0", r"escape sequence '\\t' in a header; expected one of"),
        (b"SEND\na:\\\n\n\0", r"escape sequence '\\' in a header; expected one of"),
        (b"SEND\na:\xff\n\n\0", "byte 7 of the header block of 'SEND' is 0xff; expected UTF-8"),
        (b"SEND\na:1\0", "'SEND' is followed by NUL; expected header lines and a blank line"),
        (b"SEND\ncontent-length:1\n\nab\0", "goes on after the 1 bytes of its content-length"),
        (b"SEND\ncontent-length:-1\n\n\0", "content-length '-1' of SEND; expected a decimal"),
        ("SEND\ncontent-length:٣\n\n\0".encode(), "content-length '٣' of SEND; expected"),
        (b"SEND\ncontent-length:" + b"9" * 4000 + b"\n\n\0", "expected a decimal number"),
    ],
)
def test_what_is_no_frame_is_refused_with_the_reason(wire: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as e:
        decode(wire)
    assert reason in str(e.value)
    with pytest.raises(ProtocolError):
        decode(*(wire[i : i + 1] for i in range(len(wire))))


SMALL = Limits(frame=1000, head=200, line=50, headers=5)


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (b"SEND\ncontent-length:1000000000\n\n", "expected at most 1000 bytes"),
        (b"SEND\n\n" + b"x" * 1001, "SEND frame of 1007 bytes or more; expected at most 1000"),
        (b"SEND\n" + b"a:b\n" * 6 + b"\n\0", "more than 5 headers in 'SEND'"),
        (b"SEND\n" + b"a:b\n" * 99, "more than 5 headers in 'SEND'"),
        (b"SEND\na:" + b"b" * 49 + b"\n\n\0", "header line of 'SEND' is longer than 50 bytes"),
        (b"SEND\na:" + b"b" * 500, "header line of 'SEND' is longer than 50 bytes"),
        (b"SEND" + b"\na:%b" % (b"b" * 45) * 5 + b"\n\n\0", "header block of 'SEND' is longer"),
    ],
)
def test_what_is_too_large_is_refused_as_soon_as_it_is_known(wire: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError) as e:
        decode(wire, limits=SMALL)
    assert reason in str(e.value)


def test_frames_within_the_limits_are_read() -> None:
    frame = Frame("SEND", dict.fromkeys("abcd", "x" * 40), b"y" * 780)
    assert decode(encode(frame), limits=SMALL)[0].body == frame.body


@pytest.mark.parametrize("value", ["a\nb", "a\rb\nc", "a\0b", "a\r"])
def test_connect_cannot_carry_line_ends(value: str) -> None:
    with pytest.raises(ProtocolError, match="a header of CONNECT holds a NUL or a line end"):
        encode(Frame("CONNECT", {"host": value}))


def test_a_head_can_be_encoded_on_its_own() -> None:
    head = encode_head("MESSAGE", {"subscription": "a:1"})
    assert decode(b"%bmessage-id:7\n\nbody\0" % head) == [
        Frame("MESSAGE", {"subscription": "a:1", "message-id": "7"}, b"body")
    ]


def test_a_long_frame_in_many_pieces_is_looked_at_once() -> None:
    """The buffer never holds more than the frame, and the search goes on where it stopped."""
    decoder = Decoder(Limits(frame=1 << 20))
    decoder.receive(b"SEND\n\n")
    for _ in range(1 << 16):
        assert decoder.next_frame() is None
        assert decoder._scanned == len(decoder._buffer)
        decoder.receive(b"body")
    decoder.receive(b"\0")
    frame = decoder.next_frame()
    assert frame is not None
    assert frame.body == b"body" * (1 << 16)
    decoder.receive(HEARTBEAT)
    assert decoder.next_frame() is None
    assert len(decoder._buffer) <= 1


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
plain_text = st.text(
    st.characters(exclude_characters="\0\r\n:", exclude_categories=["Cs"]), min_size=1
)


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    command = draw(st.sampled_from(sorted(COMMANDS)))
    plain = command in UNESCAPED
    names = plain_text if plain else text.filter(bool)
    headers = draw(st.dictionaries(names, plain_text if plain else text, max_size=5))
    headers.pop("content-length", None)
    return Frame(command, headers, draw(st.binary(max_size=200)))


@settings(max_examples=300)
@given(st.lists(frames(), max_size=4), st.data())
def test_what_is_written_is_read_back_however_it_is_cut(
    sent: list[Frame], data: st.DataObject
) -> None:
    wire = b"".join(encode(frame) + HEARTBEAT * data.draw(st.integers(0, 2)) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    received = decode(*(wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)])))
    assert [(f.command, f.body) for f in received] == [(f.command, f.body) for f in sent]
    for got, frame in zip(received, sent):
        length = {"content-length": str(len(frame.body))} if frame.body else {}
        assert got.headers == {**frame.headers, **length}


@settings(max_examples=500)
@given(st.lists(st.binary(max_size=60), max_size=6))
@example([b"SEND\ncontent-length:1", b"\r\n\r", b"\n\0\0"])
def test_no_bytes_do_anything_but_frames_or_a_protocol_error(segments: list[bytes]) -> None:
    decoder = Decoder(SMALL)
    try:
        for segment in segments:
            decoder.receive(segment)
            while decoder.next_frame() is not None:
                pass
    except ProtocolError as e:
        assert "expected" in str(e)


fragments = st.sampled_from(
    [
        b"SEND",
        b"CONNECT",
        b"\n",
        b"\r\n",
        b"\0",
        b":",
        b"a",
        b"\\",
        b"content-length:",
        b"3",
        b"\xff",
    ]
)


@settings(max_examples=500)
@given(st.lists(fragments, max_size=30))
def test_nor_do_bytes_that_are_almost_frames(pieces: list[bytes]) -> None:
    wire = b"".join(pieces)
    assert outcome([wire]) == outcome([wire[i : i + 1] for i in range(len(wire))])


def outcome(segments: list[bytes]) -> tuple[list[Frame], bool]:
    """The frames read, and whether the rest was refused."""
    decoder, read = Decoder(SMALL), []
    try:
        for segment in segments:
            decoder.receive(segment)
            while (frame := decoder.next_frame()) is not None:
                read.append(frame)
    except ProtocolError:
        return read, True
    return read, False
