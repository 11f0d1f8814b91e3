# SPDX-License-Identifier: GPL-2.0-or-later
"""The event fan-out: 1,000 events to 100 subscribers, until the last one has the last event.

The daemon runs on libvirt's test driver and publishes a burst when it gets SIGUSR1; the rival is a
bare asyncio server that writes the same frames to all its connections.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import wire
from bench.report import Row, Sample
from lab.base import REPOSITORY
from lab.host.local import HOST, LocalDaemon
from lab.running import Lab
from lab.steps import Step
from vdsmcinder import daemon
from vdsmcinder.stomp.session import event_tail

EVENTS = 1000
SUBSCRIBERS = 100
ROUNDS = 9
TIMEOUT_S = 60.0
VM_ID = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"
NAME = f"|virt|VM_status|{VM_ID}"
PARAMS = {VM_ID: {"status": "Up", "hash": "6372166ed1833779"}}


def run(_lab: Lab | None, step: Step) -> list[Row]:
    """Time bursts, ours and the rival's in turn."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        program = ("bench.fanout", "--serve")
        host = stack.enter_context(LocalDaemon(Path(directory), program=program))
        rival, rival_port = stack.enter_context(_rival())
        crowds = {
            pid: [wire.Connection(HOST, port, destination=wire.EVENTS) for _ in range(SUBSCRIBERS)]
            for pid, port in ((host.pid, host.port), (rival.pid, rival_port))
        }
        taken: dict[int, list[float]] = {pid: [] for pid in crowds}
        for number in range(ROUNDS):
            step.progress(f"{number + 1} of {ROUNDS}")
            for pid, crowd in crowds.items():
                taken[pid].append(burst(pid, crowd) * 1e3)
    ours, theirs = (Sample(tuple(values), "ms") for values in taken.values())
    return [Row(f"{EVENTS:,} events to {SUBSCRIBERS}", ours, "bare asyncio", theirs)]


def burst(pid: int, crowd: list[wire.Connection]) -> float:
    """Seconds from the word to publish until all subscribers have all events."""
    missing = {c.socket.fileno(): EVENTS for c in crowd}
    with selectors.DefaultSelector() as selector:
        for connection in crowd:
            selector.register(connection.socket, selectors.EVENT_READ)
        began = time.perf_counter()
        subprocess.run(["kill", "-USR1", str(pid)], check=True)
        while missing:
            for key, _ in selector.select(TIMEOUT_S):
                missing[key.fd] -= key.fileobj.recv(1 << 18).count(b"\0")  # type: ignore[union-attr]
                if missing[key.fd] == 0:
                    del missing[key.fd]
                    selector.unregister(key.fileobj)
        return time.perf_counter() - began


# --- the servers -------------------------------------------------------------------------------


class Bursting(daemon.Daemon):
    """The daemon, with a burst of events for SIGUSR1."""

    async def start(self) -> None:
        """Start, and listen to the signal."""
        await super().start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._burst)

    def _burst(self) -> None:
        for _ in range(EVENTS):
            self._events.publish(NAME, PARAMS)


class Bare(asyncio.Protocol):
    """Answers the first frames of a subscriber, then writes events to it."""

    everyone: set[asyncio.Transport] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A subscriber came."""
        assert isinstance(transport, asyncio.Transport)
        self.everyone.add(transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """One word for each frame."""
        self._transport.write(b"RECEIPT\n\n\0" * data.count(b"\0"))

    @classmethod
    def burst(cls) -> None:
        """Encode each event once, and write it to all."""
        for number in range(EVENTS):
            body = json.dumps({"jsonrpc": "2.0", "method": NAME, "params": PARAMS}).encode()
            frame = b"MESSAGE\nsubscription:s\n" + event_tail(body, number)
            for transport in cls.everyone:
                transport.write(frame)


@contextlib.contextmanager
def _rival() -> Iterator[tuple[Any, int]]:
    argv = (sys.executable, "-m", "bench.fanout", "--rival")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


async def _serve_bare() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Bare, HOST, 0)
    loop.add_signal_handler(signal.SIGUSR1, Bare.burst)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Be one of the servers, or run the benchmark on its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.fanout", description=__doc__)
    parser.add_argument("--serve", metavar="CONFIG", help="be the daemon")
    parser.add_argument("--rival", action="store_true", help="be the rival")
    arguments = parser.parse_args()
    if arguments.serve:
        daemon.Daemon = Bursting  # type: ignore[misc]
        sys.exit(daemon.main(["--config", arguments.serve]))
    if arguments.rival:
        asyncio.run(_serve_bare())
    wire.print_rows(run)


if __name__ == "__main__":
    main()
