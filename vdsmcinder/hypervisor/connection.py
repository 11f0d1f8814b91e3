# SPDX-License-Identifier: GPL-2.0-or-later
"""The one door to libvirt: calls go out in a bounded thread pool, events come back on the loop.

It keeps trying to reach a libvirtd that is gone, and until it is back every call fails at once,
with ResourceUnavailable, instead of hanging. A call that does not come back in time raises
CallOverrun.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, TypeVar

import libvirt

from vdsmcinder.config import Libvirt as LibvirtConfig
from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.hypervisor.handles import (
    Line,
    close,
    is_alive,
    is_remote,
    on_loop,
    open_handle,
    start_events,
)
from vdsmcinder.system.counters import OK, Tally
from vdsmcinder.tasks import Tasks, within

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_RETRY_S = 0.1
# A call that takes so long may be one that hangs, and then no other is made on its connection any
# more: libvirtd works on 5 calls of one client at once (max_client_requests), and does not even
# hear its keep-alive messages while those hang. And before libvirt 10.1 a call that shares a
# connection with one that waits may itself be sent seconds later ("rpc: fix race in waking up
# client event loop").
SLOW_S = 0.2
# So long calls under way have to come back when the connection is closed: most take milliseconds,
# and the interpreter waits for their threads. Not for those that hang.
GRACE_S = 1.0

CLOSE_REASONS: Mapping[int, str] = {
    libvirt.VIR_CONNECT_CLOSE_REASON_ERROR: "the connection failed",
    libvirt.VIR_CONNECT_CLOSE_REASON_EOF: "libvirtd ended",
    libvirt.VIR_CONNECT_CLOSE_REASON_KEEPALIVE: "libvirtd does not answer keep-alive messages",
}


class CallOverrun(ResourceUnavailable):
    """A libvirt call did not come back within its deadline; its thread still waits for it.

    finished: done when the call comes back after all, however long that takes.
    """

    def __init__(self, message: str, finished: asyncio.Future[Any]) -> None:
        super().__init__(message)
        self.finished = finished


class ConnectionLost(ResourceUnavailable):
    """libvirt went away during a call: what it was to do may be done, or not."""


class Connection:
    """libvirt at arm's length: one connection for events, and another for calls.

    Calls that hang take theirs with them: those that follow are made on a new one.

    tallies: how calls ended ('ok', 'error', 'overrun') and how long they took, by what was called.
    """

    def __init__(self, config: LibvirtConfig, tasks: Tasks) -> None:
        self._config = config
        self._tasks = tasks
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="libvirt")
        self._line: Line | None = None
        self._handles: list[libvirt.virConnect] = []
        self._moving: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._reason = "the connection is being made"
        self._overruns: set[asyncio.Future[Any]] = set()
        self._calls: set[asyncio.Future[Any]] = set()
        self.tallies: defaultdict[str, Tally] = defaultdict(Tally)

    @property
    def ready(self) -> bool:
        """Whether libvirt can be called now."""
        return self._line is not None

    @property
    def trouble(self) -> str:
        """Why libvirt cannot be called now; empty when it can."""
        if self._line is not None:
            return ""
        return (
            f"libvirt at {self._config.uri} cannot be reached ({self._reason}); check that "
            "libvirtd runs, the call can be made again when it does"
        )

    @property
    def handle(self) -> libvirt.virConnect:
        """libvirt's connection object, for bound methods to pass to call().

        Raises ResourceUnavailable at once while libvirt cannot be reached.
        """
        return self._open_line().handle

    def _open_line(self) -> Line:
        if self._line is None:
            raise ResourceUnavailable(self.trouble, uri=self._config.uri)
        return self._line

    def open_another(self) -> libvirt.virConnect:
        """A connection that the caller shares with nobody, and closes; for the thread pool."""
        return open_handle(self._config.uri)

    def require(self) -> None:
        """Raise ResourceUnavailable (40) while libvirt cannot be reached."""
        _ = self.handle

    @property
    def call_timeout_s(self) -> float:
        """The deadline of a call for which no other is given, in seconds."""
        return self._config.call_timeout_s

    @property
    def threads(self) -> int:
        """How many calls may be under way at once."""
        return self._config.threads

    @property
    def threads_busy(self) -> int:
        """How many of the pool's threads make a call, those that are stuck included."""
        return min(len(self._calls), self.threads)

    @property
    def calls_waiting(self) -> int:
        """Calls that wait for a thread."""
        return len(self._calls) - self.threads_busy

    @property
    def calls_under_way(self) -> int:
        """Calls that have not come back, whatever their deadline."""
        return len(self._calls)

    @property
    def stuck_calls(self) -> int:
        """Calls that overran their deadline and have not come back yet."""
        return len(self._overruns)

    def start(
        self,
        on_up: Callable[[], Awaitable[None]],
        event_handlers: Mapping[int, Callable[..., None]],
    ) -> None:
        """Register libvirt's events on the running loop and begin to connect.

        on_up: awaited each time a connection stands and its events are subscribed; again if it
        fails. event_handlers: libvirt's event ids (VIR_DOMAIN_EVENT_ID_...) with the callbacks that
        take them, called on the loop with the domain's uuid and what the event says.
        """
        start_events()
        self._tasks.spawn(self._keep_connected(on_up, event_handlers), "keep the connection")

    async def close(self) -> None:
        """Close the connection; what is under way has a moment to come back, and nobody asks."""
        await self._tasks.close()
        if self._calls:
            await asyncio.wait(self._calls, timeout=GRACE_S)
        self._pool.shutdown(wait=False)

    async def call(self, func: Callable[..., T], *args: Any, timeout_s: float | None = None) -> T:
        """Run func(*args), which makes libvirt calls, in the thread pool.

        timeout_s: deadline in seconds, libvirt.call_timeout_s of the configuration if not given.
        Raises libvirt.libvirtError as libvirt does; ResourceUnavailable when libvirt is gone,
        ConnectionLost when it goes meanwhile; CallOverrun when the deadline passes first.
        """
        line = self._open_line()
        deadline_s = self._config.call_timeout_s if timeout_s is None else timeout_s
        began_ns = time.perf_counter_ns()
        running = self._submit(functools.partial(self._judged, line, func, args))
        line.calls += 1
        running.add_done_callback(lambda _: self._leave(line))
        done, _ = await asyncio.wait({running}, timeout=min(deadline_s, SLOW_S))
        if not done:
            self._is_slow(line)
            done, _ = await asyncio.wait({running}, timeout=max(deadline_s - SLOW_S, 0))
        self.tallies[_called(func)].add(_outcome(running), time.perf_counter_ns() - began_ns)
        if not done:
            raise self._overrun(func, running, deadline_s)
        return await running

    async def on_domain(
        self, uuid: str, func: Callable[..., T], *args: Any, timeout_s: float | None = None
    ) -> T:
        """Run func(domain, *args) in the thread pool, on libvirt's domain of that uuid.

        func is usually a method of libvirt.virDomain. Raises as call() does.
        """
        handle = self.handle

        def run() -> T:
            return func(handle.lookupByUUIDString(uuid), *args)

        run.__name__ = _called(func)
        return await self.call(run, timeout_s=timeout_s)

    def _judged(self, line: Line, func: Callable[..., T], args: tuple[Any, ...]) -> T:
        """Make a call; tell what libvirt refuses from a libvirt that has gone. Runs in a thread."""
        try:
            return func(*args)
        except libvirt.libvirtError as e:
            # Asked here, while the call counts as under way, so that its line is open.
            if is_alive(line.handle):
                raise
            raise ConnectionLost(
                f"libvirt at {self._config.uri} went away during the call ({e}); check that "
                "libvirtd runs, the call can be made again when it does"
            ) from e

    def _submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        # What the thread logs is marked as what is logged here.
        marked = functools.partial(contextvars.copy_context().run, call)
        running = asyncio.get_running_loop().run_in_executor(self._pool, marked)
        self._calls.add(running)
        running.add_done_callback(self._count_off)
        return running

    def _count_off(self, running: asyncio.Future[Any]) -> None:
        self._calls.discard(running)
        # Who asked may be gone by now, and asyncio would log what nobody takes.
        if not running.cancelled():
            running.exception()

    def _is_slow(self, line: Line) -> None:
        if line is self._line and self._moving is None:
            self._moving = self._tasks.spawn(self._move(line), "open another")
            self._moving.add_done_callback(self._moved)

    def _leave(self, line: Line) -> None:
        """A call on the line has come back."""
        line.calls -= 1
        self._close_unused(line)

    def _close_unused(self, line: Line) -> None:
        """Close a line that others have followed, once its last call has come back."""
        if not line.calls and line is not self._line and line.handle in self._handles:
            self._handles.remove(line.handle)
            asyncio.get_running_loop().run_in_executor(None, close, line.handle)

    async def _move(self, line: Line) -> None:
        """Make the calls that follow on a new line; libvirtd may be slow to open one, too."""
        if not is_remote(line.handle):
            return
        try:
            handle = await asyncio.to_thread(open_handle, self._config.uri)
        except libvirt.libvirtError as e:
            log.warning("no further connection to libvirt could be opened: %s", e)
            return
        if self._line is line:
            log.debug("a call keeps its connection to libvirt busy; others get a new one")
            self._line = Line(handle)
            self._handles.append(handle)
            self._close_unused(line)
        else:
            await asyncio.to_thread(close, handle)

    def _moved(self, _task: asyncio.Task[None]) -> None:
        self._moving = None

    def _overrun(
        self, func: Callable[..., Any], running: asyncio.Future[Any], deadline_s: float
    ) -> CallOverrun:
        self._overruns.add(running)
        running.add_done_callback(self._came_back)
        return CallOverrun(
            f"libvirt's {_called(func)} did not come back within {deadline_s:g} s; check whether "
            "libvirtd and the VM's QEMU process respond",
            running,
        )

    def _came_back(self, running: asyncio.Future[Any]) -> None:
        self._overruns.discard(running)
        if not running.cancelled() and running.exception() is not None:
            log.info("a libvirt call that overran its deadline failed: %s", running.exception())

    async def _keep_connected(
        self,
        on_up: Callable[[], Awaitable[None]],
        event_handlers: Mapping[int, Callable[..., None]],
    ) -> None:
        pause_s = FIRST_RETRY_S
        while True:
            if not await self._connect(event_handlers):
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, self._config.reconnect_max_s)
                continue
            pause_s = FIRST_RETRY_S
            try:
                await self._come_up(on_up)
                await self._lost.wait()
            finally:
                await self._release()

    async def _come_up(self, on_up: Callable[[], Awaitable[None]]) -> None:
        """Await on_up until it succeeds, or the connection is lost."""
        uri, pause_s = self._config.uri, FIRST_RETRY_S
        while not self._lost.is_set():
            try:
                return await on_up()
            except (libvirt.libvirtError, ResourceUnavailable) as e:
                log.error("what libvirt at %s runs cannot be read: %s; trying on", uri, e)
            except Exception:
                log.exception("what libvirt at %s runs cannot be read; trying on", uri)
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._lost.wait(), pause_s)
            pause_s = min(pause_s * 2, self._config.reconnect_max_s)

    async def _connect(self, event_handlers: Mapping[int, Callable[..., None]]) -> bool:
        loop = asyncio.get_running_loop()
        opening = self._submit(functools.partial(self._open, loop, event_handlers))
        try:
            handles = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._unwanted)
            raise
        except libvirt.libvirtError as e:
            if str(e) != self._reason:
                log.error("libvirt at %s cannot be reached: %s; trying on", self._config.uri, e)
            self._reason = str(e)
            return False
        except Exception as e:
            # Such as no memory for another thread: it is tried again all the same.
            log.exception("libvirt at %s cannot be reached; trying on", self._config.uri)
            self._reason = str(e) or type(e).__name__
            return False
        self._handles, self._line = handles, Line(handles[-1])
        log.info("connected to libvirt at %s", self._config.uri)
        return True

    def _open(
        self, loop: asyncio.AbstractEventLoop, event_handlers: Mapping[int, Callable[..., None]]
    ) -> list[libvirt.virConnect]:
        """Connect for events and word of the connection's end, then for calls; for the pool."""
        handle = open_handle(self._config.uri)
        self._lost.clear()
        handle.registerCloseCallback(
            lambda _conn, reason, _opaque: loop.call_soon_threadsafe(self._closed, reason), None
        )
        for event_id, handler in event_handlers.items():
            handle.domainEventRegisterAny(None, event_id, on_loop(loop, handler), None)
        # The test driver's connections may each have domains of their own.
        return [handle, open_handle(self._config.uri)] if is_remote(handle) else [handle]

    def _unwanted(self, opening: asyncio.Future[list[libvirt.virConnect]]) -> None:
        """What was opened for a connection that was closed meanwhile."""
        if not opening.cancelled() and opening.exception() is None:
            for handle in opening.result():
                asyncio.get_running_loop().run_in_executor(None, close, handle)

    def _closed(self, reason: int) -> None:
        self._reason = CLOSE_REASONS.get(reason, "the connection was closed")
        log.error("lost libvirt at %s: %s", self._config.uri, self._reason)
        self._line = None
        self._lost.set()

    async def _release(self) -> None:
        """Let go of the connections that are lost or no longer wanted."""
        # One that was lost before it was ours is here still.
        self._line = None
        handles, self._handles = self._handles, []
        for handle in handles:
            await self._submit(functools.partial(close, handle))


def _called(func: Callable[..., Any]) -> str:
    """What is called, for messages and metrics; that a function is private is not their matter."""
    name = str(getattr(func, "__name__", "call"))
    return "call" if name == "<lambda>" else name.lstrip("_")


def _outcome(running: asyncio.Future[Any]) -> str:
    if not running.done():
        return "overrun"
    return "error" if running.cancelled() or running.exception() is not None else OK
