# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells a person what a long run is doing: one line a step, with a tick or a cross and its time.

Where nobody watches, a step that takes long says every five seconds what it waits for.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

DONE, FAILED = "✔", "✘"
WIDTH = 70
PLAIN_EVERY_S = 5.0


class Step:
    """One running step; `progress` replaces the remark that is shown beside it while it runs."""

    def __init__(self, title: str, out: TextIO) -> None:
        self.title = title
        self._out = out
        self._remark = ""
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._tick, name="step-clock", daemon=True)
        self._clock.start()

    def progress(self, remark: str) -> None:
        """Say how far the step is, for instance "2 of 3"."""
        self._remark = remark

    def end(self, mark: str) -> None:
        """Print the final line of the step."""
        self._ended.set()
        self._clock.join()
        if mark == DONE:
            self._remark = ""
        erase = "\r\033[K" if self._out.isatty() else ""
        print(f"{erase}{mark} {self._line()}", file=self._out, flush=True)

    def _line(self) -> str:
        text = f"{self.title} ({self._remark})" if self._remark else self.title
        return f"{text:<{WIDTH}} {time.monotonic() - self._started:6.1f} s"

    def _tick(self) -> None:
        live = self._out.isatty()
        before, after = ("\r\033[K… ", "") if live else ("… ", "\n")
        while not self._ended.wait(0.2 if live else PLAIN_EVERY_S):
            print(f"{before}{self._line()}", end=after, file=self._out, flush=True)


class Steps:
    """A run of steps; remembers the one that failed."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self.failed: str | None = None

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while the body runs: a tick if it returns, a cross if it raises."""
        step = Step(title, self._out)
        try:
            yield step
        except BaseException:
            self.failed = title
            step.end(FAILED)
            raise
        step.end(DONE)
