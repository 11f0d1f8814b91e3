# SPDX-License-Identifier: GPL-2.0-or-later
"""A line to libvirt: one connection of the bindings, and the thread in which its events come.

Which calls go on which line is decided in hypervisor/connection.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from dataclasses import dataclass
from typing import Any, Callable

import libvirt

log = logging.getLogger(__name__)

# libvirtd on the same host that answers none of these is hung: 5 s apart, 3 of them.
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_COUNT = 3


@dataclass(eq=False)
class Line:
    """A connection for calls. calls: how many are under way on it."""

    handle: libvirt.virConnect
    calls: int = 0


def open_handle(uri: str) -> libvirt.virConnect:
    """A connection to libvirt; runs in a thread."""
    handle = libvirt.open(uri)
    if is_remote(handle):
        handle.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
    return handle


def is_remote(handle: libvirt.virConnect) -> bool:
    """Whether a daemon answers; libvirt's test driver, which has no wire, has no keep-alive."""
    return bool(handle.getType() == "QEMU")


def is_alive(handle: libvirt.virConnect) -> bool:
    """Whether libvirtd is still there; False for a connection that was closed after it had gone."""
    try:
        return bool(handle.isAlive())
    except libvirt.libvirtError:
        return False


def close(handle: libvirt.virConnect) -> None:
    """Close a connection, which may be dead; runs in a thread."""
    try:
        handle.close()
    except libvirt.libvirtError as e:
        log.debug("closing a connection to libvirt: %s", e)


@functools.cache
def start_events() -> None:
    """Run libvirt's event loop in a thread; there is one for the whole process.

    libvirtaio would put the events straight on our loop, but libvirt updates its watches in the
    threads that make calls, and there libvirtaio touches the loop, which is not thread-safe.
    """
    libvirt.registerErrorHandler(_discard_error, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_run_events, name="libvirt events", daemon=True).start()


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def on_loop(loop: asyncio.AbstractEventLoop, handler: Callable[..., None]) -> Callable[..., None]:
    """A callback for libvirt's event thread that has handler called on the loop.

    handler gets (uuid, *details): the domain's uuid in place of libvirt's objects.
    """

    def forward(_conn: Any, domain: libvirt.virDomain, *details: Any) -> None:
        # Once the loop has ended there is nobody left to be told.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(handler, domain.UUIDString(), *details[:-1])

    return forward


def _discard_error(_context: Any, _error: Any) -> None:
    """libvirt prints errors to stderr unless told otherwise; they reach us as exceptions."""
