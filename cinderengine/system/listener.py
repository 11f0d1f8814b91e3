# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's HTTPS port."""

from __future__ import annotations

import errno
import os
import socket
import ssl

from aiohttp import web

from cinderengine.errors import EngineError

BACKLOG = 1024
# What is being answered when the engine ends may go on for so long.
GRACE_S = 3.0


class PortUnusable(EngineError):
    """Nobody can be served on that port."""

    status = 500


class Listener:
    """Serves an application on one port; port: the one that it is, once it is open."""

    def __init__(self, application: web.Application, context: ssl.SSLContext) -> None:
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=GRACE_S, handle_signals=False
        )
        self._context = context
        self.port = 0

    async def open(self, address: str, port: int) -> None:
        """Serve from now on. Raises PortUnusable."""
        await self._runner.setup()
        try:
            plain = _bound(address, port)
        except OSError as e:
            raise PortUnusable(_trouble(address, port, e)) from e
        self.port = plain.getsockname()[1]
        site = web.SockSite(self._runner, plain, ssl_context=self._context, backlog=BACKLOG)
        await site.start()

    async def close(self) -> None:
        """Serve nobody any more; what is being answered may end."""
        await self._runner.cleanup()


def _bound(address: str, port: int) -> socket.socket:
    everywhere = address in ("", "::")
    if everywhere and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    if everywhere:
        return socket.create_server(("", port))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family)


def _trouble(address: str, port: int, e: OSError) -> str:
    if e.errno == errno.EADDRINUSE:
        remedy = (
            f"another program has it: see ss --listening --tcp --processes 'sport = {port}', or "
            "set listen.port to another one"
        )
    elif e.errno == errno.EACCES:
        remedy = (
            "only root and who has CAP_NET_BIND_SERVICE may take ports below 1024: let systemd "
            "start the engine, or set listen.port to a larger one"
        )
    elif e.errno == errno.EADDRNOTAVAIL:
        remedy = "this machine has no such address: set listen.address to one that it has, or '::'"
    else:
        remedy = "look after that, or set listen.address and listen.port to others"
    reason = os.strerror(e.errno) if e.errno else str(e)
    return f"port {port} of address {address} cannot be served: {reason}; {remedy}"
