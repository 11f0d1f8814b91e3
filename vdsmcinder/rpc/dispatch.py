# SPDX-License-Identifier: GPL-2.0-or-later
"""From a body to its reply: opens it, has jsonrpcserver call the verbs in it, encodes the replies.

One Dispatcher has all verbs; each body is one request or a batch of them.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import logging
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Union
from weakref import WeakValueDictionary

from jsonrpcserver import async_dispatch_to_response
from jsonrpcserver.codes import ERROR_SERVER_ERROR
from jsonrpcserver.dispatcher import call, create_request
from jsonrpcserver.sentinels import NOID
from oslash.either import Left

from vdsmcinder import logs
from vdsmcinder.errors import (
    InvalidRequest,
    NoSuchVerb,
    NotImplementedYet,
    OutOfResources,
    VdsmCinderError,
)
from vdsmcinder.fair_scheduling import Pace, Turns
from vdsmcinder.rpc import envelope
from vdsmcinder.rpc.method import (
    AsyncMethod,
    Caller,
    Handler,
    Method,
    Refusal,
    Rules,
    SyncMethod,
)
from vdsmcinder.rpc.schema.schema import Schema
from vdsmcinder.system.counters import Tally
from vdsmcinder.tasks import Tasks

log = logging.getLogger(__name__)

__all__ = ["Caller", "Dispatcher", "HandlersDiffer", "Rules", "handlers"]

Reply = Union[bytes, None]
Later = Coroutine[Any, Any, Reply]

# Requests of one batch that take time and are under way together.
_SLOW_AT_ONCE = 10
# Batches of one client, on all its connections, that are worked off together; others of it wait.
_BATCHES_OF_CLIENT = 2
# Once the replies to a batch are as large, the rest of its requests is refused: a batch is a small
# thing to send, and what it asks for may be large.
_MAX_BATCH_REPLY_BYTES = 16 * 1024 * 1024
# The same for all batches under way together, whoever sent them.
_MAX_BATCH_REPLIES_BYTES = 64 * 1024 * 1024
# A name is looked at for its likeness to verbs only up to this length: it costs time.
_LONGEST_VERB = 64
_LONGEST_FLOW_ID = 128


class HandlersDiffer(Exception):
    """A verb that the schema says is served has no handler, or the other way round."""


class Dispatcher:
    """Answers bodies of JSON-RPC.

    schema: the contract. handlers: by verb, functions that take the verb's parameters in the order
    of the schema; coroutine functions where they take time. max_batch: requests that one batch may
    hold.
    role: what a caller may do. tallies: how calls ended, by verb. refused: requests that reached no
    verb, by error code. turns: batches are answered in them, and the transports take theirs there.
    Raises HandlersDiffer if handlers and schema do not fit.
    """

    def __init__(
        self, schema: Schema, handlers: Mapping[str, Handler], rules: Rules, max_batch: int
    ) -> None:
        _compare(schema, handlers)
        self.role = rules.role
        self._max_batch = max_batch
        at_once: dict[str, Method] = {}
        slow: dict[str, Method] = {}
        for name, handler in handlers.items():
            if inspect.iscoroutinefunction(handler):
                slow[name] = AsyncMethod(schema.verbs[name], handler, rules)
            else:
                at_once[name] = SyncMethod(schema.verbs[name], handler, rules)
        every = {**at_once, **slow}
        self.tallies: Mapping[str, Tally] = {name: m.tally for name, m in every.items()}
        self.refused: Counter[int] = Counter()
        self.turns = Turns()
        self._batches = _Batches()
        self._slow: dict[str, Any] = {**slow}
        self._at_once = _Methods(at_once, schema, self.refused)

    def handle(self, body: bytes, caller: Caller, flow_id: str | None = None) -> Reply | Later:
        """The reply to a body, or an awaitable of it if a verb in it takes time.

        None: there is nothing to answer. flow_id goes into every log line that this causes.
        Cancelling the awaitable gives up the verbs in it, so transports let it end even where
        nobody is left to take the reply.
        """
        mark = logs.flow_id.set(_loggable(flow_id))
        try:
            return self._answer(body, caller)
        finally:
            logs.flow_id.reset(mark)

    def _answer(self, body: bytes, caller: Caller) -> Reply | Later:
        content = None
        try:
            content = envelope.decode(body)
            if isinstance(content, list):
                return self._answer_batch(content, caller)
            envelope.check(content)
        except VdsmCinderError as e:
            self.refused[e.code] += 1
            fields = {"CLIENT": str(caller), "ERROR_CODE": e.code}
            log.warning("refused %d bytes from %s: %s", len(body), caller, e.message, extra=fields)
            return envelope.encode(envelope.refusal(e, content))
        return self._dispatch(content, caller)

    def _answer_batch(self, batch: Sequence[Any], caller: Caller) -> Reply | Later:
        """Raises InvalidRequest, OutOfResources for a batch that is refused as a whole."""
        if not batch:
            raise InvalidRequest("The batch is empty; send at least one request in it")
        if len(batch) > self._max_batch:
            raise OutOfResources(
                f"The batch holds {len(batch)} requests, but at most {self._max_batch} are taken "
                "in one (option rpc.max_queue); send several"
            )
        requests, refusals = _sift(batch)
        if refusals:
            self.refused[InvalidRequest.code] += len(refusals)
            log.warning("refused %d of %d in a batch from %s", len(refusals), len(batch), caller)
        replies = _Replies(refusals, self._batches)
        return self._work_off(requests, replies, caller, logs.flow_id.get())

    async def _work_off(
        self, requests: Sequence[Any], replies: _Replies, caller: Caller, flow_id: str | None
    ) -> Reply:
        """Answer a batch: in turns, so that others are served meanwhile, and few verbs at once."""
        mark = logs.flow_id.set(flow_id)
        slow: list[asyncio.Task[Reply]] = []
        pace = Pace(self.turns)
        try:
            async with self._batches.turn_of(caller.client), Tasks("batch") as tasks, replies:
                for request in requests:
                    await pace.step()
                    may = replies.may_grow
                    reply = self._dispatch(request, caller) if may else _too_much(request)
                    if reply is None or isinstance(reply, bytes):
                        replies.add(reply)
                        continue
                    slow.append(tasks.begin(reply, "request"))
                    if len(slow) == _SLOW_AT_ONCE:
                        replies.add(*await asyncio.gather(*slow))
                        slow.clear()
                replies.add(*await asyncio.gather(*slow))
        finally:
            logs.flow_id.reset(mark)
        return replies.encoded()

    def _dispatch(self, content: Any, caller: Caller) -> Reply | Later:
        """The reply to one well-formed request.

        Of jsonrpcserver's dispatch_to_response these are the steps that are left when a request is
        opened and checked; going through all of it takes a ping twice the time.
        """
        if content["method"] in self._slow:
            return self._later(content, caller, logs.flow_id.get())
        request = create_request(content)
        result = call(request, caller, self._at_once[request.method])
        if request.id is NOID:
            return None
        return envelope.encode_reply(_reply(request.id, result))

    async def _later(self, request: Any, caller: Caller, flow_id: str | None) -> Reply:
        mark = logs.flow_id.set(flow_id)
        try:
            reply = await async_dispatch_to_response(
                request,
                self._slow,
                context=caller,
                deserializer=_as_it_is,
                validator=_as_it_is,
                post_process=_reply_of,
            )
        finally:
            logs.flow_id.reset(mark)
        if reply is None:
            return None
        # Many may have waited for the same thing, and their replies may be long.
        await self.turns.next()
        return envelope.encode_reply(reply)


class _Batches:
    """All batches under way. replies_bytes: what the replies to them come to, so far."""

    def __init__(self) -> None:
        self.replies_bytes = 0
        self._of_client: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def turn_of(self, client: str) -> asyncio.Semaphore:
        """What lets few batches of a client in at the same time, `async with` it."""
        return self._of_client.setdefault(client, asyncio.Semaphore(_BATCHES_OF_CLIENT))


class _Replies:
    """The replies to a batch, encoded as they come in; refusals are the first.

    They count among those of all batches while it is worked off, `async with` them.
    """

    def __init__(self, refusals: Sequence[dict[str, Any]], all_batches: _Batches) -> None:
        self._parts = [envelope.encode_reply(r) for r in refusals]
        self._size = sum(map(len, self._parts))
        self._all = all_batches

    async def __aenter__(self) -> None:
        self._all.replies_bytes += self._size

    async def __aexit__(self, *_: object) -> None:
        self._all.replies_bytes -= self._size

    @property
    def may_grow(self) -> bool:
        """Whether there is room for more than errors."""
        return (
            self._size < _MAX_BATCH_REPLY_BYTES
            and self._all.replies_bytes < _MAX_BATCH_REPLIES_BYTES
        )

    def add(self, *replies: Reply) -> None:
        """Take more; None, for a notification, is nothing."""
        parts = [reply for reply in replies if reply is not None]
        self._parts += parts
        size = sum(map(len, parts))
        self._size += size
        self._all.replies_bytes += size

    def encoded(self) -> Reply:
        """The list that is sent; None if all were notifications."""
        return b"[%b]" % b",".join(self._parts) if self._parts else None


class _Methods(dict[str, Any]):
    """Methods by name as jsonrpcserver looks them up; there is one, if a Refusal, for any name."""

    def __init__(
        self, methods: Mapping[str, Method], schema: Schema, refused: Counter[int]
    ) -> None:
        super().__init__(methods)
        self._schema = schema
        self._refused = refused

    def __missing__(self, name: str) -> Any:
        return Refusal(_why_not(self._schema, name), self._refused)


def handlers(**namespaces: object) -> dict[str, Handler]:
    """The public methods of objects, by verb: handlers(VM=x) has VM.create if x has create."""
    return {
        f"{prefix}.{name}": method
        for prefix, verbs in namespaces.items()
        for name, method in inspect.getmembers(verbs, inspect.ismethod)
        if not name.startswith("_")
    }


def _compare(schema: Schema, handlers: Mapping[str, Handler]) -> None:
    served = {v.name for v in schema.served}
    for name in served - handlers.keys():
        raise HandlersDiffer(f"schema.yml says that {name} is served, but it has no handler")
    for name in handlers.keys() - served:
        raise HandlersDiffer(f"{name} has a handler, but schema.yml does not say that it is served")
    for name, handler in handlers.items():
        takes, params = len(inspect.signature(handler).parameters), schema.verbs[name].params
        if takes != len(params):
            raise HandlersDiffer(
                f"the handler of {name} takes {takes} parameters; schema.yml has {len(params)}"
            )


def _why_not(schema: Schema, name: str) -> VdsmCinderError:
    if name in schema.verbs:
        return NotImplementedYet(f"{name} is not implemented in this version of vdsm-cinder")
    shown = repr(name[:_LONGEST_VERB])
    close = difflib.get_close_matches(name[:_LONGEST_VERB], schema.verbs, n=1)
    hint = f"did you mean {close[0]}?" if close else "docs/api.md lists those that there are"
    return NoSuchVerb(f"There is no verb {shown}; {hint}")


def _loggable(flow_id: str | None) -> str | None:
    """A flow id as it may stand in each log line: in one line, and short."""
    if flow_id is None or (flow_id.isprintable() and len(flow_id) <= _LONGEST_FLOW_ID):
        return flow_id
    return repr(flow_id[:_LONGEST_FLOW_ID])


def _sift(batch: Sequence[Any]) -> tuple[list[Any], list[dict[str, Any]]]:
    """The well-formed requests of a batch, and the replies to the others."""
    requests, refusals = [], []
    for request in batch:
        try:
            envelope.check(request)
            requests.append(request)
        except InvalidRequest as e:
            refusals.append(envelope.refusal(e, request))
    return requests, refusals


def _too_much(request: Any) -> Reply:
    if "id" not in request:
        return None
    error = OutOfResources(
        f"The replies to this batch are larger than {_MAX_BATCH_REPLY_BYTES} bytes, or those to "
        f"all batches than {_MAX_BATCH_REPLIES_BYTES}; send this request again, in a smaller batch"
    )
    return envelope.encode_reply(envelope.refusal(error, request))


def _as_it_is(content: Any) -> Any:
    """In place of jsonrpcserver's own parser and validator: envelope.py has done their work."""
    return content


def _reply_of(response: Any) -> dict[str, Any]:
    """jsonrpcserver's response as what goes on the wire."""
    about = response._error if isinstance(response, Left) else response._value
    return _reply(about.id, response)


def _reply(request_id: Any, result: Any) -> dict[str, Any]:
    """What goes on the wire for a method's result, or for a response."""
    if not isinstance(result, Left):
        return envelope.success(request_id, result._value.result)
    error = result._error
    if error.code == ERROR_SERVER_ERROR:
        # Its data is an exception's text, which may quote the request.
        return envelope.refusal(envelope.fault("The request could not be dispatched"))
    return envelope.failure(request_id, error.code, error.message, error.data)
