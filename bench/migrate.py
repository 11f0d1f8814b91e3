# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM that writes goes to another host and back: by VM.migrate, and by `virsh migrate`.

Both move the same guest in turn, to and fro. What its user sees of the downtime is the longest time
without a word on its console, on whichever host that is.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.report import Goal, Row, Sample
from lab.engine import Engine
from lab.guest.domains import pty_console
from lab.host.daemon import HostDaemon
from lab.host.hypervisor import Host
from lab.migrating_vm import Traveller
from lab.running import Lab
from lab.steps import Step

ROUNDS = 6
# A goal on the figures that a user sees, as a share of virsh's.
ON_TOP = 0.05
MIB = 1024 * 1024
# The guest says something every few milliseconds; the loop ends when the file goes.
CHATTER = "touch /tmp/chat; while [ -e /tmp/chat ]; do say tick; usleep 5000; done &"
OPTIONS = {"log": {"level": "INFO"}, "vms": {"sample_interval_s": 5}}


@dataclass
class Trips:
    """What each migration took: time in s, downtime in ms, memory sent in MiB."""

    times_s: list[float] = field(default_factory=list)
    downtimes_ms: list[float] = field(default_factory=list)
    sent_mib: list[float] = field(default_factory=list)


def run(lab: Lab, step: Step) -> list[Row]:
    """Migrate to and fro, ours and theirs in turn, in both ways to hand the VM over."""
    rows = []
    for handover in ("confirmed", "libvirt"):
        step.progress(handover)
        rows += asyncio.run(_run(lab, step, handover))
    return rows


async def _run(lab: Lab, step: Step, handover: str) -> list[Row]:
    options = {**OPTIONS, "migration": {"handover": handover}}
    hosts = [lab.hosts["host1"], lab.hosts["host2"]]
    daemons = [HostDaemon(host, lab.pki, options, "bench") for host in hosts]
    ours, theirs = Trips(), Trips()
    for daemon in daemons:
        daemon.start()
    try:
        engines = [Engine(lab, daemon) for daemon in daemons]
        for engine in engines:
            engine.secret_id = engines[0].secret_id
            await engine.connect()
            await engine.register_key()
        async with Traveller(engines) as vm:
            await asyncio.to_thread(vm.console.send, f"sh {CHATTER}")
            for n in range(ROUNDS):
                step.progress(f"{handover}: {n} of {ROUNDS}")
                await _go(vm, ours, _by_daemon)
                await _go(vm, theirs, _by_virsh)
        for engine in engines:
            await engine.session.close()
    finally:
        for daemon in daemons:
            daemon.stop()
    return _rows(handover, ours, theirs)


async def _go(vm: Traveller, trips: Trips, way: Callable) -> None:  # type: ignore[type-arg]
    vm.console.close()
    listeners = [Listener(engine.daemon.host, vm.id) for engine in (vm.here, vm.there)]
    listeners[0].open()
    # So that what the guest does after it was started or moved is over.
    await asyncio.sleep(2)
    began_s = time.perf_counter()
    sent_mib = await way(vm, listeners[1])
    trips.times_s.append(time.perf_counter() - began_s)
    await asyncio.sleep(1)
    for listener in listeners:
        listener.close()
    heard = sorted(at for listener in listeners for at in listener.heard)
    gaps = [after - before for before, after in zip(heard, heard[1:])]
    trips.downtimes_ms.append(max(gaps) * 1e3)
    trips.sent_mib.append(sent_mib)
    vm.look_at(vm.there)


async def _by_daemon(vm: Traveller, there: Listener) -> float:
    source = vm.here
    await vm.migrate()
    there.open_when_it_is_there()
    await vm.there.wait_status(vm.id, "Up", 120)
    await source.wait_status(vm.id, "Down", 120)
    sent = _sent_mib(source.daemon.host, vm.id)
    await source.destroy(vm.id)
    return sent


async def _by_virsh(vm: Traveller, there: Listener) -> float:
    host, other = vm.here.daemon.host, vm.there.daemon.host
    there.open_when_it_is_there()
    uri, data = f"qemu+tls://{other.name}/system", f"tcp://{other.name}"
    flags = ("--live", "--p2p", "--persistent", "--abort-on-error", "--tls")
    await asyncio.to_thread(host.virsh, "migrate", *flags, vm.id, uri, data, timeout_s=120)
    sent = _sent_mib(host, vm.id)
    await vm.there.wait_status(vm.id, "Up", 60)
    await vm.here.wait_status(vm.id, "Down", 60)
    await vm.here.destroy(vm.id)
    return sent


def _sent_mib(host: Host, vm_id: str) -> float:
    said = host.virsh("domjobinfo", "--completed", "--rawstats", vm_id)
    found = re.search(r"memory_processed: (\d+)", said)
    return int(found[1]) / MIB if found else 0.0


class Listener:
    """When the guest says something on its console on one host."""

    def __init__(self, host: Host, vm_id: str) -> None:
        self.heard: list[float] = []
        self._host = host
        self._vm_id = vm_id
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Listen from now on; the VM is on this host."""
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    open_when_it_is_there = open

    def close(self) -> None:
        """Stop listening."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _listen(self) -> None:
        pty = ""
        while not pty and not self._over.is_set():
            try:
                pty = self._host.virsh("ttyconsole", self._vm_id)
            except Exception:
                time.sleep(0.05)
        if not pty:
            return
        with pty_console(self._host, pty) as console:
            wire = console._wire
            while not self._over.is_set():
                if wire.read():
                    self.heard.append(time.perf_counter())
                else:
                    time.sleep(0.001)


def _rows(handover: str, ours: Trips, theirs: Trips) -> list[Row]:
    def row(what: str, mine: list[float], rival: list[float], unit: str) -> Row:
        compared = Row(
            f"migration ({handover}): {what}",
            Sample(tuple(mine), unit),
            "virsh migrate",
            Sample(tuple(rival), unit),
        )
        return compared.with_goal(Goal(f"≤ +{ON_TOP:.0%}", compared.ratio <= 1 + ON_TOP))

    return [
        row("total time", ours.times_s, theirs.times_s, "s"),
        row("downtime, as its console tells", ours.downtimes_ms, theirs.downtimes_ms, "ms"),
        row("memory sent", ours.sent_mib, theirs.sent_mib, "MiB"),
    ]
