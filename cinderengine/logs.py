# SPDX-License-Identifier: GPL-2.0-or-later
"""Where log lines go and what each of them carries: the request that caused it.

In the journal that is the field CORRELATION_ID; hosts have it in their logs as FLOW_ID.
"""

from __future__ import annotations

import contextvars
import logging
import os
import re
import sys

# What a client gave, or what was made for it; empty where nobody asked.
correlation_id: contextvars.ContextVar[str] = contextvars.ContextVar("correlation_id", default="")

FORMAT = "%(asctime)s %(levelname)-7s %(name)s%(marks)s: %(message)s"
# A CEPHX key in base 64: 28 bytes that begin with its type, 1.
_CEPHX_KEY = re.compile(r"(?<![A-Za-z0-9+/])AQ[A-Za-z0-9+/]{36,38}(==|=|)(?![A-Za-z0-9+/=])")
_FORMATTER = logging.Formatter()


class Masks(logging.Filter):
    """Masks CEPHX keys in what is logged, whoever logs it."""

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
    """Adds the request of the running task to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        known = masked(correlation_id.get())
        record.marks = f" [{known}]" if known else ""
        if known:
            record.CORRELATION_ID = known
        return True


def masked(text: str) -> str:
    """The text without the CEPHX keys in it."""
    return _CEPHX_KEY.sub("***", text)


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
    # They tell at INFO what our own lines say once.
    for noisy in ("aiohttp", "alembic", "asyncio", "keystoneauth", "openstack", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Log from this level on; loggers that were given one of their own keep it."""
    logging.getLogger().setLevel(level)


def _handler(target: str) -> logging.Handler:
    if target == "journal" or (target == "auto" and "JOURNAL_STREAM" in os.environ):
        from systemd.journal import JournalHandler  # noqa: PLC0415  # where there is one

        handler: logging.Handler = JournalHandler(SYSLOG_IDENTIFIER="cinder-engine")
        handler.setFormatter(logging.Formatter("%(message)s"))
        return handler
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    return handler
