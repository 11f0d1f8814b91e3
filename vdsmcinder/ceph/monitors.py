# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether any of a disk's monitors answers this host.

virt/preflight.py asks before QEMU does: librados waits minutes for monitors that do not answer, and
QEMU's main loop, and with it the whole VM, would wait along.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence

from vdsmcinder.ceph.hosts import MonitorHost

# Where monitors listen: msgr2, then the older protocol
# (https://docs.ceph.com/en/latest/rados/configuration/msgr2/).
DEFAULT_PORTS = (3300, 6789)
# What a monitor says of its own accord to whoever connects: "ceph v2" in msgr2, "ceph v027" in the
# older protocol. A hung one's kernel still accepts connections, but says nothing.
BANNER = b"ceph v"


async def unreachable(monitors: Sequence[MonitorHost], timeout_s: float) -> dict[MonitorHost, str]:
    """Try all monitors at once, until the first one answers.

    Returns an empty dict when one does, else each monitor with the reason why it did not.
    """
    attempts = {asyncio.ensure_future(_attempt(m, timeout_s)): m for m in monitors}
    reasons: dict[MonitorHost, str] = {}
    pending = set(attempts)
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                reason = attempt.result()
                if reason is None:
                    return {}
                reasons[attempts[attempt]] = reason
        return {monitor: reasons[monitor] for monitor in monitors}
    finally:
        for attempt in pending:
            attempt.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _attempt(monitor: MonitorHost, timeout_s: float) -> str | None:
    """None when the monitor answers on one of its ports, else why it does not on the last one."""
    ports = DEFAULT_PORTS if monitor.port is None else (monitor.port,)
    reason = None
    for port in ports:
        reason = await _listen_to(monitor.name, port, timeout_s / len(ports))
        if reason is None:
            return None
    return reason


async def _listen_to(host: str, port: int, timeout_s: float) -> str | None:
    try:
        said = await asyncio.wait_for(_first_words(host, port), timeout_s)
    except asyncio.TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except socket.gaierror as e:
        return str(e.strerror).lower()
    except OSError as e:
        # asyncio words some of these its own way.
        return os.strerror(e.errno).lower() if e.errno else str(e)
    return None if said == BANNER else "not a Ceph monitor"


async def _first_words(host: str, port: int) -> bytes:
    """As much of what the other side says first as a monitor's banner is long; less if it ends."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        return await reader.readexactly(len(BANNER))
    except asyncio.IncompleteReadError as e:
        return e.partial
    finally:
        writer.close()
