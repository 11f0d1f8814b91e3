# SPDX-License-Identifier: GPL-2.0-or-later
"""Host.ping2 over STOMP: requests per second and latencies, against a server that does no work.

Daemon, rivals (bench/rivals/stomp.py) and load generator (bench/load.py) are a process each; the
generator gives the servers their turns, a fraction of a second each, over connections that stay.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from bench.load import Load
from bench.report import Goal, Row, Sample, at_least, at_most
from bench.rivals.process import rival
from lab.base import REPOSITORY
from lab.base import run as run_command
from lab.host.daemon import PORT, HostDaemon
from lab.host.hypervisor import Host
from lab.pki import Pki
from lab.running import Lab
from lab.steps import Step

ROUNDS = 12
TURN_S = 0.35
# Handshakes and the check of all replies come on top of the turns, on a machine that may be busy.
LOAD_TIMEOUT_S = 300
HALF = 0.5
# Of the case that engines come closest to.
BUSY = (4, 8)
BUSY_PER_SECOND = {True: 12_000, False: 16_000}
BUSY_P99_US = 5_000
# Twice what VDSM's own server answered on such a machine, with TLS.
ENGINE_PER_SECOND = 18_000


@dataclass(frozen=True)
class Server:
    """A server of constants: its name in the table, its port, how it is started."""

    name: str
    port: int
    options: tuple[str, ...] = ()


BARE = Server("bare asyncio", 54400)
# Not what a bare server does, but the upper bound of what one could do.
GATHERING = Server("… one write for all", 54401, ("--gather",))


@dataclass(frozen=True)
class Case:
    """How the servers are loaded. gathered: clients take several replies in one TLS record."""

    connections: int
    in_flight: int
    tls: bool
    gathered: bool = True

    @property
    def rivals(self) -> tuple[Server, ...]:
        """Where one request is in flight there is nothing to gather."""
        return (BARE, GATHERING) if self.in_flight > 1 and self.gathered else (BARE,)

    def __str__(self) -> str:
        how = ("" if self.tls else " without TLS") + (
            "" if self.gathered else " as an engine reads"
        )
        return f"ping2 {self.connections} x {self.in_flight}{how}"


CASES = (
    *(
        Case(connections, in_flight, tls)
        for tls in (True, False)
        for connections, in_flight in ((1, 1), BUSY, (32, 4), (1000, 4))
    ),
    Case(*BUSY, tls=True, gathered=False),
)


def run(lab: Lab, step: Step) -> list[Row]:
    """Load daemon and rivals, with and without TLS."""
    rows = []
    host = lab.hosts["host1"]
    for tls in (True, False):
        with _servers(host, lab.pki, tls) as pids:
            for case in CASES:
                if case.tls is tls:
                    step.progress(str(case))
                    rows += _rows(case, _load(case, host, lab.pki, pids))
    return rows


@contextlib.contextmanager
def _servers(host: Host, pki: Pki, tls: bool) -> Iterator[dict[int, int]]:
    """The daemon and both rivals, side by side on one host; their pids by port."""
    options: dict[str, dict[str, object]] = {"log": {"level": "INFO"}, "listen": {"tls": tls}}
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(HostDaemon(host, pki, options, "bench"))
        pids = {PORT: daemon.process.pid_outside}
        for server in (BARE, GATHERING):
            arguments = (
                host.address,
                server.port,
                *server.options,
                *tls_options(pki, host.name, tls),
            )
            process = stack.enter_context(rival(host, "bench.rivals.stomp", *arguments))
            pids[server.port] = process.pid_outside
        yield pids


def _load(case: Case, host: Host, pki: Pki, pids: dict[int, int]) -> dict[int, list[Load]]:
    """What each server took, by port, one Load for each of its turns."""
    argv: list[object] = [sys.executable, "-m", "bench.load", host.address]
    for port in (PORT, *(server.port for server in case.rivals)):
        argv += ["--server", port, pids[port]]
    argv += ["--connections", case.connections, "--in-flight", case.in_flight]
    argv += ["--gathered"] if case.gathered else []
    argv += ["--rounds", ROUNDS, "--seconds", TURN_S, *tls_options(pki, "engine", case.tls)]
    answer = json.loads(run_command(argv, timeout_s=LOAD_TIMEOUT_S, cwd=REPOSITORY))
    return {int(port): [Load(**load) for load in loads] for port, loads in answer.items()}


def tls_options(pki: Pki, name: str, wanted: bool) -> list[object]:
    """What servers and the load generator are started with so that they speak TLS, if wanted."""
    identity = pki.identity(name)
    return ["--tls", identity.cert, identity.key, pki.ca] if wanted else []


def _rows(case: Case, loads: dict[int, list[Load]]) -> list[Row]:
    def row(what: str, server: Server, unit: str, field: str) -> Row:
        ours, theirs = (
            Sample(tuple(getattr(load, field) for load in loads[port]), unit)
            for port in (PORT, server.port)
        )
        return Row(f"{case}{what}", ours, server.name, theirs)

    rates = [row("", server, "/s", "per_second") for server in case.rivals]
    p99 = row(", p99", BARE, "µs", "p99_us")
    if (case.connections, case.in_flight) == BUSY:
        p99 = p99.with_goal(at_most(BUSY_P99_US, p99.ours.median, f"{BUSY_P99_US:,} µs"))
    return [
        rates[0].with_goal(_goal(case, rates[0])),
        *rates[1:],
        row(", p50", BARE, "µs", "p50_us"),
        p99,
        row(", CPU of a request", BARE, "µs", "cpu_us"),
    ]


def _goal(case: Case, row: Row) -> Goal:
    """Half of the bare server's rate, and a rate of its own for the busy case."""
    half = at_least(HALF, row.ratio, f"{HALF:g} times")
    if (case.connections, case.in_flight) != BUSY:
        return half
    least = BUSY_PER_SECOND[case.tls] if case.gathered else ENGINE_PER_SECOND
    return half.and_also(at_least(least, row.ours.median, f"{least:,} /s"))
