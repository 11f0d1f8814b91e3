# SPDX-License-Identifier: GPL-2.0-or-later
"""One verb as jsonrpcserver calls it: parameters checked, handler run, outcome logged and wrapped.

It never raises: jsonrpcserver would put an exception's text, which may quote a secret, into the
reply and the log.
"""

from __future__ import annotations

import inspect
import logging
import math
import re
import time
import traceback
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from contextvars import Token
from dataclasses import dataclass
from typing import Any, Callable

from jsonrpcserver import Error, Result, Success

from vdsmcinder import logs
from vdsmcinder.errors import Recovering, Unexpected, UnsupportedOperation, VdsmCinderError
from vdsmcinder.fields import kind_of
from vdsmcinder.rpc.access import Role
from vdsmcinder.rpc.envelope import Written
from vdsmcinder.rpc.schema.types import Mismatch
from vdsmcinder.rpc.schema.verb import Verb
from vdsmcinder.system.counters import OK, Tally
from vdsmcinder.uuids import is_uuid

log = logging.getLogger(__name__)

Handler = Callable[..., Any]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}|#[0-9]+")

# How a call ended that was cancelled before it was answered.
GIVEN_UP = "given up"


class _AcceptsAll(inspect.Signature):
    """A signature that every call fits.

    jsonrpcserver binds a request's parameters to the method's signature before it calls it. Here
    the schema checks them, and in better words; building and binding a real signature would cost
    as much as the rest of a ping.
    """

    def bind(self, /, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
        return _NOTHING_BOUND


_ACCEPTS_ALL = _AcceptsAll()
_NOTHING_BOUND = inspect.BoundArguments(_ACCEPTS_ALL, OrderedDict())


@dataclass(frozen=True)
class Caller:
    """Who calls: peer address, subject of the certificate (or the local user), and transport.

    names: subject, common name and alternative names as rpc/access.py compares them.
    trouble: why it may not be here, whatever its role; mostly empty.
    is_host: whether it is the daemon of another host, by the hosts' own CA.
    certificate: issuer and serial number of its certificate, as lists of revoked ones name it.
    expires_at: when that ends, seconds since the epoch.
    """

    address: str
    subject: str
    transport: str
    names: tuple[str, ...] = ()
    is_host: bool = False
    trouble: str = ""
    certificate: tuple[str, int] | None = None
    expires_at: float = math.inf

    @property
    def client(self) -> str:
        """Who has a share of its own: the certificate's subject or the user, else the host."""
        return self.subject or self.address.rpartition(":")[0]

    def __str__(self) -> str:
        return f"{self.subject or 'an unnamed client'} at {self.address} ({self.transport})"


@dataclass(frozen=True)
class Rules:
    """What holds for all verbs.

    recovered: whether the list of VMs is known. check_results: log results and error
    codes that do not fit the schema; for development. role: what a caller of these names may do;
    without it, everything.
    """

    recovered: Callable[[], bool]
    check_results: bool = False
    role: Callable[[Iterable[str]], Role] = lambda names: Role.ADMIN


class Method:
    """What verbs that answer at once and verbs that take their time have in common.

    tally: how its calls ended: 'ok', the code of an error, or 'given up'.
    """

    __signature__ = _ACCEPTS_ALL

    def __init__(self, verb: Verb, handler: Handler, rules: Rules) -> None:
        self.verb = verb
        self.tally = Tally()
        self._handler = handler
        self._rules = rules
        self._is_about_vm = verb.is_about_vm
        self._needs = verb.role
        # Mutating verbs are told of at INFO, reads only at DEBUG.
        self._level = logging.INFO if verb.changes else logging.DEBUG

    def _enter(self, caller: Caller, given: Mapping[str, Any]) -> _Run:
        """The request is there: mark what is logged from here on, and log it."""
        sent = given.get("vmID") if self._is_about_vm else None
        # What is no UUID is refused further on, and may be anything.
        vm_id = str(sent).lower() if is_uuid(sent) else None
        run = _Run(
            vm_id,
            logs.vm_id.set(vm_id) if vm_id else None,
            logs.call.set(logs.Call(self.verb.name, caller)),
            time.perf_counter_ns(),
        )
        if log.isEnabledFor(self._level):
            log.log(self._level, "%s%s called by %s", self.verb.name, run.about, caller)
        return run

    def _values(self, caller: Caller, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """The handler's arguments. Raises UnsupportedOperation, Recovering, InvalidParams."""
        verb = self.verb
        if caller.is_host:
            self._refuse_host(caller)
        elif self._needs is not Role.MONITOR:
            self._refuse_others(caller)
        if verb.needs_vms and not self._rules.recovered():
            raise Recovering(
                f"{verb.name} cannot be answered yet: this host's VMs are still being read from "
                "libvirt; ask again in a moment"
            )
        if not verb.params and not given:
            return ()
        values = verb.values(given)
        verb.refuse_keys(given)
        self._log_params(given, values)
        return values

    def _refuse_others(self, caller: Caller) -> None:
        """Refuse a caller whose role does not allow the verb."""
        role = self._rules.role(caller.names)
        if role.includes(self._needs):
            return
        log.warning("denied %s to %s, whose role is %s", self.verb.name, caller, role.value)
        does = "changes something" if self.verb.changes else "shows what may be secret"
        raise UnsupportedOperation(
            f"{self.verb.name} {does}, which role {role.value} of "
            f"{caller.subject or 'a client without a certificate'} does not allow; give it role "
            f"{self._needs.value} in option access.roles, or call with another certificate",
            role=role.value,
        )

    def _refuse_host(self, caller: Caller) -> None:
        """Refuse another host's daemon what hosts do not call one another for."""
        if self.verb.for_hosts:
            return
        log.warning("denied %s to %s, which is a host", self.verb.name, caller)
        raise UnsupportedOperation(
            f"{self.verb.name} is not for hosts, which {caller.subject} is by the CA of "
            "listen.hosts_ca; call it with a client's certificate"
        )

    def _log_params(self, given: Mapping[str, Any], values: tuple[Any, ...]) -> None:
        unknown = self.verb.unknown(given)
        if unknown:
            # What is no name may be what should stand nowhere.
            known = [repr(name) if _NAME.fullmatch(name) else kind_of(name) for name in unknown[:8]]
            log.warning(
                "%s: %d unknown parameters ignored: %s",
                self.verb.name,
                len(unknown),
                ", ".join(known),
            )
        if log.isEnabledFor(logging.DEBUG):
            shown = ", ".join(p.shown(v) for p, v in zip(self.verb.params, values))
            log.debug("%s(%s)", self.verb.name, shown)

    def _succeed(self, run: _Run, value: Any) -> Result:
        # A verb that has nothing to return gives true (contract/wire.md).
        result = True if value is None else value
        if self._rules.check_results:
            self._check(result)
        self.tally.add(OK, time.perf_counter_ns() - run.started_ns)
        if log.isEnabledFor(self._level):
            ms = run.ms
            log.log(
                self._level,
                "%s%s ok in %.1f ms",
                self.verb.name,
                run.about,
                ms,
                extra=logs.ended(ms),
            )
        return Success(result)

    def _check(self, result: Any) -> None:
        try:
            content = result.read() if isinstance(result, Written) else result
            self.verb.result.check(content, "result")
        except Mismatch as e:
            log.error("%s: the result does not fit the schema: %s", self.verb.name, e)

    def _refuse(self, run: _Run, e: VdsmCinderError) -> Result:
        if self._rules.check_results and e.code not in self.verb.codes:
            log.error("%s: the result does not fit the schema: code %d", self.verb.name, e.code)
        self.tally.add(str(e.code), run.ns)
        ms = run.ms
        log.log(
            self._level,
            "%s%s failed with code %d in %.1f ms: %s",
            self.verb.name,
            run.about,
            e.code,
            ms,
            e.message,
            extra=logs.ended(ms, e.code),
        )
        return Error(e.code, e.message, e.data)

    def _fail(self, run: _Run, e: Exception) -> Result:
        """A fault of our own: the caller learns where to look, the log what happened."""
        log.error("%s%s met a fault:\n%s", self.verb.name, run.about, self._trace(e))
        error = Unexpected(
            f"{self.verb.name}{run.about} met a fault of the daemon's own ({type(e).__name__}); "
            "its log says where, please report it",
            fault=type(e).__name__,
        )
        return self._refuse(run, error)

    def _trace(self, e: BaseException | None) -> str:
        """The exception and what caused it, outermost last.

        Where the request may hold a secret, without their messages, which may quote it.
        """
        parts: list[str] = []
        while e is not None:
            words = "" if self.verb.is_secret else f": {e}"
            frames = "".join(traceback.format_tb(e.__traceback__))
            parts.insert(0, f"{frames}{type(e).__qualname__}{words}")
            e = e.__cause__ or (None if e.__suppress_context__ else e.__context__)
        return "\n".join(parts)


class SyncMethod(Method):
    """A verb that is answered from what is known, at once."""

    def __call__(self, caller: Caller, /, *args: Any, **kwargs: Any) -> Result:
        given = self.verb.by_name(args) if args else kwargs
        run = self._enter(caller, given)
        try:
            return self._succeed(run, self._handler(*self._values(caller, given)))
        except VdsmCinderError as e:
            return self._refuse(run, e)
        except Exception as e:
            return self._fail(run, e)
        finally:
            run.leave()


class AsyncMethod(Method):
    """A verb that takes its time."""

    async def __call__(self, caller: Caller, /, *args: Any, **kwargs: Any) -> Result:
        given = self.verb.by_name(args) if args else kwargs
        run = self._enter(caller, given)
        try:
            return self._succeed(run, await self._handler(*self._values(caller, given)))
        except VdsmCinderError as e:
            return self._refuse(run, e)
        except Exception as e:
            return self._fail(run, e)
        except BaseException:
            self.tally.add(GIVEN_UP, run.ns)
            log.warning(
                "%s%s given up after %.1f ms",
                self.verb.name,
                run.about,
                run.ms,
                extra=logs.ended(run.ms),
            )
            raise
        finally:
            run.leave()


class Refusal:
    """A method that is not served: every call of it gets the same error."""

    __signature__ = _ACCEPTS_ALL

    def __init__(self, error: VdsmCinderError, refused: Counter[int]) -> None:
        self._error = error
        self._refused = refused

    def __call__(self, caller: Caller, /, *args: Any, **kwargs: Any) -> Result:
        self._refused[self._error.code] += 1
        fields = {"CLIENT": str(caller), "ERROR_CODE": self._error.code}
        log.info("refused %s: %s", caller, self._error.message, extra=fields)
        return Error(self._error.code, self._error.message, self._error.data)


@dataclass
class _Run:
    """One call of one verb, under way."""

    vm_id: str | None
    vm_mark: Token[str | None] | None
    call_mark: Token[logs.Call | None]
    started_ns: int

    @property
    def about(self) -> str:
        """Which VM it is about, to follow the verb's name in a sentence."""
        return f" of VM {self.vm_id}" if self.vm_id else ""

    @property
    def ns(self) -> int:
        """How long it has taken so far, in nanoseconds."""
        return time.perf_counter_ns() - self.started_ns

    @property
    def ms(self) -> float:
        """The same in milliseconds."""
        return self.ns / 1e6

    def leave(self) -> None:
        """Take back the marks that log lines carry."""
        logs.call.reset(self.call_mark)
        if self.vm_mark is not None:
            logs.vm_id.reset(self.vm_mark)
