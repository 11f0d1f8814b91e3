# SPDX-License-Identifier: GPL-2.0-or-later
"""Who asks: by a bearer token, by name and password, or by the session of version 3's clients.

A session is a cookie, JSESSIONID. It counts only in requests that have the header
`Prefer: persistent-auth`, which no page of another site can have a browser send.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from aiohttp import web

from cinderengine.api.parts import Access
from cinderengine.errors import Unauthenticated
from cinderengine.model.secret import Secret
from cinderengine.model.users import User

COOKIE = "JSESSIONID"
SCOPE = "ovirt-app-api"
CHALLENGES = ('Basic realm="cinder-engine", charset="UTF-8"', 'Bearer realm="cinder-engine"')
_LONGEST = 4096


@dataclass(frozen=True)
class Asker:
    """session: what is to become of the cookie: a new token, or empty to remove it; None as is."""

    user: User
    session: Secret | None = None


async def asker(access: Access, request: web.Request, *, persistent: bool) -> Asker:
    """Who asks. persistent: whether a session is wanted. Raises Unauthenticated."""
    scheme, _, given = request.headers.get("Authorization", "").strip().partition(" ")
    cookie = request.cookies.get(COOKIE)
    match scheme.lower():
        case "bearer":
            return Asker((await access.by_token(Secret(given.strip())))[1])
        case "basic" if cookie and persistent and (user := await _of_session(access, cookie)):
            return Asker(user)
        case "basic":
            user = await by_password(access, request)
            if persistent:
                return Asker(user, (await access.open(user, SCOPE)).text)
            if cookie:
                await access.close(Secret(cookie))
                return Asker(user, Secret(""))
            return Asker(user)
        case "":
            if cookie and persistent:
                return Asker((await access.by_token(Secret(cookie)))[1])
            raise Unauthenticated("nobody is logged in; give a bearer token, or name and password")
    raise Unauthenticated(f"{scheme[:20]!r} is no way to log in here; use Bearer or Basic")


async def _of_session(access: Access, cookie: str) -> User | None:
    try:
        return (await access.by_token(Secret(cookie)))[1]
    except Unauthenticated:
        return None


async def by_password(access: Access, request: web.Request) -> User:
    """Whose name and password the header Authorization has. Raises Unauthenticated."""
    scheme, _, given = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() != "basic":
        raise Unauthenticated("nobody is logged in; give name and password by Basic")
    try:
        if len(given) > _LONGEST:
            raise ValueError
        decoded = base64.b64decode(given.strip(), validate=True).decode()
    except (ValueError, binascii.Error):
        raise Unauthenticated(
            "what is given as name and password is not NAME@PROFILE:PASSWORD in base 64"
        ) from None
    name, colon, password = decoded.partition(":")
    if not colon:
        raise Unauthenticated("no password is given; give NAME@PROFILE:PASSWORD in base 64")
    return await access.by_password(name, Secret(password), request.remote or "")
