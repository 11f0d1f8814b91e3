# SPDX-License-Identifier: GPL-2.0-or-later
"""Notices when the host's networks change: links, their addresses and the bridges that they are in.

The kernel says by rtnetlink(7) that something changed; what, is read as for an engine. VMs' own
interfaces, which come and go with them, are no change of the host's networks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any

from vdsmcinder.host import netinfo, network
from vdsmcinder.host.network import Kind, Network
from vdsmcinder.tasks import Tasks

log = logging.getLogger(__name__)

# linux/rtnetlink.h: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, _ROUTE, RTMGRP_IPV6_IFADDR, _ROUTE
GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
BUFFER_BYTES = 64 * 1024
# What belongs together, such as a link with its addresses, is told once.
SETTLE_S = 1.0


class NetworkWatch:
    """Watches the networks of this namespace from start() to close().

    on_change: called with the networks as they are now. read: reads them; called in a thread.
    """

    def __init__(
        self,
        tasks: Tasks,
        on_change: Callable[[Network], None],
        read: Callable[[], Network] = network.read,
    ) -> None:
        self._tasks = tasks
        self._on_change = on_change
        self._read = read
        self._known: dict[str, Any] | None = None
        self._stirred = asyncio.Event()
        self._kernel: socket.socket | None = None

    async def start(self) -> None:
        """Begin to watch: what differs from now on is a change."""
        try:
            kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            kernel.setblocking(False)
            kernel.bind((0, GROUPS))
        except OSError as e:
            log.warning("changes of the host's networks are not noticed: %s", e)
            return
        self._kernel = kernel
        asyncio.get_running_loop().add_reader(kernel.fileno(), self._hear)
        self._known, _ = await self._found()
        self._tasks.spawn(self._watch(), "watch")

    async def close(self) -> None:
        """Return when nothing of it is left."""
        if self._kernel is not None:
            asyncio.get_running_loop().remove_reader(self._kernel.fileno())
            self._kernel.close()
            self._kernel = None
        await self._tasks.close()

    def _hear(self) -> None:
        """What the kernel says is left unread: the whole is read soon."""
        assert self._kernel is not None
        # ENOBUFS: it had more to say than there was room for, which is a change all the same.
        with contextlib.suppress(OSError):
            while self._kernel.recv(BUFFER_BYTES):
                pass
        self._stirred.set()

    async def _watch(self) -> None:
        while True:
            await self._stirred.wait()
            await asyncio.sleep(SETTLE_S)
            self._stirred.clear()
            await self._look()

    async def _look(self) -> None:
        told, found = await self._found()
        if told != self._known and found is not None:
            self._known = told
            self._on_change(found)

    async def _found(self) -> tuple[dict[str, Any] | None, Network | None]:
        """What engines are told, and the networks themselves; neither where they cannot be read."""
        try:
            found = await asyncio.to_thread(self._read)
        except OSError as e:
            log.warning("the host's networks could not be read: %s", e)
            return None, None
        return lasting(found), found


def lasting(net: Network) -> dict[str, Any]:
    """What an engine is told of the networks, without the VMs' interfaces in bridges."""
    ports = {link.name for link in net.links.values() if link.kind is not Kind.OTHER}
    found = netinfo.as_dict(net)
    for kind in ("bridges", "networks"):
        for bridge in found[kind].values():
            bridge["ports"] = [port for port in bridge["ports"] if port in ports]
    return found
