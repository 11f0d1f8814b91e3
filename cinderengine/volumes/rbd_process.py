# SPDX-License-Identifier: GPL-2.0-or-later
"""One worker process for a Ceph pool: started for the first request, killed when it overruns."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import sys
from pathlib import Path
from typing import Any

from cinderengine.model.secret import Secret
from cinderengine.volumes.addresses import PoolAddress
from cinderengine.volumes.rbd_faults import PoolFault
from vdsmcinder.tasks import Tasks, within

log = logging.getLogger(__name__)

PROGRAM = Path(__file__).with_name("rbd_worker.py")
# A process has to be made, on a machine that may be busy.
START_TIMEOUT_S = 20.0
# Ten thousand images have a long line of names.
LONGEST_LINE = 1 << 24


class Worker:
    """Who works on a pool; another process in the place of one that had to be killed."""

    def __init__(
        self, address: PoolAddress, user: str, key: Secret, timeout_s: float, tasks: Tasks
    ) -> None:
        self._address = address
        self._user = user
        self._key = key
        self._timeout_s = timeout_s
        self._tasks = tasks
        self._starting = asyncio.Lock()
        self._process: _Process | None = None

    @property
    def pid(self) -> int:
        """Its process id, 0 for none."""
        return 0 if self._process is None or self._process.ended else self._process.pid

    async def ask(self, op: str, timeout_s: float, **args: Any) -> Any:
        """What the worker answers; op and args: an operation of rbd_worker.py. Raises PoolFault."""
        process = await self._running()
        try:
            return await within(process.request(op, args), timeout_s)
        except TimeoutError:
            # Others that wait for it are told that it ended.
            await process.kill()
            raise PoolFault("overrun", f"within {timeout_s:g} s") from None
        except PoolFault as e:
            if e.kind in ("blocklisted", "denied"):
                # Ceph goes by what held when a client connected: a new one may be let in.
                await process.retire()
            raise

    async def close(self) -> None:
        """End it."""
        async with self._starting:
            if self._process is not None:
                await self._process.kill()

    async def _running(self) -> _Process:
        async with self._starting:
            if self._process is None or self._process.ended:
                try:
                    self._process = await within(self._start(), START_TIMEOUT_S)
                except TimeoutError:
                    raise PoolFault("ended", "it did not start") from None
                except OSError as e:
                    # No memory or no file descriptor left for another process.
                    raise PoolFault("ended", f"it could not be started: {e}") from e
            return self._process

    async def _start(self) -> _Process:
        # By a pipe, for it holds the key.
        access = {
            "mon_host": self._address.mon_host,
            "pool": self._address.pool,
            "user": self._user,
            "key": self._key.reveal(),
            "timeout_s": self._timeout_s,
        }
        process = await _Process.start(access, self._tasks)
        log.debug("process %d works on pool %s", process.pid, self._address.pool)
        return process


class _Process:
    """A worker process, and the requests that wait for its answers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._retired = False

    @classmethod
    async def start(cls, access: dict[str, Any], tasks: Tasks) -> _Process:
        """A worker that has said that it is ready."""
        process = await asyncio.create_subprocess_exec(
            # -I: nothing of the environment or the working directory is imported.
            *(sys.executable, "-I", str(PROGRAM)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=LONGEST_LINE,
        )
        self = cls(process)
        try:
            self._write(access)
            assert process.stdout is not None
            if await process.stdout.readline() != b"ready\n":
                raise PoolFault("ended", "it did not say that it is ready")
        except BaseException:
            await self.kill()
            raise
        self._reader = tasks.spawn(self._read(), f"read process {process.pid}")
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is asked nothing any more."""
        return self._retired or self._reader is None or self._reader.done()

    async def request(self, op: str, args: dict[str, Any]) -> Any:
        """Ask, and wait for the answer. Raises PoolFault."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._write({"id": number, "op": op, "args": args})
            told = await answer
        finally:
            self._waiting.pop(number, None)
            if self._retired and not self._waiting:
                self._end_input()
        error = told.get("error")
        if error is not None:
            raise PoolFault(error["kind"], error["text"])
        return told["result"]

    async def retire(self) -> None:
        """Have it end once all who have asked it are answered."""
        self._retired = True
        if not self._waiting:
            self._end_input()

    async def kill(self) -> None:
        """End it; whoever still waits for an answer is told so."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        if self._reader is not None:
            await asyncio.wait({self._reader})

    def _end_input(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

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
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(PoolFault("ended", "it was killed or it crashed"))
