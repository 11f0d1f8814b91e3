# SPDX-License-Identifier: GPL-2.0-or-later
"""oVirt's single sign-on, as far as its clients use it: tokens for passwords, and their end.

Requests are forms, answers JSON (RFC 6749, with oVirt's names: `exp` is text, milliseconds since
the epoch).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from urllib.parse import parse_qs

from aiohttp import web

from cinderengine.api.http.identity import CHALLENGES, SCOPE, by_password
from cinderengine.api.parts import Access
from cinderengine.errors import EngineError, Unauthenticated
from cinderengine.model.secret import Secret
from cinderengine.model.users import User

log = logging.getLogger(__name__)
LONGEST_FORM = 16 * 1024
HTTP_GRANT = "urn:ovirt:params:oauth:grant-type:http"
_HEADERS = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class Refused(Exception):
    """A request for a token that gets none. code: RFC 6749's (section 5.2)."""

    def __init__(self, code: str, told: str, status: int = 400) -> None:
        super().__init__(told)
        self.code = code
        self.told = told
        self.status = status


class SingleSignOn:
    """The handlers, and where they are."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        """For the application."""
        below = "/ovirt-engine/sso/oauth"
        return [
            web.post(f"{below}/token", self.token),
            web.post(f"{below}/token-http-auth", self.token),
            web.get(f"{below}/token-http-auth", self.token),
            web.post(f"{below}/revoke", self.end),
            web.post(f"{below}/token-info", self.info),
            web.post("/ovirt-engine/services/sso-logout", self.end),
            web.get("/ovirt-engine/sso/status", self.status),
        ]

    async def token(self, request: web.Request) -> web.Response:
        """A token for a name and a password, in the form or by Basic."""
        try:
            form = await _form(request)
            user = await self._user(request, form)
            scope = form.get("scope", SCOPE)
            if not set(scope.split()) or len(scope) > 200 or not scope.isprintable():
                raise Refused("invalid_scope", f"the scope cannot be granted; ask for {SCOPE}")
            issued = await self._access.open(user, scope)
            return _json(
                {
                    "access_token": issued.text.reveal(),
                    "scope": issued.token.scope,
                    "exp": str(issued.token.expires_ms),
                    "token_type": "bearer",
                }
            )
        except Refused as e:
            return _refusal(e)
        except Unauthenticated as e:
            return _refusal(Refused("access_denied", e.detail, e.status))
        except EngineError as e:
            return _refusal(Refused("server_error", e.detail, e.status))

    async def end(self, request: web.Request) -> web.Response:
        """The end of a token, or of none."""
        try:
            form = await _form(request)
            token = form.get("token", "")
            if not token:
                raise Refused("invalid_request", "no token is given; give the one that is to end")
            await self._access.close(Secret(token))
            return _json({})
        except Refused as e:
            return _refusal(e)
        except EngineError as e:
            return _refusal(Refused("server_error", e.detail, e.status))

    async def info(self, request: web.Request) -> web.Response:
        """Whose a token is and until when, for whoever has it."""
        try:
            form = await _form(request)
            given = form.get("token", "")
            if not given:
                raise Refused("invalid_request", "no token is given; give the one to tell of")
            token, user = await self._access.by_token(Secret(given))
            return _json(
                {
                    "active": True,
                    "scope": token.scope,
                    "exp": str(token.expires_ms),
                    "token_type": "bearer",
                    "user_id": user.principal,
                    "username": user.principal,
                }
            )
        except Refused as e:
            return _refusal(e)
        except Unauthenticated as e:
            return _refusal(Refused("invalid_grant", e.detail))
        except EngineError as e:
            return _refusal(Refused("server_error", e.detail, e.status))

    async def status(self, request: web.Request) -> web.Response:
        """That it is there."""
        return _json({"status": "active"})

    async def _user(self, request: web.Request, form: Mapping[str, str]) -> User:
        grant = form.get("grant_type", "password")
        if grant == HTTP_GRANT or request.path.endswith("token-http-auth"):
            return await by_password(self._access, request)
        if grant != "password":
            raise Refused(
                "unsupported_grant_type", f"{grant[:60]!r} is no grant here; use password"
            )
        name, password = form.get("username", ""), form.get("password", "")
        if not name or not password:
            raise Refused("invalid_request", "no username and password are given; give both")
        return await self._access.by_password(name, Secret(password), request.remote or "")


async def _form(request: web.Request) -> Mapping[str, str]:
    """A form's fields, of several with one name the last. Raises Refused."""
    if (request.content_length or 0) > LONGEST_FORM:
        raise Refused("invalid_request", "the form is too long", 413)
    try:
        body = await request.read()
        if len(body) > LONGEST_FORM:
            raise Refused("invalid_request", "the form is too long", 413)
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20)
    except web.HTTPRequestEntityTooLarge:
        raise Refused("invalid_request", "the form is too long", 413) from None
    except (web.RequestPayloadError, ConnectionError, ValueError):
        raise Refused("invalid_request", "the body is no form") from None
    return {name: values[-1] for name, values in fields.items()}


def _json(content: Mapping[str, object]) -> web.Response:
    return web.json_response(dict(content), headers=_HEADERS)


def _refusal(refused: Refused) -> web.Response:
    response = web.json_response(
        {"error": refused.told, "error_code": refused.code},
        status=refused.status,
        headers=_HEADERS,
    )
    if refused.status == 401:
        for challenge in CHALLENGES:
            response.headers.add("WWW-Authenticate", challenge)
    return response
