# SPDX-License-Identifier: GPL-2.0-or-later
"""The aiohttp application: a request in, the API's answer or fault out, in the client's dialect."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from aiohttp import web

from cinderengine import logs
from cinderengine.api.faults import Internal, NotAllowed, TooLarge, fault
from cinderengine.api.http.identity import CHALLENGES, COOKIE, Asker, asker
from cinderengine.api.http.sso import SingleSignOn
from cinderengine.api.parts import Parts
from cinderengine.api.request import Request, answer_media, request, target
from cinderengine.api.resources.collections import ROOTS
from cinderengine.api.resources.serving import Answer, Api, written
from cinderengine.api.types import dialects
from cinderengine.api.types.schema import Media, Version
from cinderengine.errors import EngineError, Invalid, Unauthenticated
from cinderengine.flows.caller import Caller

log = logging.getLogger(__name__)
LONGEST_BODY = 1024 * 1024
BODY_WITHIN_S = 30.0
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})


def make_app(parts: Parts) -> web.Application:
    """The API over the parts of the engine that it needs, and nothing else."""
    app = web.Application(client_max_size=LONGEST_BODY)
    add_to(app, parts)
    return app


def add_to(app: web.Application, parts: Parts) -> None:
    """Serve the API beside what else the application serves."""
    app.add_routes(SingleSignOn(parts.access).routes())
    endpoint = Endpoint(Api(parts, ROOTS), parts)
    for prefix in ("/ovirt-engine/api", "/api"):
        # What is expected is the API's to say, not HTTP's: 201-created.
        app.router.add_route(
            "*", prefix + "{below:([/;].*)?}", endpoint.handle, expect_handler=_expected
        )


async def _expected(asked: web.Request) -> None:
    """100-continue is answered; what else a client expects is read with the request."""
    if "100-continue" in asked.headers.get("Expect", "").lower() and asked.transport is not None:
        asked.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


class Endpoint:
    """All that is below the API's prefixes."""

    def __init__(self, api: Api, parts: Parts) -> None:
        self._api = api
        self._parts = parts

    async def handle(self, asked: web.Request) -> web.Response:
        """Answer one request; lines of the log that it causes are marked with its id."""
        mark = logs.correlation_id.set("")
        try:
            return await self._handle(asked)
        finally:
            logs.correlation_id.reset(mark)

    async def _handle(self, asked: web.Request) -> web.Response:
        """Whatever goes wrong is a fault."""
        read: Request | None = None
        try:
            path, _, query = asked.raw_path.partition("?")
            if asked.method not in METHODS:
                raise NotAllowed(f"method {asked.method[:20]} is none of the API's", METHODS)
            read = request(asked.method, path, query, asked.headers)
            logs.correlation_id.set(read.correlation_id)
            who = await asker(self._parts.access, asked, persistent=read.persistent)
            caller = Caller(who.user, read.correlation_id, asked.remote or "")
            answer = await self._api.answer(read, caller, await _body(asked))
            body = None if answer.content is None else await written(answer.content, read)
            return _answered(asked, read, answer, who, body)
        except EngineError as e:
            return _fault(asked, read, e)
        except Exception:
            name = read.correlation_id if read else "without an id"
            log.exception("request %s: %s %s failed", name, asked.method, asked.path)
            return _fault(
                asked,
                read,
                Internal(f"the engine made a mistake; its log has it with request {name}"),
            )


async def _body(asked: web.Request) -> bytes:
    """What was sent. Raises TooLarge, and Invalid if it does not come."""
    if not asked.can_read_body:
        return b""
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            return await asked.read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(f"the body has more than {LONGEST_BODY} bytes; send less") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Invalid("the body cannot be read; send it as its headers say") from None
    except TimeoutError:
        raise Invalid(
            f"the body did not come within {BODY_WITHIN_S:.0f} s; send it whole"
        ) from None


def _answered(
    asked: web.Request, read: Request, answer: Answer, who: Asker, body: bytes | None
) -> web.Response:
    response = web.Response(status=answer.status)
    if body is not None:
        response.body = body
        response.headers["Content-Type"] = _type(read.writes)
    if answer.location:
        origin = f"{asked.scheme}://{asked.host}"
        response.headers["Location"] = f"{origin}{read.base}{answer.location}"
    if answer.allowed:
        response.headers["Allow"] = ", ".join(sorted(answer.allowed))
    if who.session is not None:
        if who.session:
            response.set_cookie(
                COOKIE,
                who.session.reveal(),
                path="/",
                httponly=True,
                secure=asked.secure,
                samesite="Strict",
            )
        else:
            response.del_cookie(COOKIE, path="/")
    return _told(response, read)


def _fault(asked: web.Request, read: Request | None, error: EngineError) -> web.Response:
    media, version = _dialect(asked, read)
    body = dialects.writes(media, fault(error), version, "")
    response = web.Response(status=error.status, body=body)
    response.headers["Content-Type"] = _type(media)
    if isinstance(error, Unauthenticated):
        for challenge in CHALLENGES:
            response.headers.add("WWW-Authenticate", challenge)
    if isinstance(error, NotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.allowed))
    return _told(response, read)


def _dialect(asked: web.Request, read: Request | None) -> tuple[Media, Version]:
    """Those of a request; of one that could not be read, as far as it says."""
    if read is not None:
        return read.writes, read.version
    media, version = Media.XML, Version.V4
    with contextlib.suppress(EngineError):
        media = answer_media(asked.headers.get("Accept", ""))
    with contextlib.suppress(EngineError):
        version = target(asked.raw_path.partition("?")[0]).version or version
    return media, version


def _told(response: web.Response, read: Request | None) -> web.Response:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    if read is not None:
        response.headers["Correlation-Id"] = read.correlation_id
    return response


def _type(media: Media) -> str:
    return f"{media.value};charset=UTF-8"
