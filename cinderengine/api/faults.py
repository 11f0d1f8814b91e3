# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults as the API answers them, and those that HTTP alone knows."""

from __future__ import annotations

from cinderengine.api.types.entity import Entity, entity
from cinderengine.errors import EngineError


class NotAllowed(EngineError):
    """The path is there and the method is not. allowed: the methods that are."""

    status = 405
    reason = "Method Not Allowed"

    def __init__(self, detail: str, allowed: frozenset[str]) -> None:
        super().__init__(detail)
        self.allowed = allowed


class NotAcceptable(EngineError):
    """The client takes neither XML nor JSON."""

    status = 406
    reason = "Not Acceptable"


class TooLarge(EngineError):
    """The body is longer than any request is."""

    status = 413
    reason = "Request Entity Too Large"


class UnsupportedMedia(EngineError):
    """The body is neither XML nor JSON."""

    status = 415
    reason = "Unsupported Media Type"


class Internal(EngineError):
    """A mistake of ours, whose traceback is in the log."""

    status = 500


def fault(error: EngineError) -> Entity:
    """The body that tells of an error, in brackets as oVirt has it."""
    return entity("fault", reason=error.reason, detail=f"[{sentence(error.detail)}]")


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
