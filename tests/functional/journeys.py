# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that tests of migration share: brought home after each, or made anew for the next."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from lab.base import LabError
from lab.engine import Engine
from lab.migrating_vm import Traveller
from tests.functional.helpers import status
from vdsmcinder.errors import RemoteError

# What somebody says who does not find it as it should be.
_NOT_SO = (RemoteError, LabError, AssertionError, OSError)


class Journeys:
    """One VM at a time, at home with the first of the engines; more: devices beside its disk."""

    def __init__(self, engines: Sequence[Engine], *more: Mapping[str, Any]) -> None:
        self._engines = engines
        self._more = more
        self._vm: Traveller | None = None
        self._stack = AsyncExitStack()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Traveller]:
        """The VM, at home; whatever became of it meanwhile, the next finds it so, too."""
        if self._vm is None:
            vm = Traveller(self._engines, *self._more)
            await self._stack.enter_async_context(vm)
            self._vm = vm
        try:
            yield self._vm
        finally:
            if not await _comes_home(self._vm):
                # The test that left it so has failed already.
                with contextlib.suppress(*_NOT_SO):
                    await self.end()

    async def end(self) -> None:
        """Leave nothing of it on any host."""
        self._vm = None
        await self._stack.aclose()


async def _comes_home(vm: Traveller) -> bool:
    """Whether the VM is at home, and all is as it was: its guest quiet, no other host knows it."""
    home = vm.engines[0]
    try:
        if vm.writing or await status(vm.here, vm.id) != "Up":
            return False
        if vm.here is not home:
            await vm.go()
        for other in vm.engines[1:]:
            if vm.id in await other.call("Host.getVMList", onlyUUID=True):
                return False
        return await status(home, vm.id) == "Up"
    except _NOT_SO:
        return False
