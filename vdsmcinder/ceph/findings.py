# SPDX-License-Identifier: GPL-2.0-or-later
"""What a check for an operator found: how it ended, what it saw, and what mends it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.Enum):
    """How a check ended, the better ones first."""

    OK = "ok"
    UNKNOWN = "not checked"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """check: what was looked at. remedy: what to do, a command where one mends it."""

    check: str
    state: State
    message: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """Something to look at, by its name; its methods are the ways in which that ends."""

    name: str

    def ok(self, message: str) -> Finding:
        """Nothing is wrong."""
        return Finding(self.name, State.OK, message)

    def unknown(self, message: str, remedy: str = "") -> Finding:
        """It could not be looked at."""
        return Finding(self.name, State.UNKNOWN, message, remedy)

    def warning(self, message: str, remedy: str) -> Finding:
        """Something should not be so, and VMs can run nevertheless."""
        return Finding(self.name, State.WARNING, message, remedy)

    def wrong(self, message: str, remedy: str) -> Finding:
        """Something keeps VMs from running."""
        return Finding(self.name, State.WRONG, message, remedy)
