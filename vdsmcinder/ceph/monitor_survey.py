# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of a cluster's monitors answer this host, found out without librados.

It names them where librados only says, minutes later, that it was in vain.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Optional

from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.tasks import within

# Where monitors listen: msgr2, then the older protocol
# (https://docs.ceph.com/en/latest/rados/configuration/msgr2/).
DEFAULT_PORTS = (3300, 6789)
# What a monitor says of its own accord to whoever connects: "ceph v2" in msgr2, "ceph v027" in the
# older protocol. A hung one's kernel still accepts connections, but says nothing.
BANNER = b"ceph v"


# A monitor that is well says its first words at once, however busy its cluster is.
_SILENT_AFTER_S = 2.5

# For each monitor why it does not answer; None for one that does.
Survey = Mapping[MonitorHost, Optional[str]]


async def survey(monitors: Sequence[MonitorHost], deadline_s: float) -> Survey:
    """Try all monitors at once; within deadline_s, and soon even if any of them is silent."""
    timeout_s = min(deadline_s, _SILENT_AFTER_S)
    reasons = await asyncio.gather(*(_attempt(monitor, timeout_s) for monitor in monitors))
    return dict(zip(monitors, reasons))


def all_silent(found: Survey) -> bool:
    """Whether no monitor answers; False where none is known, as with a configuration file."""
    return bool(found) and None not in found.values()


def in_words(found: Survey) -> str:
    """The monitors of a survey: '10.0.0.1 (connection refused), 10.0.0.2 (answers)'."""
    return ", ".join(f"{monitor.name} ({why or 'answers'})" for monitor, why in found.items())


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
        said = await within(_first_words(host, port), timeout_s)
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
