# SPDX-License-Identifier: GPL-2.0-or-later
"""A client that sends what it is told, byte for byte, and reads what comes."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import aiohttp
from lxml import etree
from yarl import URL

API = "/ovirt-engine/api"


def basic(name: str, password: str) -> str:
    """The header Authorization for a name and a password."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


ADMIN = basic("admin@internal", "pw")


@dataclass(frozen=True)
class Got:
    """An answer."""

    status: int
    headers: Any
    body: bytes

    @property
    def xml(self) -> Any:
        """The document's root."""
        assert self.headers["Content-Type"] == "application/xml;charset=UTF-8"
        return etree.fromstring(self.body)

    @property
    def json(self) -> Any:
        """The document."""
        assert self.headers["Content-Type"] == "application/json;charset=UTF-8"
        return json.loads(self.body)

    def text(self, path: str) -> str:
        """The text of an element, by its path below the root; empty if it is not there."""
        return self.xml.findtext(path) or ""

    @property
    def id(self) -> str:
        """The root's."""
        return str(self.xml.get("id"))

    @property
    def detail(self) -> str:
        """A fault's."""
        assert self.xml.tag == "fault"
        return self.text("detail")


class Client:
    """Paths are below the API's root, or whole."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def __call__(
        self, method: str, path: str, body: str | None = None, *, auth: str = ADMIN, **headers: str
    ) -> Got:
        whole = path if path.startswith(("/ovirt-engine", "/api")) else f"{API}{path}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if auth:
            named.setdefault("Authorization", auth)
        if body is not None:
            named.setdefault("Content-Type", "application/xml")
        async with self.session.request(
            method,
            URL(self.url + whole, encoded=True),
            data=body.encode() if body is not None else None,
            headers=named,
        ) as answer:
            return Got(answer.status, answer.headers, await answer.read())
