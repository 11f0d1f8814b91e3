# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON-RPC on POST /, server-sent events on GET /events, and what the daemon tells of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Callable

from vdsmcinder.config import Listen
from vdsmcinder.rpc import envelope
from vdsmcinder.stomp.session import FLOW_ID
from vdsmcinder.system.counters import Deliveries
from vdsmcinder.tasks import Tasks
from vdsmcinder.transport.event_stream import EventStreams
from vdsmcinder.transport.http_connection import Answer, HttpConnection
from vdsmcinder.transport.http_session import Refused, Request
from vdsmcinder.transport.shares import Shares
from vdsmcinder.transport.status_pages import Pages

if TYPE_CHECKING:
    from vdsmcinder.rpc.dispatch import Dispatcher
    from vdsmcinder.rpc.events import Events

Route = Callable[[Request, HttpConnection], None]

# Answers under way at shutdown have this long, in seconds.
SHUTDOWN_TIMEOUT_S = 2.0
_FLOW_ID = FLOW_ID.lower()


class HttpServer:
    """The HTTP side of the daemon; pages are what GET /health and GET /metrics answer.

    connections: those that stand. tasks: answers that take their time.
    """

    def __init__(
        self,
        listen: Listen,
        dispatcher: Dispatcher,
        events: Events,
        requests: Tasks,
        pages: Pages,
        *,
        shares: Shares,
        tasks: Tasks,
    ) -> None:
        self.max_body_bytes = listen.max_frame_bytes
        self.turns = dispatcher.turns
        self.connections: set[HttpConnection] = set()
        self.tasks = tasks
        self.shares = shares
        self._dispatcher = dispatcher
        self._requests = requests
        self._pages = pages
        self._streams = EventStreams(events, listen.max_buffer_bytes)
        self._routes: Mapping[str, tuple[str, Route]] = {
            "/": ("POST", self._rpc),
            "/events": ("GET", self._send_events),
            "/health": ("GET", self._tell_health),
            "/metrics": ("GET", self._tell_metrics),
        }

    @property
    def deliveries(self) -> Deliveries:
        """What the event streams' clients were sent."""
        return self._streams.deliveries

    def start(self) -> None:
        """Begin to pass events on."""
        self._streams.start()

    async def close(self) -> None:
        """End event streams and connections; answers under way have a moment to finish."""
        self._streams.close()
        connections = tuple(self.connections)
        for connection in connections:
            connection.close()
        if connections:
            lost = [connection.lost for connection in connections]
            await asyncio.wait(lost, timeout=SHUTDOWN_TIMEOUT_S)
            for connection in tuple(self.connections):
                connection.abort()
            await asyncio.wait(lost)
        await self.tasks.close()

    # --- what connections ask --------------------------------------------------------------------

    def admit(self, request: Request) -> None:
        """Refuse what is not served, before its body is there. Raises Refused."""
        # Browsers name the page that a request comes from. No page of ours makes any, and a
        # browser that holds an administrator's certificate would send it along with any page's.
        if "origin" in request.headers:
            raise Refused(
                HTTPStatus.FORBIDDEN, "Requests of web pages are refused; send it without Origin"
            )
        if request.path not in self._routes:
            served = ", ".join(f"{m} {path}" for path, (m, _) in self._routes.items())
            raise Refused(
                HTTPStatus.NOT_FOUND, f"Nothing is served at {request.path}; there is {served}"
            )
        method, _ = self._routes[request.path]
        if request.method != method:
            raise Refused(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{request.method} {request.path} is not served; use {method}",
                {"Allow": method},
            )
        if method == "POST" and not _announces_body(request):
            raise Refused(
                HTTPStatus.LENGTH_REQUIRED,
                "The request has no body that is announced; send a call, and its Content-Length",
            )

    def serve(self, request: Request, client: HttpConnection) -> None:
        """Answer a request that was admitted, now or later."""
        _, route = self._routes[request.path]
        route(request, client)

    # --- the routes ------------------------------------------------------------------------------

    def _rpc(self, request: Request, client: HttpConnection) -> None:
        reply = self._dispatcher.handle(request.body, client.caller, request.headers.get(_FLOW_ID))
        if reply is None or isinstance(reply, bytes):
            client.answer(_reply(reply))
        else:
            client.run(self._reply_later(reply, client))

    async def _reply_later(self, reply: Awaitable[bytes | None], client: HttpConnection) -> None:
        # Not this task: a verb under way goes on when its client hangs up.
        client.answer(_reply(await asyncio.shield(self._requests.spawn(_result(reply), "request"))))

    def _send_events(self, request: Request, client: HttpConnection) -> None:
        client.run(self._streams.serve(client))

    def _tell_health(self, request: Request, client: HttpConnection) -> None:
        health = self._pages.health()
        status = HTTPStatus.OK if health["ready"] else HTTPStatus.SERVICE_UNAVAILABLE
        client.answer(Answer(status, envelope.encode(health) + b"\n"))

    def _tell_metrics(self, request: Request, client: HttpConnection) -> None:
        client.run(self._send_metrics(client))

    async def _send_metrics(self, client: HttpConnection) -> None:
        page = await self._pages.metrics()
        client.answer(Answer(HTTPStatus.OK, page.body, page.content_type))


def _announces_body(request: Request) -> bool:
    return "content-length" in request.headers or "transfer-encoding" in request.headers


def _reply(body: bytes | None) -> Answer:
    return Answer(HTTPStatus.NO_CONTENT) if body is None else Answer(HTTPStatus.OK, body)


async def _result(reply: Awaitable[bytes | None]) -> bytes | None:
    return await reply
