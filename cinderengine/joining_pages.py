# SPDX-License-Identifier: GPL-2.0-or-later
"""What hosts that join ask the engine for, over HTTPS: its authority, and certificates.

Nobody logs in for it. The authority's certificate is no secret, and certificates are for whoever
presents the token of a host.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from urllib.parse import urlsplit

from aiohttp import web

from cinderengine.errors import EngineError, Invalid
from cinderengine.flows.hosts import Hosts
from cinderengine.hosts import joining

log = logging.getLogger(__name__)

LONGEST_REQUEST = 256 * 1024


class JoiningPages:
    """clients_pem: the certificate of the clients' authority, as it is then."""

    def __init__(self, hosts: Hosts, clients_pem: Callable[[], str]) -> None:
        self._hosts = hosts
        self._clients_pem = clients_pem

    def add_to(self, application: web.Application) -> None:
        """Serve them."""
        application.router.add_get(urlsplit(joining.CA_PATH).path, self.authority)
        application.router.add_post(joining.PATH, self.join)

    async def authority(self, request: web.Request) -> web.Response:
        """The authority's certificate, PEM."""
        if request.query.get("resource", "ca-certificate") != "ca-certificate":
            raise web.HTTPNotFound
        return web.Response(text=self._clients_pem(), content_type="application/x-x509-ca-cert")

    async def join(self, request: web.Request) -> web.Response:
        """Certificates for a host, or why not: a fault."""
        try:
            answer = await self._hosts.join(joining.Request.read(await _read(request)))
        except EngineError as e:
            log.warning("a host at %s did not join: %s", request.remote, e.detail)
            fault = {"fault": {"reason": e.reason, "detail": e.detail}}
            return web.json_response(fault, status=e.status)
        log.info("host %s joined from %s", answer.host.name, request.remote)
        return web.json_response(answer.as_sent())


async def _read(request: web.Request) -> object:
    """What was sent, from JSON. Raises Invalid."""
    body = b""
    async for part in request.content.iter_any():
        body += part
        if len(body) > LONGEST_REQUEST:
            raise Invalid("what a host that joins sent is too long; use vdsm-cinder join")
    try:
        read: object = json.loads(body)
    except ValueError:
        raise Invalid("a host that joins sends a JSON object; use vdsm-cinder join") from None
    return read
