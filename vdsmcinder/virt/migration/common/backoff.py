# SPDX-License-Identifier: GPL-2.0-or-later
"""How long to wait before something is tried again."""

from __future__ import annotations

FIRST_RETRY_S = 0.2
MOST_RETRY_S = 5.0


class Backoff:
    """Pauses between tries: each twice as long as the one before, up to most_s."""

    def __init__(self, most_s: float = MOST_RETRY_S) -> None:
        self._most_s = most_s
        self._next_s = FIRST_RETRY_S

    def restart(self) -> None:
        """Begin with FIRST_RETRY_S again."""
        self._next_s = FIRST_RETRY_S

    def pause_s(self) -> float:
        """How long to wait now, in seconds."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, self._most_s)
        return pause_s
