# SPDX-License-Identifier: GPL-2.0-or-later
"""The requests that are served on one VM, to which the log lays what libvirt tells meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vdsmcinder import logs


class Commands:
    """Those under way, in the order in which they began."""

    def __init__(self) -> None:
        self._causes: list[logs.Cause] = []

    @property
    def latest(self) -> logs.Cause | None:
        """The one that began last, if any is under way."""
        return self._causes[-1] if self._causes else None

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Log what libvirt tells of the VM meanwhile as caused by the request that is served here.

        Its events come on their own, often before the call that causes them returns.
        """
        cause = logs.cause()
        if cause is None:
            yield
            return
        self._causes.append(cause)
        try:
            yield
        finally:
            self._causes.remove(cause)
