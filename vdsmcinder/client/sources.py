# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading what an operator points at: a file, or stdin as '-', as text or as JSON.

Whatever is wrong with it is told in a line, and never by what it holds, which may be a secret.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vdsmcinder.client.exit_codes import InputRefused


def named(path: str) -> str:
    """How errors call it."""
    return "stdin" if path == "-" else path


def read_text(path: str) -> str:
    """What the file of that path holds, or stdin for '-'. Raises InputRefused."""
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise InputRefused(f"{named(path)} cannot be read: {e.strerror}; check the path") from e
    except UnicodeDecodeError as e:
        raise InputRefused(f"{named(path)} is not UTF-8 text; give the right file") from e


def parse_json(text: str, where: str) -> Any:
    """The text as JSON. Raises InputRefused, which says where in the text it is not."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as e:
        raise InputRefused(
            f"{where} is not JSON: {e.msg} (line {e.lineno}, column {e.colno})"
        ) from None
    except RecursionError:
        raise InputRefused(f"{where} is not JSON that can be used: it is nested too deep") from None
