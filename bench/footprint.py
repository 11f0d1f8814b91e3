# SPDX-License-Identifier: GPL-2.0-or-later
"""Resident memory and time to READY, against Python processes that do (almost) nothing.

Time is from the start of a process to its word that it is ready. Memory is what the kernel counts
as resident in the daemon with an engine connected, before and after a first HTTP client.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from bench.report import Row, Sample, at_most
from bench.rivals.process import rival
from lab.engine import Engine
from lab.host.daemon import HostDaemon
from lab.host.hypervisor import Host
from lab.running import Lab
from lab.steps import Step
from vdsmcinder.errors import Recovering, RemoteError

MB = 1_000_000
ROUNDS = 7
IDLE_MB = 60
READY_S = 0.5
OURS = "vdsm-cinderd"
IMPORTS, HTTP = "python, libvirt and lxml", "aiohttp hello world"
RIVALS = {IMPORTS: "bench.rivals.imports", HTTP: "bench.rivals.http"}
MEMORY, MEMORY_WITH_HTTP, READY = "memory, an engine connected", "… after HTTP came in", "READY"

# For each process what was measured of it, round by round.
Found = dict[str, dict[str, list[float]]]


def run(lab: Lab, step: Step) -> list[Row]:
    """Start, measure and end everybody in turn."""
    found: Found = {name: defaultdict(list) for name in (OURS, *RIVALS)}
    for n in range(ROUNDS):
        step.progress(f"{n} of {ROUNDS}")
        _measure_daemon(lab, found[OURS])
        for name, module in RIVALS.items():
            _measure_rival(lab.hosts["host1"], module, found[name])
    return _rows(found)


def _measure_daemon(lab: Lab, found: dict[str, list[float]]) -> None:
    daemon = HostDaemon(lab.hosts["host1"], lab.pki, {"log": {"level": "INFO"}}, "bench")
    daemon.launch()
    try:
        found[READY].append(daemon.ready_after_s)
        found[MEMORY].append(asyncio.run(_memory_with_engine(lab, daemon)) / MB)
        daemon.health()
        found[MEMORY_WITH_HTTP].append(daemon.process.resident_bytes() / MB)
    finally:
        daemon.stop()


async def _memory_with_engine(lab: Lab, daemon: HostDaemon) -> int:
    async with Engine(lab, daemon) as engine:
        await _wait_until_recovered(engine)
        return daemon.process.resident_bytes()


async def _wait_until_recovered(engine: Engine) -> None:
    """Return when the daemon knows the host's VMs: before that its start is not over."""
    while True:
        try:
            await engine.call("Host.getVMList")
            return
        except RemoteError as e:
            if e.code != Recovering.code:
                raise


def _measure_rival(host: Host, module: str, found: dict[str, list[float]]) -> None:
    began = time.monotonic()
    with rival(host, module) as process:
        found[READY].append(time.monotonic() - began)
        found[MEMORY].append(process.resident_bytes() / MB)
        found[MEMORY_WITH_HTTP] = found[MEMORY]


def _rows(found: Found) -> list[Row]:
    def row(what: str, unit: str, other: str) -> Row:
        ours, theirs = (Sample(tuple(found[name][what]), unit) for name in (OURS, other))
        return Row(what, ours, other, theirs)

    memory, ready = row(MEMORY, "MB", IMPORTS), row(READY, "s", IMPORTS)
    return [
        memory.with_goal(at_most(IDLE_MB, memory.ours.median, f"{IDLE_MB} MB")),
        row(MEMORY, "MB", HTTP),
        row(MEMORY_WITH_HTTP, "MB", HTTP),
        ready.with_goal(at_most(READY_S, ready.ours.median, f"{READY_S} s")),
        row(READY, "s", HTTP),
    ]
