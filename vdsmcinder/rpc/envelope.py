# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON-RPC's outer form: bytes to well-formed requests, and replies to bytes.

What a request asks for is none of its business. Follows https://www.jsonrpc.org/specification.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vdsmcinder.cephx_keys import holds_key
from vdsmcinder.errors import InternalError, InvalidRequest, ParseError, VdsmCinderError

log = logging.getLogger(__name__)

_SEND = "send a JSON-RPC 2.0 request or a batch of them"


@dataclass(frozen=True)
class Written:
    """A result that is JSON already."""

    json: bytes

    def read(self) -> Any:
        """What it says."""
        return _decode(self.json.decode())


_TRUE = Written(b"true")


def _refuse_constant(name: str) -> None:
    raise ParseError(f"The body is not JSON: {name} is not a number there; {_SEND}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ParseError(f"The body is not JSON that can be read: a number is too large; {_SEND}")
    return number


# Built once: json.loads and json.dumps build theirs anew at every call that has options.
_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def decode(body: bytes) -> Any:
    """What the body holds. Raises ParseError, whose words never quote the body."""
    try:
        return _decode(body.decode())
    except UnicodeDecodeError as e:
        reason = f"byte {e.start} is not UTF-8"
    except json.JSONDecodeError as e:
        reason = f"{e.msg.lower()} at line {e.lineno}, column {e.colno}"
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError:
        reason = "a number in it is too long"
    # Raised here, so that no exception that holds the body hangs on to it.
    raise ParseError(f"The body of {len(body)} bytes is not JSON: {reason}; {_SEND}")


def encode(content: Any) -> bytes:
    """JSON as sent. Raises TypeError or ValueError for what JSON cannot hold."""
    return _encode(content).encode()


def member(name: str, content: Any) -> bytes:
    """One member of an object as sent; raises as encode() does."""
    return b"%b:%b" % (encode(name), encode(content))


def check(request: Any) -> None:
    """Raise InvalidRequest, which says what is wrong, unless this is one well-formed request."""
    if not isinstance(request, dict):
        raise _invalid("it is not an object")
    if request.get("jsonrpc") != "2.0":
        raise _invalid('its member jsonrpc is not "2.0"')
    if not isinstance(request.get("method"), str):
        raise _invalid("its member method is missing or is not a string")
    if "params" in request and not isinstance(request["params"], (dict, list)):
        raise _invalid("its member params is neither an object nor a list")
    if "id" in request and not _is_id(request["id"]):
        raise _invalid("its member id is none of a string, a number and null, or holds a CEPHX key")


def _invalid(reason: str) -> InvalidRequest:
    return InvalidRequest(f"This is not a JSON-RPC request: {reason}; {_SEND}")


def _is_id(value: Any) -> bool:
    """Whether it may be repeated as the id of a reply."""
    if isinstance(value, str):
        return not holds_key(value)
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def id_of(request: Any) -> Any:
    """The id of a request that may be malformed; null where it cannot be told."""
    value = request.get("id") if isinstance(request, dict) else None
    return value if _is_id(value) else None


def refusal(error: VdsmCinderError, request: Any = None) -> dict[str, Any]:
    """The reply to a request that cannot be dispatched."""
    return failure(id_of(request), error.code, error.message, error.data)


def success(request_id: Any, result: Any) -> dict[str, Any]:
    """The reply to a request that was answered."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def failure(
    request_id: Any, code: int, message: str, data: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The reply to a request that was not; data only where there is any."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data:
        error["data"] = dict(data)
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def notification(method: str, params: Mapping[str, Any]) -> bytes:
    """An event as sent."""
    return encode({"jsonrpc": "2.0", "method": method, "params": params})


def encode_reply(reply: Any) -> bytes:
    """What is sent for a reply.

    One that JSON cannot hold is replaced with an error of the same id, and logged.
    """
    result = reply.get("result")
    if result is True:
        # What most verbs answer, and too little to set a JSON encoder in motion for.
        result = _TRUE
    if isinstance(result, Written):
        return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (encode(reply["id"]), result.json)
    try:
        return encode(reply)
    except (TypeError, ValueError) as e:
        log.error("a reply cannot be written as JSON: %s", e)
    return encode(refusal(fault("The reply could not be written as JSON"), reply))


def fault(what: str) -> InternalError:
    """An error for what cannot happen unless the daemon is wrong."""
    return InternalError(f"{what}, a fault of the daemon's own; its log says why, please report it")
