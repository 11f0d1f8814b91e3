# SPDX-License-Identifier: GPL-2.0-or-later
"""STOMP 1.2 frames: bytes in, frames out, and back; no sockets, no clock, no event loop.

Section names in this file are those of the STOMP 1.2 specification,
https://stomp.github.io/stomp-specification-1.2.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vdsmcinder.cephx_keys import masked

HEARTBEAT = b"\n"

CLIENT_COMMANDS = (
    *("CONNECT", "STOMP", "SEND", "SUBSCRIBE", "UNSUBSCRIBE", "DISCONNECT"),
    *("ACK", "NACK", "BEGIN", "COMMIT", "ABORT"),
)
SERVER_COMMANDS = ("CONNECTED", "MESSAGE", "RECEIPT", "ERROR")
COMMANDS = frozenset((*CLIENT_COMMANDS, *SERVER_COMMANDS))
# Their headers are written as they are, so that 1.0 peers can read them ("Value Encoding").
UNESCAPED = frozenset(("CONNECT", "STOMP", "CONNECTED"))
LONGEST_COMMAND = max(map(len, COMMANDS))


class ProtocolError(Exception):
    """The peer broke the protocol; the message says what was wrong and what was expected.

    The stream cannot be read on after it: where the next frame begins is not known. CEPHX keys are
    masked in the message.
    """

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))


class Frame(NamedTuple):
    """One frame. Headers are unescaped, and of a repeated header the first counts."""

    command: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Limits:
    """What a peer may make us hold in memory; all in bytes but headers, which is a count."""

    frame: int = 8 * 1024 * 1024
    head: int = 64 * 1024
    line: int = 8 * 1024
    headers: int = 128


# --- encoding ----------------------------------------------------------------------------------

_ESCAPES = str.maketrans({"\\": "\\\\", "\r": "\\r", "\n": "\\n", ":": "\\c"})
_UNESCAPES = {"\\\\": "\\", "\\r": "\r", "\\n": "\n", "\\c": ":"}
_ESCAPE_SEQUENCE = re.compile(r"\\.?", re.DOTALL)


def encode(frame: Frame) -> bytes:
    """The bytes of a frame; content-length is added where there is a body.

    Raises ProtocolError for a header that the frame's command cannot carry (line ends in CONNECT,
    NUL anywhere).
    """
    command, headers, body = frame
    if body and "content-length" not in headers:
        headers = {**headers, "content-length": str(len(body))}
    return b"%b\n%b\0" % (encode_head(command, headers), body)


def encode_head(command: str, headers: Mapping[str, str]) -> bytes:
    """Command and header lines, without the blank line that ends the head.

    For frames of which many are sent: the part that they share is encoded once, and header lines
    and body are appended as bytes.
    """
    if command not in UNESCAPED:
        headers = {k.translate(_ESCAPES): v.translate(_ESCAPES) for k, v in headers.items()}
    lines = [command, *(f"{name}:{value}" for name, value in headers.items()), ""]
    head = "\n".join(lines)
    if "\0" in head or "\r\n" in head or head.count("\n") != len(headers) + 1:
        raise ProtocolError(
            f"a header of {command} holds a NUL or a line end; expected text that the frame can "
            "carry"
        )
    return head.encode()


# --- decoding ----------------------------------------------------------------------------------

# A NUL in the head is looked for with the head's end: without it a frame that lacks its blank line
# would swallow the frame behind it.
_HEAD_END = re.compile(rb"\n\r?\n|\0")
_LINE_ENDS = re.compile(rb"(?:\r?\n)*")


class _Head(NamedTuple):
    command: str
    headers: dict[str, str]
    body_length: int | None  # None: the body ends at the first NUL


class Decoder:
    """Turns a stream of bytes into frames.

    Feed it with receive(), however the bytes were cut, then take frames with next_frame() until it
    returns None. Each byte is looked at a bounded number of times, so the cost is linear.
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._start = 0  # first byte of the buffer that is not spent
        self._scanned = 0  # up to here the end of the head, or the NUL, has been looked for
        self._head: _Head | None = None  # of the frame whose body has not arrived in full
        self._head_start = 0
        self._frames = 0  # read so far
        # Peers send the same head again and again: its bytes, blank line included, are kept.
        self._last: tuple[bytes, _Head] = (b"", _Head("", {}, None))

    @property
    def held_bytes(self) -> int:
        """How much it has received of what it has not given out."""
        return len(self._buffer) - self._start

    @property
    def unfinished(self) -> int | None:
        """The number of the frame that has begun to arrive, counted from 0; None between frames."""
        begun = self._head is not None or len(self._buffer) > self._start
        return self._frames if begun else None

    def receive(self, data: bytes) -> None:
        """Take bytes off the wire."""
        if self._start:
            self._forget_spent()
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """The next complete frame, or None when more bytes are needed.

        Raises ProtocolError when the bytes cannot be, or become, a frame within the limits.
        """
        head = self._head or self._read_head()
        if head is None:
            return None
        end = self._find_body_end(head)
        if end is None:
            self._head = head
            return None
        body = bytes(self._buffer[self._start : end])
        self._head = None
        self._frames += 1
        self._start = self._scanned = end + 1
        return Frame(head.command, head.headers, body)

    def _forget_spent(self) -> None:
        spent = self._start
        del self._buffer[:spent]
        self._start = 0
        self._scanned -= spent
        self._head_start -= spent

    def _read_head(self) -> _Head | None:
        """Parse the head and move on to the body, if all of the head is here."""
        buffer, start = self._buffer, self._start
        if start < len(buffer) and buffer[start] <= 0x0D:
            match = _LINE_ENDS.match(buffer, start)
            start = self._start = match.end() if match else start
        known, head = self._last
        # Only where the head begins to be looked at, so that each byte is compared but once.
        if self._scanned <= start and known and buffer.startswith(known, start):
            self._head_start = start
            self._start = self._scanned = start + len(known)
            return head
        found = _HEAD_END.search(buffer, max(self._scanned, start))
        if found is None:
            self._scanned = max(start, len(buffer) - 2)
            self._check_unfinished_head()
            return None
        head = self._parse_head(bytes(buffer[start : found.start()]), ended=found.group())
        self._head_start = start
        self._start = self._scanned = found.end()
        return head

    def _parse_head(self, content: bytes, ended: bytes) -> _Head:
        if ended == b"\0":
            raise ProtocolError(
                f"{_shown(content)} is followed by NUL; expected header lines and a blank line "
                "before the body"
            )
        head = parse_head(content, self._limits)
        self._last = (content + ended, head)
        return head

    def _check_unfinished_head(self) -> None:
        """Refuse as early as possible what can no longer become a head."""
        size = len(self._buffer) - self._start
        if size > self._limits.head:
            _check_head(bytes(self._buffer[self._start :]), self._limits)
        # One more for the CR that may precede the line's end.
        first = self._buffer[self._start : self._start + LONGEST_COMMAND + 2]
        command, line_end, _ = first.partition(b"\n")
        if line_end or size > LONGEST_COMMAND + 1:
            _check_command(command.removesuffix(b"\r").decode(errors="replace"))

    def _find_body_end(self, head: _Head) -> int | None:
        """Position of the NUL that ends the frame, None when it has not arrived."""
        if head.body_length is None:
            return self._find_nul(head)
        end = self._start + head.body_length
        if end >= len(self._buffer):
            return None
        if self._buffer[end] != 0:
            raise ProtocolError(
                f"the body of {head.command} goes on after the {head.body_length} bytes of its "
                "content-length; expected NUL there"
            )
        return end

    def _find_nul(self, head: _Head) -> int | None:
        end = self._buffer.find(0, self._scanned)
        size = (len(self._buffer) if end < 0 else end) - self._head_start
        if size > self._limits.frame:
            raise _too_large(head.command, size, self._limits)
        if end >= 0:
            return end
        self._scanned = len(self._buffer)
        return None


def parse_head(content: bytes, limits: Limits) -> _Head:
    """Command, headers and length of the body out of a head without its blank line.

    Raises ProtocolError.
    """
    _check_head(content, limits)
    try:
        text = content.decode()
    except UnicodeDecodeError as e:
        raise ProtocolError(
            f"byte {e.start} of the header block of {_shown(content)} is {content[e.start]:#x}; "
            "expected UTF-8 text"
        ) from None
    if "\r" in text:
        text = text.replace("\r\n", "\n")
        text = text[:-1] if text.endswith("\r") else text
    command, *lines = text.split("\n")
    _check_command(command)
    headers = _parse_headers(command, lines, escaped="\\" in text and command not in UNESCAPED)
    length = _body_length(command, headers)
    if length is not None and length + len(content) > limits.frame:
        raise _too_large(command, length + len(content), limits)
    return _Head(command, headers, length)


def _parse_headers(command: str, lines: list[str], escaped: bool) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name:
            # It may be a line of a body, and hold a key: no more of it than it takes to find it.
            raise ProtocolError(f"header line {line[:16]!r} of {command}; expected 'name:value'")
        if escaped:
            name, value = _unescape(name), _unescape(value)
        headers.setdefault(name, value)  # "Repeated Header Entries": the first counts
    return headers


def _unescape(text: str) -> str:
    return _ESCAPE_SEQUENCE.sub(_unescape_one, text)


def _unescape_one(match: re.Match[str]) -> str:
    try:
        return _UNESCAPES[match.group()]
    except KeyError:
        raise ProtocolError(
            f"escape sequence {match.group()!r} in a header; expected one of \\r \\n \\c \\\\"
        ) from None


def _body_length(command: str, headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length")
    if text is None:
        return None
    # isdigit() alone would let other scripts' digits through.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ProtocolError(
            f"content-length {text[:80]!r} of {command}; expected a decimal number of bytes"
        )
    return int(text)


def _check_head(content: bytes, limits: Limits) -> None:
    if content.count(b"\n") > limits.headers:
        raise ProtocolError(
            f"more than {limits.headers} headers in {_shown(content)}; expected at most that many"
        )
    if len(content) > limits.line and max(map(len, content.split(b"\n"))) > limits.line:
        raise ProtocolError(
            f"a header line of {_shown(content)} is longer than {limits.line} bytes; expected at "
            "most that many"
        )
    if len(content) > limits.head:
        raise ProtocolError(
            f"the header block of {_shown(content)} is longer than {limits.head} bytes; expected "
            "a blank line before that"
        )


def _check_command(command: str) -> None:
    if command not in COMMANDS:
        raise ProtocolError(
            f"a frame begins with {command[: LONGEST_COMMAND + 2]!r}; expected a STOMP command "
            "such as CONNECT or SEND on a line of its own"
        )


def _too_large(command: str, size: int, limits: Limits) -> ProtocolError:
    return ProtocolError(
        f"{command} frame of {size} bytes or more; expected at most {limits.frame} bytes"
    )


def _shown(content: bytes) -> str:
    """The first line of a head, short enough for an error."""
    first_line = content[: LONGEST_COMMAND + 8].partition(b"\n")[0]
    return repr(first_line.decode(errors="replace").rstrip("\r"))
