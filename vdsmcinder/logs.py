# SPDX-License-Identifier: GPL-2.0-or-later
"""Where log lines go and what each of them carries: the VM, and the request that caused it.

In the journal these are the fields VM_ID, FLOW_ID, VERB and CLIENT; a line that tells how a verb
ended has DURATION_MS and, if it failed, ERROR_CODE too.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

from vdsmcinder.cephx_keys import masked


class Call(NamedTuple):
    """A verb that somebody called; client says who, as text, when it is asked to."""

    verb: str
    client: object


class Cause(NamedTuple):
    """The request that something comes of."""

    flow_id: str | None
    call: Call | None


flow_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("flow_id", default=None)
vm_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("vm_id", default=None)
call: contextvars.ContextVar[Call | None] = contextvars.ContextVar("call", default=None)

FORMAT = "%(asctime)s %(levelname)-7s %(name)s%(marks)s: %(message)s"


def cause() -> Cause | None:
    """The request that what runs now comes of; None if it comes of none."""
    found = Cause(flow_id.get(), call.get())
    return None if found == (None, None) else found


@contextlib.contextmanager
def caused_by(known: Cause | None) -> Iterator[None]:
    """Mark what is logged meanwhile with a request, unless it comes of one anyway."""
    if known is None or cause() is not None:
        yield
        return
    flow_mark, call_mark = flow_id.set(known.flow_id), call.set(known.call)
    try:
        yield
    finally:
        call.reset(call_mark)
        flow_id.reset(flow_mark)


def ended(duration_ms: float, error_code: int | None = None) -> dict[str, object]:
    """The fields of a line that tells how a verb ended, for the parameter extra of logging."""
    fields: dict[str, object] = {"DURATION_MS": f"{duration_ms:.1f}"}
    if error_code is not None:
        fields["ERROR_CODE"] = error_code
    return fields


_FORMATTER = logging.Formatter()


class Masks(logging.Filter):
    """Masks CEPHX keys in what is logged, whoever logs it and wherever they were pasted."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if (shown := masked(text)) != text:
            record.msg, record.args = shown, ()
        if record.exc_info and record.exc_info[0] is not None:
            text = _FORMATTER.formatException(record.exc_info)
            if (shown := masked(text)) != text:
                # The journal would have the exception itself in a field of the entry.
                record.exc_text, record.exc_info = shown, None
        return True


class Marks(logging.Filter):
    """Adds the VM and the request of the running task to each record.

    `marks` is for the text format; what is in capitals becomes a field of the journal's entry.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        flow, vm, known = flow_id.get(), vm_id.get(), call.get()
        flow = flow and masked(flow)
        record.marks = (f" [flow {flow}]" if flow else "") + (f" [vm {vm}]" if vm else "")
        if flow:
            record.FLOW_ID = flow
        if vm:
            record.VM_ID = vm
        if known:
            record.VERB, record.CLIENT = known.verb, str(known.client)
        return True


def setup(level: str, target: str) -> None:
    """Send the log to the journal or to stderr.

    level: name of a logging level. target: 'journal', 'stderr' or 'auto' (the journal when systemd
    started this process, sd-daemon's JOURNAL_STREAM, else stderr).
    """
    handler = _handler(target)
    handler.addFilter(Masks())
    handler.addFilter(Marks())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    # Library loggers repeat at INFO what our own lines say once.
    for noisy in ("jsonrpcserver", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Log from this level on; loggers that were given one of their own keep it."""
    logging.getLogger().setLevel(level)


def _handler(target: str) -> logging.Handler:
    wants_journal = target == "journal" or (target == "auto" and "JOURNAL_STREAM" in os.environ)
    if wants_journal:
        # Costs 20 ms to import: only where it is used.
        from systemd.journal import JournalHandler  # noqa: PLC0415

        handler: logging.Handler = JournalHandler(SYSLOG_IDENTIFIER="vdsm-cinderd")
        handler.setFormatter(logging.Formatter("%(message)s"))
        return handler
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    return handler
