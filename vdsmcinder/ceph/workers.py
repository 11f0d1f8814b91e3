# SPDX-License-Identifier: GPL-2.0-or-later
"""The worker processes that talk to Ceph for the daemon: one for each cluster and user.

Every request has a deadline; a worker that overruns is killed, and while its cluster does not
answer, callers are told so at once, by CephFault, instead of waiting each for themselves. A worker
that nobody needs is ended.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vdsmcinder.ceph.fault_kinds import DOWN, KINDS, CephFault, Kind
from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.tasks import Tasks, within

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("worker.py")
# A process has to be made for the first request, on a machine that may be busy.
START_TIMEOUT_S = 10.0
# A cluster with many pools and troubles has a long line to say.
_LONGEST_LINE = 1 << 24
# Pauses between two probes of a cluster that does not answer, in seconds.
PROBE_FIRST_S = 1.0
PROBE_MAX_S = 10.0


class Key(Protocol):
    """A user's key, which shows itself to nobody by accident."""

    def reveal(self) -> bytes:
        """The key's bytes."""


@dataclass(frozen=True)
class Account:
    """A cluster, and who we are there.

    hosts: monitors; without any, conf_file or this host's ceph.conf names them. user: None where
    the cluster does not use CEPHX.
    """

    hosts: tuple[MonitorHost, ...]
    conf_file: str | None = None
    user: str | None = None

    def __str__(self) -> str:
        where = ",".join(map(monitor_text, self.hosts)) or self.conf_file or "ceph.conf"
        return f"{self.user or 'nobody'} at {where}"


def monitor_text(host: MonitorHost) -> str:
    """A monitor's address as Ceph writes it."""
    name = f"[{host.name}]" if ":" in host.name else host.name
    return name if host.port is None else f"{name}:{host.port}"


class Workers:
    """All workers. timeout_s: of a request that brings none of its own. idle_s: see config.py."""

    def __init__(
        self, timeout_s: float, idle_s: float, tasks: Tasks, program: Path = PROGRAM
    ) -> None:
        self.timeout_s = timeout_s
        self._idle_s = idle_s
        self._tasks = tasks
        self._program = program
        self._desks: dict[Account, _Desk] = {}
        self._leaving: dict[_Desk, asyncio.Task[None]] = {}

    @property
    def accounts(self) -> Sequence[Account]:
        """Those that have a worker, or had one that is being replaced."""
        return tuple(self._desks)

    async def ask(
        self,
        account: Account,
        key: Key | None,
        op: str,
        timeout_s: float | None = None,
        **args: Any,
    ) -> Any:
        """What the account's worker answers; op and args: an operation of ceph/worker.py's main().

        Raises CephFault; at once, if the cluster did not answer the last time and no probe has
        reached it since.
        """
        desk = self._desks.get(account)
        if desk is None or not desk.has(key):
            if desk is not None:
                self._replace(desk)
            desk = self._desks[account] = _Desk(account, key, self)
        return await desk.ask(op, args, self.timeout_s if timeout_s is None else timeout_s)

    def _replace(self, desk: _Desk) -> None:
        """Have a desk end that others follow; who has asked it already gets an answer."""
        self._retire(desk, desk.leave())

    def _retire(self, desk: _Desk, ending: Coroutine[Any, Any, None]) -> None:
        leaving = self._leaving[desk] = self._tasks.spawn(ending, f"end as {desk.account}")
        leaving.add_done_callback(lambda _: self._leaving.pop(desk, None))

    def found_down(self, account: Account, fault: CephFault) -> None:
        """Take in that the account's cluster is found not to answer, before its worker has."""
        desk = self._desks.get(account)
        if desk is not None:
            desk.is_down(fault)

    async def close(self) -> None:
        """End all workers."""
        desks = list(self._desks.values())
        self._desks.clear()
        for desk in self._leaving:
            desk.answered.set()
        await asyncio.gather(*(desk.close() for desk in desks), *self._leaving.values())
        await self._tasks.close()

    @property
    def idle_s(self) -> float:
        """How long a worker waits for work before it is ended."""
        return self._idle_s

    @property
    def program(self) -> Path:
        """The worker's source."""
        return self._program

    @property
    def tasks(self) -> Tasks:
        """Of what goes on for all workers."""
        return self._tasks

    def forget(self, desk: _Desk) -> None:
        """End the worker of an account that nobody asks about."""
        if self._desks.get(desk.account) is desk:
            del self._desks[desk.account]
        self._retire(desk, desk.close())


class _Desk:
    """One account's worker, whichever process that is now, and whether its cluster answers."""

    def __init__(self, account: Account, key: Key | None, owner: Workers) -> None:
        self.account = account
        self._key = key
        self._owner = owner
        self._process: _Process | None = None
        self._starting = asyncio.Lock()
        self._down: CephFault | None = None
        self._probe: asyncio.Task[None] | None = None
        self._asked_s = time.monotonic()
        self._asking = 0
        self.answered = asyncio.Event()  # nobody waits for an answer, or nobody is to
        self._idling: asyncio.TimerHandle | None = None

    def has(self, key: Key | None) -> bool:
        """Whether this is the key that it works with."""
        if self._key is None or key is None:
            return self._key is key
        return self._key.reveal() == key.reveal()

    async def ask(self, op: str, args: dict[str, Any], timeout_s: float) -> Any:
        """As Workers.ask()."""
        self._asked_s = time.monotonic()
        if self._down is not None:
            raise self._down
        self._asking += 1
        self.answered.clear()
        try:
            return await self._request(op, args, timeout_s)
        except CephFault as e:
            if e.kind in DOWN:
                self.is_down(e)
            raise
        finally:
            self._asking -= 1
            if not self._asking:
                self.answered.set()
            self._idle_later()

    async def leave(self) -> None:
        """End once all who have asked are answered."""
        if self._asking:
            await self.answered.wait()
        await self.close()

    def is_down(self, fault: CephFault) -> None:
        """Refuse with this fault from now on, until a probe succeeds."""
        if self._down is None:
            log.warning("Ceph does not answer %s: %s", self.account, fault)
            self._down = fault
            self._probe = self._owner.tasks.spawn(self._probing(), f"probe as {self.account}")

    async def _request(self, op: str, args: dict[str, Any], timeout_s: float) -> Any:
        process = await self._running()
        try:
            found = await within(process.request(op, args), timeout_s)
        except asyncio.TimeoutError:
            await process.kill()
            raise CephFault(Kind.OVERRUN, f"no answer within {timeout_s:g} s") from None
        except CephFault as e:
            if e.kind is Kind.BLOCKLISTED:
                # For as long as this client lives; a new one may be let in.
                await process.kill()
            elif e.kind is Kind.SLOW:
                await self._renew(process)
            raise
        if _any_slow(found):
            await self._renew(process)
        return found

    async def _renew(self, process: _Process) -> None:
        """Have the next request made by a new client.

        One whose requests end before librados takes their OSD for laggy (objecter_timeout, 10 s)
        asks for no new map, and goes on looking for the OSD where it was before it was restarted.
        """
        if not process.busy:
            await process.kill()

    async def _running(self) -> _Process:
        async with self._starting:
            if self._process is None or self._process.ended:
                start = _Process.start(self._owner, self.account, self._key)
                try:
                    self._process = await within(start, START_TIMEOUT_S, self._keep)
                except asyncio.TimeoutError:
                    raise CephFault(Kind.ENDED, "it did not start") from None
                except OSError as e:
                    # No memory or no file descriptor left for another process.
                    raise CephFault(Kind.ENDED, f"it could not be started: {e}") from e
                log.debug("worker process %d talks to Ceph as %s", self.pid, self.account)
            return self._process

    def _keep(self, process: _Process) -> None:
        """For whoever asks next, when the one that had it started does not wait any more."""
        self._process = process

    @property
    def pid(self) -> int:
        """The worker's process id, 0 for none."""
        return 0 if self._process is None or self._process.ended else self._process.pid

    async def _probing(self) -> None:
        """Try until the cluster answers, or nobody asks any more."""
        pause_s = PROBE_FIRST_S
        while time.monotonic() - self._asked_s < self._owner.idle_s:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PROBE_MAX_S)
            try:
                await self._request("connect", {}, self._owner.timeout_s)
            except CephFault as e:
                if e.kind in DOWN:
                    continue
            break
        else:
            log.debug("nobody asks for Ceph as %s any more", self.account)
        if self._down is not None:
            log.info("Ceph may be asked again as %s", self.account)
        self._down = None
        self._probe = None

    def _idle_later(self) -> None:
        if self._idling is not None:
            self._idling.cancel()
        loop = asyncio.get_running_loop()
        self._idling = loop.call_later(self._owner.idle_s, self._idle)

    def _idle(self) -> None:
        if self._process is not None and self._process.busy:
            self._idle_later()
            return
        self._owner.forget(self)

    async def close(self) -> None:
        """End the worker and the probe."""
        if self._idling is not None:
            self._idling.cancel()
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        async with self._starting:
            if self._process is not None:
                await self._process.kill()


class _Process:
    """A worker process, and the requests that wait for its answers."""

    def __init__(self, process: asyncio.subprocess.Process, tasks: Tasks) -> None:
        self._process = process
        self._tasks = tasks
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, owner: Workers, account: Account, key: Key | None) -> _Process:
        """A worker that has said that it is ready."""
        process = await asyncio.create_subprocess_exec(
            # -I: nothing of the environment or the working directory is imported.
            *(sys.executable, "-I", str(owner.program)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_LONGEST_LINE,
        )
        self = cls(process, owner.tasks)
        try:
            self._write(_access(account, key, owner.timeout_s))
            assert process.stdout is not None
            if await process.stdout.readline() != b"ready\n":
                raise CephFault(Kind.ENDED, "are python3-rados and python3-rbd installed?")
        except BaseException:
            await self.kill()
            raise
        self._reader = owner.tasks.spawn(self._read(), f"read process {process.pid}")
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it answers nothing any more."""
        return self._reader is None or self._reader.done()

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._waiting)

    async def request(self, op: str, args: dict[str, Any]) -> Any:
        """Ask, and wait for the answer. Raises CephFault."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._write({"id": number, "op": op, "args": args})
            return result(await answer)
        finally:
            self._waiting.pop(number, None)

    def _write(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                answer = json.loads(line)
                waiting = self._waiting.get(answer["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        finally:
            gone = CephFault(Kind.ENDED)
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(gone)

    async def kill(self) -> None:
        """End it; whoever still waits for an answer is told so."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)


def result(answer: dict[str, Any]) -> Any:
    """The result in an answer of ceph/worker.py's; CephFault for its error."""
    error = answer.get("error")
    if error is not None:
        raise CephFault(KINDS[error["kind"]], error["text"])
    return answer["result"]


def _any_slow(found: Any) -> bool:
    """Whether the OSDs of one of several images did not answer."""
    answers = found if isinstance(found, list) else ()
    errors = (a.get("error") for a in answers if isinstance(a, dict))
    return any(KINDS.get(error["kind"]) is Kind.SLOW for error in errors if error)


def _access(account: Account, key: Key | None, timeout_s: float) -> dict[str, Any]:
    """What the worker reads first; by a pipe, for it holds the key."""
    return {
        "mon_host": ",".join(map(monitor_text, account.hosts)),
        "conf_file": account.conf_file,
        "user": account.user,
        "key": None if key is None else base64.b64encode(key.reveal()).decode(),
        # Sooner than our own deadline, so that a worker that can end a request itself lives on.
        "timeout_s": round(0.7 * timeout_s, 2),
    }
