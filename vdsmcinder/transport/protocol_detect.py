# SPDX-License-Identifier: GPL-2.0-or-later
"""Which protocol a new connection speaks, told from its first bytes.

A Greeter holds the connection until that is known.
"""

from __future__ import annotations

import asyncio
import enum
import re


class Spoken(enum.Enum):
    """The protocols served."""

    STOMP = "stomp"
    HTTP = "http"


# A method and a space (RFC 9112, section 3) is HTTP; that includes HTTP's own CONNECT. The longest
# method has 17 letters, and STOMP's commands are followed by a line end.
_UNDECIDED = re.compile(rb"[\r\n]*[A-Za-z-]{0,17}")
_LONGEST = 1024


def recognise(first: bytes) -> Spoken | None:
    """What the first bytes of a connection are; None while that cannot be told.

    What is neither is taken for STOMP, whose ERROR frame says what was expected.
    """
    match = _UNDECIDED.match(first)
    end = match.end() if match else 0
    if end == len(first) < _LONGEST:
        return None
    return Spoken.HTTP if first[end : end + 1] == b" " else Spoken.STOMP


class Greeter(asyncio.Protocol):
    """Collects the first bytes of a connection until its protocol is known.

    spoken: done when it is; reading is paused then, and taken() has what arrived so far.
    """

    def __init__(self) -> None:
        self.spoken: asyncio.Future[Spoken] = asyncio.get_running_loop().create_future()
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands; with TLS, the handshake is done."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes off the wire; TLS may still deliver some after reading was paused."""
        self._received += data
        spoken = recognise(self._received)
        if spoken is not None and not self.spoken.done():
            self._transport.pause_reading()
            self.spoken.set_result(spoken)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client hung up, or we did."""
        if not self.spoken.done():
            self.spoken.set_exception(ConnectionResetError("the client hung up"))

    def taken(self) -> bytes:
        """What has been received."""
        return self._received
