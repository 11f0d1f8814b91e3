# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a provider's URLs lead: to a Cinder, to a Keystone, to a pool's monitors.

Reading one touches no network. Invalid names what is wrong with a URL and how it should be.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from cinderengine.errors import Invalid

_VERSION = re.compile(r"v\d+(\.\d+)?")
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_POOL = re.compile(r"[^/@\s?#]+")
_POOL_FORM = "rbd://MONITOR,MONITOR:PORT,[IPV6]:PORT/POOL"


@dataclass(frozen=True)
class CinderAddress:
    """root: where its API begins, without a version. project: of the path; empty if it has none."""

    root: str
    project: str = ""

    @property
    def v3(self) -> str:
        """Where version 3 begins."""
        return f"{self.root}/v3"

    @classmethod
    def of(cls, url: str) -> CinderAddress:
        """That of http://HOST:8776, with or without /v3 and /v3/PROJECT. Raises Invalid."""
        base, segments = _http(url, "http://HOST:8776")
        for at, segment in enumerate(segments):
            if not _VERSION.fullmatch(segment):
                continue
            if not segment.startswith("v3"):
                raise Invalid(
                    f"URL {url} is of version {segment[1:]} of Cinder's API, which Cinder has no "
                    f"more: give the URL without /{segment}, or with /v3."
                )
            rest = segments[at + 1 :]
            if len(rest) > 1:
                raise Invalid(
                    f"URL {url} goes on after the project: give {base}, or {base}/v3/PROJECT."
                )
            return cls("/".join([base, *segments[:at]]), "".join(rest))
        return cls("/".join([base, *segments]))


def keystone_v3(url: str) -> str:
    """Where version 3 of Keystone's API begins. Raises Invalid."""
    base, segments = _http(url, "http://HOST:5000/v3")
    if segments and _VERSION.fullmatch(segments[-1]):
        if not segments[-1].startswith("v3"):
            raise Invalid(
                f"Authentication URL {url} is of version {segments[-1][1:]} of Keystone's API, "
                "which Keystone has no more: give the URL with /v3."
            )
        segments = segments[:-1]
    return "/".join([base, *segments, "v3"])


def _http(url: str, form: str) -> tuple[str, list[str]]:
    """Scheme and host of a URL, and the segments of its path."""
    parts = urlsplit(url.strip())
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise Invalid(f"{_shown(url)} is not the URL of an HTTP server: give one such as {form}.")
    if parts.username is not None or parts.password is not None:
        raise Invalid(
            f"The URL of {parts.hostname} has a user in it: give it in the fields for user and "
            "password."
        )
    if parts.query or parts.fragment:
        raise Invalid(f"URL {_shown(url)} ends in more than a path: give one such as {form}.")
    return f"{parts.scheme}://{parts.netloc}", [s for s in parts.path.split("/") if s]


def _shown(url: str) -> str:
    """A URL that may be told of: without what could be a password."""
    shown = re.sub(r"(?<=//)[^/]*@", "", url.partition("?")[0])
    return "".join(c if c.isprintable() else "?" for c in shown) or "An empty text"


@dataclass(frozen=True)
class PoolAddress:
    """A pool, and its cluster's monitors as Ceph writes them in mon_host."""

    monitors: tuple[str, ...]
    pool: str

    @property
    def mon_host(self) -> str:
        """For librados."""
        return ",".join(self.monitors)

    @classmethod
    def of(cls, url: str) -> PoolAddress:
        """That of rbd://mon1,mon2:6789,[::1]:3300/pool. Raises Invalid."""
        scheme, _, rest = url.strip().partition("://")
        hosts, _, pool = rest.partition("/")
        pool = pool.rstrip("/")
        if scheme.lower() != "rbd" or not hosts or not pool:
            raise Invalid(f"{_shown(url)} is not the URL of a Ceph pool: give {_POOL_FORM}.")
        if "@" in hosts:
            raise Invalid(
                f"The URL of pool {pool} has a user in it: give it in the fields for user and "
                "password."
            )
        if not _POOL.fullmatch(pool):
            raise Invalid(
                f"URL {_shown(url)} does not end in the name of a pool: give {_POOL_FORM}."
            )
        return cls(tuple(_monitor(host.strip(), url) for host in hosts.split(",")), pool)


def _monitor(text: str, url: str) -> str:
    name, port = text, ""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", text, re.DOTALL)
    if bracketed:
        name, port = bracketed[1], bracketed[2] or ""
        good = _is_address(name, 6)
    else:
        name, colon, port = text.partition(":")
        good = _is_name(name) and bool(port) == bool(colon)
    if not good or (port and not (re.fullmatch(r"\d{1,5}", port) and 0 < int(port) < 65536)):
        raise Invalid(
            f"URL {_shown(url)} has {text!r} for a monitor: give host names or addresses, each "
            f"with a port or without, as in {_POOL_FORM}."
        )
    return text


def _is_name(name: str) -> bool:
    labels = name.rstrip(".").split(".")
    # Four numbers are an address or a typing error, never a name (RFC 1123, section 2.1).
    if labels[-1].isdigit():
        return _is_address(name, 4)
    return len(name) <= 253 and all(_LABEL.fullmatch(label) for label in labels)


def _is_address(name: str, version: int) -> bool:
    try:
        return "%" not in name and ipaddress.ip_address(name).version == version
    except ValueError:
        return False
