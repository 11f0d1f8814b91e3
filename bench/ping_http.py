# SPDX-License-Identifier: GPL-2.0-or-later
"""Host.ping2 over HTTP and TLS, on connections that stay: against aiohttp with a constant answer.

As in bench/ping.py, daemon, rival and load generator are a process each, and take turns.
"""

from __future__ import annotations

import json
import sys

from bench.load import Load
from bench.ping import LOAD_TIMEOUT_S, ROUNDS, TURN_S, tls_options
from bench.report import Row, Sample
from bench.rivals.process import rival
from lab.base import REPOSITORY
from lab.base import run as run_command
from lab.host.daemon import PORT, HostDaemon
from lab.running import Lab
from lab.steps import Step

RIVAL, RIVAL_PORT = "aiohttp", 54402
# One request is in flight on each: HTTP's answers keep the order of the requests.
CONNECTIONS = (1, 4, 32)


def run(lab: Lab, step: Step) -> list[Row]:
    """Load daemon and rival."""
    host, rows = lab.hosts["host1"], []
    options: dict[str, dict[str, object]] = {"log": {"level": "INFO"}}
    arguments = (host.address, RIVAL_PORT, *tls_options(lab.pki, host.name, True))
    with (
        HostDaemon(host, lab.pki, options, "bench") as daemon,
        rival(host, "bench.rivals.http", *arguments) as process,
    ):
        pids = {PORT: daemon.process.pid_outside, RIVAL_PORT: process.pid_outside}
        for connections in CONNECTIONS:
            step.progress(f"{connections} connections")
            rows += _rows(connections, _load(lab, host.address, connections, pids))
    return rows


def _load(lab: Lab, address: str, connections: int, pids: dict[int, int]) -> dict[int, list[Load]]:
    argv: list[object] = [sys.executable, "-m", "bench.load", address, "--http"]
    for port, pid in pids.items():
        argv += ["--server", port, pid]
    argv += ["--connections", connections, "--in-flight", 1, "--rounds", ROUNDS]
    argv += ["--seconds", TURN_S, *tls_options(lab.pki, "engine", True)]
    answer = json.loads(run_command(argv, timeout_s=LOAD_TIMEOUT_S, cwd=REPOSITORY))
    return {int(port): [Load(**load) for load in loads] for port, loads in answer.items()}


def _rows(connections: int, loads: dict[int, list[Load]]) -> list[Row]:
    def row(what: str, unit: str, field: str) -> Row:
        ours, theirs = (
            Sample(tuple(getattr(load, field) for load in loads[port]), unit)
            for port in (PORT, RIVAL_PORT)
        )
        return Row(f"ping2 over HTTP, {connections} connections{what}", ours, RIVAL, theirs)

    return [
        row("", "/s", "per_second"),
        row(", p50", "µs", "p50_us"),
        row(", p99", "µs", "p99_us"),
        row(", CPU of a request", "µs", "cpu_us"),
    ]
