# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON-RPC on POST /, server-sent events on GET /events, and what the daemon tells of itself.

transport/listener.py imports this, and with it aiohttp, when the first client speaks HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Callable

from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_server import Server

from vdsmcinder.config import Listen
from vdsmcinder.rpc import envelope
from vdsmcinder.tally import Deliveries
from vdsmcinder.transport import peer
from vdsmcinder.transport.event_stream import EventStreams
from vdsmcinder.transport.pages import Pages
from vdsmcinder.transport.stomp import FLOW_ID
from vdsmcinder.transport.work import Work

if TYPE_CHECKING:
    from vdsmcinder.rpc.dispatch import Dispatcher
    from vdsmcinder.rpc.events import Events

log = logging.getLogger(__name__)

Route = Callable[[BaseRequest], Awaitable[StreamResponse]]

# A client has this long, in seconds, to send its body,
BODY_TIMEOUT_S = 30.0
# and may leave a connection idle, or its headers unfinished, for this long.
IDLE_TIMEOUT_S = 60.0
# Answers under way at shutdown have this long.
SHUTDOWN_TIMEOUT_S = 2.0


class _Refused(Exception):
    """A request that gets an HTTP status instead of an answer; the message is for its sender."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Connection(RequestHandler):
    """aiohttp's, but it does not quote what it cannot read, which may hold a key."""

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """The answer to a request that aiohttp cannot read, or that we failed at; logs it."""
        response = super().handle_error(request, status, exc, message)
        if status != HTTPStatus.BAD_REQUEST:
            return response
        reason = f"This is no HTTP request ({type(exc).__name__}); correct it and send it again"
        response = _json(status, {"error": reason})
        response.force_close()
        return response


class HttpServer:
    """The HTTP side of the daemon; pages are what GET /health and GET /metrics answer."""

    def __init__(
        self, listen: Listen, dispatcher: Dispatcher, events: Events, work: Work, pages: Pages
    ) -> None:
        self._max_body_bytes = listen.max_frame_bytes
        self._handle = dispatcher.handle
        self._work = work
        self._pages = pages
        self._streams = EventStreams(events, listen.max_buffer_bytes)
        self._routes: Mapping[str, tuple[str, Route]] = {
            "/": ("POST", self._rpc),
            "/events": ("GET", self._streams.serve),
            "/health": ("GET", self._tell_health),
            "/metrics": ("GET", self._tell_metrics),
        }
        self._unheard: dict[RequestHandler, asyncio.TimerHandle] = {}
        self._server = Server(self._answer)
        self._logger = _one_line_logger()

    @property
    def connections(self) -> int:
        """How many connections stand."""
        return len(self._server.connections)

    @property
    def deliveries(self) -> Deliveries:
        """What the event streams' clients were sent."""
        return self._streams.deliveries

    def start(self) -> None:
        """Begin to pass events on."""
        self._streams.start()

    def protocol(self) -> asyncio.Protocol:
        """The protocol of one new connection."""
        loop = asyncio.get_running_loop()
        protocol = _Connection(
            self._server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # None is none
            logger=self._logger,
            keepalive_timeout=IDLE_TIMEOUT_S,
            lingering_time=SHUTDOWN_TIMEOUT_S,
            auto_decompress=False,
        )
        # aiohttp before 3.14 waits for the headers of a connection's first request for ever.
        self._unheard[protocol] = loop.call_later(IDLE_TIMEOUT_S, self._give_up, protocol)
        return protocol

    def _give_up(self, protocol: RequestHandler) -> None:
        del self._unheard[protocol]
        protocol.force_close()

    async def close(self) -> None:
        """End event streams and connections; answers under way have a moment to finish."""
        for deadline in self._unheard.values():
            deadline.cancel()
        self._streams.close()
        await self._server.shutdown(SHUTDOWN_TIMEOUT_S)

    async def _answer(self, request: BaseRequest) -> StreamResponse:
        deadline = self._unheard.pop(request.protocol, None)
        if deadline is not None:
            deadline.cancel()
        try:
            return await self._route(request)(request)
        except _Refused as e:
            response = _json(e.status, {"error": str(e)})
            # The body of what was refused may still be on its way.
            response.force_close()
            return response

    def _route(self, request: BaseRequest) -> Route:
        # Browsers name the page that a request comes from. No page of ours makes any, and a
        # browser that holds an administrator's certificate would send it along with any page's.
        if "Origin" in request.headers:
            raise _Refused(403, "Requests of web pages are refused; send it without Origin")
        try:
            method, route = self._routes[request.path]
        except KeyError:
            served = ", ".join(f"{m} {path}" for path, (m, _) in self._routes.items())
            raise _Refused(404, f"Nothing is served at {request.path}; there is {served}") from None
        if request.method != method:
            raise _Refused(405, f"{request.method} {request.path} is not served; use {method}")
        return route

    async def _rpc(self, request: BaseRequest) -> StreamResponse:
        body = await self._read_body(request)
        assert request.transport is not None
        caller = peer.caller(request.transport, "http")
        reply = self._handle(body, caller, request.headers.get(FLOW_ID))
        if reply is not None and not isinstance(reply, bytes):
            # Not this task: a verb under way goes on when its client hangs up.
            reply = await asyncio.shield(self._work.start(_result(reply)))
        if reply is None:
            return Response(status=204)
        return Response(body=reply, content_type="application/json")

    async def _read_body(self, request: BaseRequest) -> bytes:
        limit = self._max_body_bytes
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        try:
            return await asyncio.wait_for(_read(request, limit), BODY_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise _Refused(
                408, f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s; send it at once"
            ) from None

    async def _tell_health(self, request: BaseRequest) -> StreamResponse:
        health = self._pages.health()
        return _json(200 if health["ready"] else 503, health)

    async def _tell_metrics(self, request: BaseRequest) -> StreamResponse:
        page = await self._pages.metrics()
        return Response(body=page.body, headers={"Content-Type": page.content_type})


async def _read(request: BaseRequest, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> _Refused:
    return _Refused(
        413,
        f"The body is larger than {limit} bytes (option listen.max_frame_bytes); send less at once",
    )


async def _result(reply: Awaitable[bytes | None]) -> bytes | None:
    return await reply


def _json(status: int, content: Mapping[str, Any]) -> Response:
    return Response(
        status=status, body=envelope.encode(content) + b"\n", content_type="application/json"
    )


def _one_line_logger() -> logging.Logger:
    """A logger for aiohttp, which reports what it cannot parse with a traceback of its own."""
    logger = logging.getLogger(f"{__name__}.aiohttp")
    logger.addFilter(_without_traceback)
    return logger


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info:
        # By name alone: aiohttp quotes what it cannot parse, which may be a body with a key.
        record.msg = f"{record.getMessage()}: {type(record.exc_info[1]).__name__}"
        record.args = ()
        record.exc_info = None
    return True
