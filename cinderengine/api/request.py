# SPDX-License-Identifier: GPL-2.0-or-later
"""What a request asks for, read out of its target and headers alone: no sockets, no state.

Parameters may stand in the query or, as oVirt's version 3 has them, behind `;` on a segment of the
path. Booleans are true, yes, 1 and false, no, 0 in any case; one without a value is true, and one
with another value is as if it were missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, unquote

from cinderengine.api.faults import NotAcceptable, UnsupportedMedia
from cinderengine.api.types.schema import Media, Version
from cinderengine.errors import Invalid, NotFound
from cinderengine.model.ids import new_id

PREFIXES = ("/ovirt-engine/api", "/api")
# Segments of a path, names in `follow`; what is longer asks for nothing that is there.
MOST_SEGMENTS = 12
MOST_FOLLOWED = 20
MOST_PARAMETERS = 50
_TRUE, _FALSE = frozenset({"", "true", "yes", "1"}), frozenset({"false", "no", "0"})
# As oVirt: letters, digits, underscore, hyphen; it goes into logs.
_CORRELATION = re.compile(r"[A-Za-z0-9_.:\[\]-]{1,50}", re.ASCII)


class Waits(Enum):
    """What a client expects of something that takes a while."""

    AS_USUAL = ""
    TILL_DONE = "201-created"
    NOT_AT_ALL = "202-accepted"


@dataclass(frozen=True)
class Target:
    """A path. base: the prefix that was asked for, which hrefs in the answer have as well.

    version: that of a prefix; None without one. matrix: parameters of its segments.
    """

    base: str
    version: Version | None
    segments: tuple[str, ...]
    matrix: Mapping[str, str]


@dataclass(frozen=True)
class Request:
    """One request. content_type: of its body, as it is said. writes: the media of the answer.

    parameters: of query and path. matrix: those of the path alone. follow: links to inline, each as
    the names that lead to it.
    """

    method: str
    base: str
    segments: tuple[str, ...]
    version: Version
    parameters: Mapping[str, str] = field(default_factory=dict)
    matrix: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""
    writes: Media = Media.XML
    waits: Waits = Waits.AS_USUAL
    all_content: bool = False
    filtered: bool = False
    persistent: bool = False
    correlation_id: str = ""
    follow: Sequence[tuple[str, ...]] = ()

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean parameter; the default if it is missing or is none."""
        return _flag(self.parameters.get(name), default)

    def number(self, name: str) -> int | None:
        """A parameter that is a whole number and not negative; None if it is missing or is none."""
        given = self.parameters.get(name, "")
        return int(given) if re.fullmatch(r"[0-9]{1,18}", given, re.ASCII) else None

    @property
    def accepted(self) -> bool:
        """Whether a removal is answered with 202, which version 4's SDK takes for an error."""
        if self.waits is Waits.NOT_AT_ALL or self.version is Version.V3:
            return self.waits is not Waits.TILL_DONE
        return _flag(self.matrix.get("async"), False)


def target(path: str) -> Target:
    """A path, still quoted, below one of the prefixes.

    Raises NotFound outside of them, Invalid for one that cannot be.
    """
    for prefix in PREFIXES:
        if path == prefix or path.startswith((prefix + "/", prefix + ";")):
            break
    else:
        raise NotFound(f"Nothing is at this path; the API is below {PREFIXES[0]}.")
    matrix: dict[str, str] = {}
    segments: list[str] = []
    for quoted in path[len(prefix) :].split("/"):
        name, *parameters = quoted.split(";")
        for parameter in parameters[:MOST_PARAMETERS]:
            key, _, value = parameter.partition("=")
            matrix[unquote(key)] = unquote(value)
        if name:
            segments.append(unquote(name))
    if len(segments) > MOST_SEGMENTS or not all(name.isprintable() for name in segments):
        raise NotFound("Nothing is at this path, and nothing can be.")
    version = {"v3": Version.V3, "v4": Version.V4}.get(segments[0]) if segments else None
    if version is not None:
        return Target(f"{prefix}/{segments[0]}", version, tuple(segments[1:]), matrix)
    if segments and re.fullmatch(r"v[0-9]+", segments[0]):
        raise Invalid(f"Version {segments[0][1:11]} of the API is not served: ask for 3 or 4.")
    return Target(prefix, None, tuple(segments), matrix)


def request(method: str, path: str, query: str, headers: Mapping[str, str]) -> Request:
    """A request by its method, quoted path and query, and headers (in any case).

    Raises EngineError of the status that it is answered with.
    """
    where = target(path)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
    except ValueError:
        raise Invalid(f"The query has more than {MOST_PARAMETERS} parameters.") from None
    parameters = {**where.matrix, **dict(pairs)}
    low = {name.lower(): value for name, value in headers.items()}
    return Request(
        method="GET" if method == "HEAD" else method,
        base=where.base,
        segments=where.segments,
        version=where.version or _version(low.get("version")),
        parameters=parameters,
        matrix=where.matrix,
        content_type=low.get("content-type", ""),
        writes=answer_media(low.get("accept", "")),
        waits=_waits(low.get("x-ovirt-expect", ""), low.get("expect", "")),
        all_content=_flag(parameters.get("all_content", low.get("all-content")), False),
        filtered=_flag(parameters.get("filter", low.get("filter")), False),
        persistent="persistent-auth" in _words(low.get("prefer", "")),
        correlation_id=_correlation(low.get("correlation-id"), parameters.get("correlation_id")),
        follow=_follow(parameters.get("follow", "")),
    )


def answer_media(accept: str) -> Media:
    """XML or JSON, whichever a client likes more; XML if it does not say.

    Raises NotAcceptable if it takes neither.
    """
    best, found = 0.0, Media.XML
    if not accept.strip():
        return found
    for part in accept.split(",")[:50]:
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        media = _ACCEPTED.get(kind)
        weight = _weight(parameters)
        if media is not None and weight > best:
            best, found = weight, media
    if best == 0.0:
        raise NotAcceptable("Answers are application/xml or application/json: accept one of them.")
    return found


_ACCEPTED = {
    "*/*": Media.XML,
    "application/*": Media.XML,
    "application/xml": Media.XML,
    "text/xml": Media.XML,
    "text/*": Media.XML,
    "application/json": Media.JSON,
    "application/x-yaml": None,
}


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            digits = re.fullmatch(r"[01](\.[0-9]{0,3})?", parameter[2:], re.ASCII)
            return float(parameter[2:]) if digits else 0.0
    return 1.0


def body_media(content_type: str, body: bytes) -> Media:
    """How a body is written; what does not say is looked at. Raises UnsupportedMedia."""
    kind = content_type.partition(";")[0].strip().lower()
    if not kind:
        return Media.JSON if body.lstrip()[:1] in (b"{", b"[") else Media.XML
    if kind in {"application/xml", "text/xml"}:
        return Media.XML
    if kind in {"application/json", "text/json"}:
        return Media.JSON
    raise UnsupportedMedia(
        f"A body of type {kind[:60]!r} is not read: send the header Content-Type with "
        "application/xml or application/json."
    )


def _version(header: str | None) -> Version:
    if header is None:
        return Version.V4
    if header.strip() not in {"3", "4"}:
        raise Invalid(f"Version {header[:20]!r} of the API is not served: ask for 3 or 4.")
    return Version(int(header))


def _flag(given: str | None, default: bool) -> bool:
    low = given.strip().lower() if given is not None else None
    if low in _TRUE:
        return True
    return False if low in _FALSE else default


def _words(header: str) -> list[str]:
    return [word.strip().lower() for word in header.replace(";", ",").split(",")]


def _waits(*headers: str) -> Waits:
    for header in headers:
        for waits in (Waits.TILL_DONE, Waits.NOT_AT_ALL):
            if waits.value in _words(header):
                return waits
    return Waits.AS_USUAL


def _correlation(header: str | None, parameter: str | None) -> str:
    given = header or parameter
    if not given:
        return new_id()
    if not _CORRELATION.fullmatch(given):
        raise Invalid(
            f"Correlation-Id {given[:60]!r} is not one: give up to 50 letters, digits, hyphens, "
            "underscores, dots and colons."
        )
    return given


def _follow(given: str) -> Sequence[tuple[str, ...]]:
    wanted = [part.strip() for part in given.split(",") if part.strip()]
    if len(wanted) > MOST_FOLLOWED:
        raise Invalid(f"More than {MOST_FOLLOWED} links to follow: ask for less at once.")
    return [tuple(name for name in path.split(".") if name) for path in wanted]
