# SPDX-License-Identifier: GPL-2.0-or-later
"""Where log lines go and what each of them carries: the VM and the flow that caused it.

daemon.py calls setup() once; rpc/dispatch.py and virt/ set the context variables that lines are
marked with.
"""

from __future__ import annotations

import contextvars
import logging
import os
import sys

flow_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("flow_id", default=None)
vm_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("vm_id", default=None)

FORMAT = "%(asctime)s %(levelname)-7s %(name)s%(marks)s: %(message)s"


class Marks(logging.Filter):
    """Adds the flow id and the VM id of the running task to each record.

    `marks` is for the text format; FLOW_ID and VM_ID become fields of the journal's entries.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        flow, vm = flow_id.get(), vm_id.get()
        record.marks = (f" [flow {flow}]" if flow else "") + (f" [vm {vm}]" if vm else "")
        if flow:
            record.FLOW_ID = flow
        if vm:
            record.VM_ID = vm
        return True


def setup(level: str, target: str) -> None:
    """Send the log to the journal or to stderr.

    level: name of a logging level. target: 'journal', 'stderr' or 'auto' (the journal when systemd
    started this process, sd-daemon's JOURNAL_STREAM, else stderr).
    """
    handler = _handler(target)
    handler.addFilter(Marks())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    # Library loggers repeat at INFO what our own lines say once.
    for noisy in ("aiohttp.access", "jsonrpcserver", "asyncio"):
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
