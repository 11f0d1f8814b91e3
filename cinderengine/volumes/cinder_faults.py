# SPDX-License-Identifier: GPL-2.0-or-later
"""What went wrong between us and a Cinder or its Keystone, in one sentence each.

Cinder's own words, where it said any, stand at a sentence's end. Passwords and tokens are in none:
neither is in a URL or in what a server says of a request.
"""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
from keystoneauth1 import exceptions as ks

from cinderengine.errors import Conflict, EngineError, Invalid, NotFound, OutsideError, Unavailable
from vdsmcinder import tls_errors

_MOST_WORDS = 500
# OpenSSL's words, and those of urllib3 before version 2, which compares names itself.
_UNTRUSTED = re.compile(
    r"certificate verify failed: ([^(\]]+)|((?:hostname|IP address) .* doesn't match .*)"
)


def of_connection(what: str, url: str, error: BaseException, timeout_s: float) -> EngineError:
    """Why there is no answer. what: "Cinder" or "Keystone", at this URL."""
    causes = list(_causes(error))
    return (
        _of_tls(what, url, causes)
        or _of_network(what, url, causes, timeout_s)
        or Unavailable(
            f"{what} at {url} cannot be reached "
            f"({one_line(tls_errors.reason(causes[-1]))}): see whether it runs."
        )
    )


def _of_tls(what: str, url: str, causes: Sequence[BaseException]) -> EngineError | None:
    for cause in causes:
        found = _UNTRUSTED.search(str(cause))
        if found:
            said = one_line(found[1] or found[2]).rstrip("., ")
            remedy = "add its authority to those that this machine trusts, or correct the URL"
            if "match" in said:
                remedy = "give the URL by a name that is in its certificate"
            return Invalid(
                f"{what} at {url} shows a certificate that is not trusted ({said}): {remedy}."
            )
    if any(isinstance(c, (ks.SSLError, requests.exceptions.SSLError)) for c in causes):
        said = one_line(tls_errors.reason(causes[-1]))
        return Invalid(
            f"{what} at {url} does not speak TLS as expected ({said}): check whether its URL "
            "begins with http or https."
        )
    return None


def _of_network(
    what: str, url: str, causes: Sequence[BaseException], timeout_s: float
) -> EngineError | None:
    if any(isinstance(c, socket.gaierror) for c in causes):
        host = urlsplit(url).hostname
        return Unavailable(f"The name {host} in {what}'s URL is not known to DNS: correct the URL.")
    if any(isinstance(c, (ks.ConnectTimeout, requests.exceptions.Timeout)) for c in causes):
        return Unavailable(
            f"{what} at {url} did not answer within {timeout_s:g} s: see whether it works, and "
            "whether the network lets this machine reach it."
        )
    if any(isinstance(c, ConnectionRefusedError) for c in causes):
        return Unavailable(
            f"{what} at {url} refuses connections: start it, or correct the URL's host and port."
        )
    if any(isinstance(c, http.client.BadStatusLine) for c in causes):
        return Invalid(f"What listens at {url} does not speak HTTP: correct the port in the URL.")
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and what libraries put into their errors' arguments."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__, getattr(one, "reason", None)]
        waiting += [arg for arg in one.args if isinstance(arg, BaseException)]


def of_keystone(
    error: ks.ClientException, url: str, user: str, project: str, timeout_s: float
) -> EngineError:
    """Why there is no token."""
    if isinstance(error, ks.ConnectionError):
        return of_connection("Keystone", url, error, timeout_s)
    if isinstance(error, ks.Unauthorized):
        return Invalid(
            f"Keystone at {url} does not let user {user} into project {project}: correct user, "
            "password, project (tenant) or their domains, or give the user a role there."
        )
    if isinstance(error, ks.HttpError) and error.http_status >= 500:
        return Unavailable(
            f"Keystone at {url} failed with HTTP status {error.http_status}: see its log."
        )
    if isinstance(error, (ks.NotFound, ks.InvalidResponse, ks.HttpError)):
        status = (
            f"HTTP status {error.http_status}" if isinstance(error, ks.HttpError) else "no token"
        )
        return Invalid(
            f"There is no Keystone with version 3 of its API at {url} (it answers {status}): "
            "correct the authentication URL."
        )
    return OutsideError(f"Keystone at {url} gave no token: {one_line(str(error))}.")


_REFUSES = "Cinder at {url} refuses {what}{said}"
# What Cinder's refusals are to the engine, by HTTP status; {url}, {what} and {said} are filled in.
_ANSWERS: Mapping[int, tuple[type[EngineError], str]] = {
    401: (
        Invalid,
        "Cinder at {url} does not accept a token of the Keystone that was asked: correct the "
        "authentication URL, or the URL{said}",
    ),
    403: (OutsideError, "Cinder at {url} does not allow the user {what}{said}"),
    404: (NotFound, "Cinder at {url} has no {what} (any more){said}"),
    409: (Conflict, _REFUSES),
    413: (Conflict, _REFUSES),
    429: (Unavailable, "Cinder at {url} has been asked too often: wait{said}"),
}
_FAILED = "Cinder at {url} failed with HTTP status {status}: see its log{said}"


def of_answer(url: str, response: requests.Response, what: str, is_made: bool) -> EngineError:
    """Why Cinder refused. what: the thing that was asked for, such as "volume ID".

    is_made: it was to be made, so that what Cinder does not find is something else.
    """
    status, said = response.status_code, words(response)
    kind, form = _ANSWERS.get(status, (OutsideError, _REFUSES))
    if status == 404 and is_made:
        kind, form = Invalid, _REFUSES
    if status >= 500:
        kind, form = Unavailable, _FAILED
    elif said is None:
        media = response.headers.get("Content-Type", "nothing").partition(";")[0]
        return Invalid(
            f"What answers at {url} (HTTP status {status}, {media}) is not Cinder's API: correct "
            "the URL."
        )
    elif "quota" in said.lower():
        kind = Conflict
    told = f": {said.rstrip('.')}." if said else "."
    return kind(form.format(url=url, what=what, status=status, said=told))


def words(response: requests.Response) -> str | None:
    """What Cinder says in an error, empty for nothing; None for what Cinder did not write."""
    try:
        body: Any = response.json()
    except ValueError:
        return None
    if isinstance(body, dict):
        for fault in body.values():
            if isinstance(fault, dict) and "message" in fault:
                return one_line(str(fault["message"]))
    return ""


def one_line(text: str) -> str:
    """What somebody else said, on one line, and not endless."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_WORDS else f"{line[:_MOST_WORDS]}…"
