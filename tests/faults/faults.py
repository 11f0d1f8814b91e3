# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be done to a host and to its Ceph cluster, and how it is undone.

Each takes the Scene that it happens to.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable
from typing import Callable

from lab.ceph.cluster import Ceph
from tests.faults.scene import Scene

# Monitors (both protocols), and what an OSD may listen on.
CEPH_PORTS = "3300,6789,6800:7568"


async def nothing(_scene: Scene) -> None:
    """For a fault that passes by itself."""


# The daemon, libvirtd, QEMU


async def kill_daemon(scene: Scene) -> None:
    """kill -9; the keeper starts it again, as systemd would."""
    scene.daemon.process.send_signal(signal.SIGKILL)


async def kill_libvirtd(scene: Scene) -> None:
    """kill -9; nobody starts it until the row is healed."""
    await asyncio.to_thread(scene.host.kill_libvirtd)


async def start_libvirtd(scene: Scene) -> None:
    """As systemd would."""
    await asyncio.to_thread(scene.host.start_libvirtd)


async def kill_daemon_and_libvirtd(scene: Scene) -> None:
    """Both at once, so that nobody remembers a secret but systemd, which this lab's host lacks."""
    await kill_libvirtd(scene)
    await kill_daemon(scene)


async def kill_qemu(scene: Scene) -> None:
    """kill -9 of the process of the VM that writes."""
    scene.signal(scene.writing.pid, signal.SIGKILL)


async def stop_qemu(scene: Scene) -> None:
    """SIGSTOP of the process of the VM that writes."""
    await asyncio.to_thread(scene.host.namespace.freeze, scene.writing.pid)


async def continue_qemu(scene: Scene) -> None:
    """SIGCONT."""
    scene.signal(scene.writing.pid, signal.SIGCONT)


async def stop_libvirtd(scene: Scene) -> None:
    """SIGSTOP."""
    await asyncio.to_thread(scene.host.namespace.freeze, scene.host.libvirtd_pid)


async def continue_libvirtd(scene: Scene) -> None:
    """SIGCONT."""
    scene.signal(scene.host.libvirtd_pid, signal.SIGCONT)


# Ceph


def kill_monitors(*names: str) -> Callable[[Scene], Awaitable[None]]:
    """kill -9 of these monitors."""

    async def kill(scene: Scene) -> None:
        for name in names:
            await asyncio.to_thread(scene.ceph.kill_mon, name)

    return kill


async def start_monitors(scene: Scene) -> None:
    """Start those that do not run; returns when all are in quorum."""
    missing = {m.name for m in scene.ceph.monitors} - set(scene.ceph.running_mons())
    for name in missing:
        await asyncio.to_thread(scene.ceph.start_mon, name)
    await asyncio.to_thread(scene.ceph.wait_quorum, len(scene.ceph.monitors))


def on_ceph(*steps: Callable[[Ceph], None]) -> Callable[[Scene], Awaitable[None]]:
    """Steps that the lab's cluster knows."""

    async def work(scene: Scene) -> None:
        for step in steps:
            await asyncio.to_thread(step, scene.ceph)

    return work


def cut_network(*verdict: str) -> Callable[[Scene], Awaitable[None]]:
    """Let nothing out from the host to Ceph; verdict: what iptables does with it."""

    async def cut(scene: Scene) -> None:
        ports = ["-p", "tcp", "-m", "multiport", "--dports", CEPH_PORTS]
        scene.host.run(["iptables", "-A", "OUTPUT", *ports, "-j", *verdict])

    return cut


async def mend_network(scene: Scene) -> None:
    """Let everything out again."""
    scene.host.run(["iptables", "-F", "OUTPUT"])
