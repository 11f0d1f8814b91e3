# SPDX-License-Identifier: GPL-2.0-or-later
"""When a post-copy that broke off is tried again, and how; pure, as machine.py is."""

from __future__ import annotations

from vdsmcinder.virt.migration.common.backoff import Backoff

# All in seconds. No data for so long is worth a question.
STILL_S = 5.0
# TCP tries again every 2 minutes at least. Of a connection that is dead after that QEMU learns from
# its kernel after 15 minutes, or from us.
DEAD_S = 150.0
# How long QEMU may take to go on before that is told.
HANGS_S = 60.0


class Recovery:
    """All tries to go on with one migration."""

    def __init__(self) -> None:
        self._told = False
        self._backoff = Backoff()
        self._moved_before = 0
        self._runs_there_since_s: float | None = None

    def pause_s(self, moved: int) -> float:
        """How long to wait before the next try. moved: bytes that are there by now."""
        if moved != self._moved_before:
            self._moved_before, self._told = moved, False
            self._backoff.restart()
        return self._backoff.pause_s()

    def is_news(self) -> bool:
        """Whether that it broke off has not been told since it last went on; it is told then."""
        told, self._told = self._told, True
        return not told

    def not_heard(self) -> None:
        """The other host does not say that the VM runs there."""
        self._runs_there_since_s = None

    def runs_there(self, still_s: float, now_s: float) -> bool:
        """It does; whether the connection is to be given up, for it will not come to life.

        still_s: for how long no data has moved.
        """
        self._runs_there_since_s = self._runs_there_since_s or now_s
        return min(still_s, now_s - self._runs_there_since_s) >= DEAD_S
