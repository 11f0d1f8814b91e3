# SPDX-License-Identifier: GPL-2.0-or-later
"""Plain-text tables that fit a terminal, and figures in units that people read.

It knows nothing of what is listed.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GAP = "  "
ELLIPSIS = "…"
NOTHING = "-"
UNITS = ("", "K", "M", "G", "T")

BOLD, RED, GREEN, YELLOW, DIM = "1", "31", "32", "33", "2"


@dataclass(frozen=True)
class Column:
    """One column.

    shrinks_to: width down to which its cells may be shortened when the table is too wide; 0 if not
    at all. dropped: the columns that are left out when it still is, those with 1 first; 0 stays.
    colours: what a cell begins with, and the colour that it then has on a terminal.
    """

    title: str
    right: bool = False
    shrinks_to: int = 0
    dropped: int = 0
    colours: tuple[tuple[str, str], ...] = ()


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """The rows under their titles, no wider than the terminal as far as columns give way."""
    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [
        max([display_width(column.title), *(display_width(row[i]) for row in lines)])
        for i, column in enumerate(columns)
    ]
    shown = _shown(columns, widths, terminal_width())
    _shrink(columns, widths, shown, terminal_width())
    head = [painted(_cell(columns[i].title, widths[i], columns[i].right), BOLD) for i in shown]
    body = [[_body_cell(columns[i], row[i], widths[i]) for i in shown] for row in lines]
    return "\n".join(GAP.join(row).rstrip() for row in [head, *body])


def _shown(columns: Sequence[Column], widths: Sequence[int], available: int) -> list[int]:
    """The columns for which there is room, each as narrow as it may be."""
    least = [min(w, c.shrinks_to) if c.shrinks_to else w for c, w in zip(columns, widths)]
    shown = list(range(len(columns)))
    for i in sorted(shown, key=lambda i: columns[i].dropped):
        if _total([least[j] for j in shown]) <= available:
            break
        if columns[i].dropped:
            shown.remove(i)
    return shown


def _shrink(columns: Sequence[Column], widths: list[int], shown: list[int], available: int) -> None:
    for i in shown:
        excess = _total([widths[j] for j in shown]) - available
        if columns[i].shrinks_to and excess > 0:
            widths[i] = max(widths[i] - excess, min(widths[i], columns[i].shrinks_to))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _body_cell(column: Column, value: str, width: int) -> str:
    padded = _cell(value, width, column.right)
    colour = next((c for prefix, c in column.colours if value.startswith(prefix)), None)
    return padded if colour is None else painted(padded, colour)


def _cell(value: str, width: int, right: bool) -> str:
    if display_width(value) > width:
        value = _shortened(value, width)
    padding = " " * (width - display_width(value))
    return padding + value if right else value + padding


def _shortened(value: str, width: int) -> str:
    kept = ""
    for char in value:
        if display_width(kept + char) > width - 1:
            break
        kept += char
    return kept + ELLIPSIS


def printable(text: str) -> str:
    """The text in one line and without what would control a terminal, as a VM's name may hold."""
    return "".join(char if char.isprintable() else "?" for char in text)


def display_width(value: str) -> int:
    """How many columns of a terminal the text takes: East Asian characters take two."""
    if value.isascii():
        return len(value)
    return sum(_char_width(char) for char in value)


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def terminal_width() -> int:
    """Columns of the terminal; without one nothing is shortened, so that pipes get all of it."""
    if not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        return 10_000
    return shutil.get_terminal_size().columns


def painted(text: str, colour: str) -> str:
    """The text in a colour (SGR parameter) where stdout is a terminal that wants colours."""
    wants = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if not wants or os.environ.get("TERM") == "dumb":
        return text
    return f"\033[{colour}m{text}\033[0m"


def size(size_bytes: float | None) -> str:
    """Bytes in binary units, as ls -h writes them: 10.0G."""
    if size_bytes is None:
        return NOTHING
    exponent = min((int(abs(size_bytes)).bit_length() - 1) // 10, len(UNITS) - 1)
    if exponent <= 0:
        return f"{size_bytes:.0f}"
    return f"{size_bytes / 1024**exponent:.1f}{UNITS[exponent]}"


def milliseconds(nanoseconds: float | None) -> str:
    """A time per operation: 0.42; '-' where nothing was done."""
    return f"{nanoseconds / 1e6:.2f}" if nanoseconds else NOTHING


def percent(value: float | None) -> str:
    """A percentage without its sign, which stands in the column's title."""
    return NOTHING if value is None else f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """A time span by its two largest units: 3d 4h, 12m 5s."""
    if seconds is None:
        return NOTHING
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d {h}h"
    if hours:
        return f"{h}h {m}m"
    return f"{m}m {s}s" if minutes else f"{s}s"
