# SPDX-License-Identifier: GPL-2.0-or-later
"""Both sides of STOMP's heart-beating, as timers: ours are sent, the peer's are expected.

Intervals are in milliseconds, as the headers have them.
"""

from __future__ import annotations

import asyncio
from typing import Callable

# Ours go out after this part of the interval, so that a busy loop still keeps the promise;
SEND_EARLY = 0.6
# the peer's may be late by this part of it ("Heart-beating" asks for an error margin).
GRACE = 0.75


class Heart:
    """Sends and expects heart-beats once started.

    send: called when a heart-beat is due. on_silence: called once, with the seconds passed, when
    the peer was silent for longer than agreed plus a grace. The owner sets last_heard to the
    loop's time whenever anything arrives, and deaf while it does not listen.
    """

    def __init__(self, send: Callable[[], None], on_silence: Callable[[float], None]) -> None:
        self.last_heard = 0.0
        self.deaf = False
        self._loop = asyncio.get_running_loop()
        self._send = send
        self._on_silence = on_silence
        self._send_timer: asyncio.TimerHandle | None = None
        self._silence_timer: asyncio.TimerHandle | None = None

    def start(self, send_every_ms: int, expect_every_ms: int) -> None:
        """Begin, or begin anew; an interval of 0 is never."""
        self.stop()
        self._interval_s = send_every_ms / 1000 * SEND_EARLY
        self._patience_s = expect_every_ms / 1000 * (1 + GRACE)
        self.last_heard = self._loop.time()
        if send_every_ms:
            self._send_timer = self._loop.call_later(self._interval_s, self._beat)
        if expect_every_ms:
            self._silence_timer = self._loop.call_later(self._patience_s, self._check)

    def stop(self) -> None:
        """End both; may be called at any time."""
        for timer in (self._send_timer, self._silence_timer):
            if timer is not None:
                timer.cancel()

    def _beat(self) -> None:
        self._send_timer = self._loop.call_later(self._interval_s, self._beat)
        self._send()

    def _check(self) -> None:
        if self.deaf:
            self.last_heard = self._loop.time()
        silent_s = self._loop.time() - self.last_heard
        left_s = self._patience_s - silent_s
        if left_s > 0:
            self._silence_timer = self._loop.call_later(left_s, self._check)
        else:
            self._on_silence(silent_s)
