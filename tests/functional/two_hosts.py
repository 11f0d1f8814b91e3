# SPDX-License-Identifier: GPL-2.0-or-later
"""A second host for tests of migration: an engine of its daemon, and what is said to both."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

from lab.engine import Engine, new_id
from lab.host.daemon import HostDaemon
from lab.running import Lab
from tests.functional.helpers import OPTIONS, engine_on, running

# MiB/s: so slow that the copying is under way for as long as a test wants.
SLOW = 1


@asynccontextmanager
async def host2(
    lab: Lab, engine: Engine, name: str, migration: dict[str, Any], **sections: Any
) -> AsyncIterator[Engine]:
    """An engine of a daemon on host2 with these options of migrations, and the same key."""
    options = {**OPTIONS, "migration": migration, **sections}
    async with engine_on(lab, lab.hosts["host2"], name, options) as other:
        other.secret_id = engine.secret_id
        await other.register_key()
        yield other


def idle(engine: Engine, image: str, **changes: Any) -> AbstractAsyncContextManager[str]:
    """A VM with a disk and nothing to boot. changes: further parameters of VM.create."""
    return running(engine, {**engine.flat(new_id(), engine.disk(image)), **changes})


def where(engine: Engine, vm_id: str, **params: Any) -> dict[str, Any]:
    """The parameters that move a VM to the host of that engine."""
    dst = f"{engine.daemon.host.name}:{engine.daemon.port}"
    return {"vmID": vm_id, "params": {"vmId": vm_id, "dst": dst, "dstparams": "", **params}}


async def offer(engine: Engine, vm_id: str, document: str | None = None) -> dict[str, Any]:
    """The parameters with which an engine's daemon announces a VM of its own to another's.

    document: in place of the VM's own.
    """
    own = await engine.call("Host.dumpxmls", vmList=[vm_id])
    about = {"migrationId": new_id(), "source": "a test", "handover": "confirmed"}
    return {"vmID": vm_id, "params": {"vmId": vm_id, "xml": document or own[vm_id], **about}}


@contextmanager
def frozen(daemon: HostDaemon) -> Iterator[None]:
    """The daemon is there, and does nothing."""
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        # nsenter, in front of it, has stopped with it.
        os.kill(daemon.process.pid, signal.SIGCONT)
        daemon.process.send_signal(signal.SIGCONT)
