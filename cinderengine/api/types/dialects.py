# SPDX-License-Identifier: GPL-2.0-or-later
"""Documents in the dialect that was asked for."""

from __future__ import annotations

from cinderengine.api.types import json, xml
from cinderengine.api.types.document import Document
from cinderengine.api.types.entity import Entity, Many
from cinderengine.api.types.schema import Media, Type, Version


def reads(media: Media, body: bytes, declared: Type, version: Version) -> Document:
    """The object of that type in a document. Raises Invalid that says what is wrong with it."""
    if media is Media.JSON:
        return json.reads(body, declared, version)
    return xml.reads(body, declared, version)


def writes(media: Media, content: Entity | Many, version: Version, base: str) -> bytes:
    """A document. base: the prefix of the API's root that hrefs are given."""
    if media is Media.JSON:
        return json.writes(content, version, base)
    return xml.writes(content, version, base)
