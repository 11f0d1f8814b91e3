# SPDX-License-Identifier: GPL-2.0-or-later
"""Plain values as text, both ways; what does not fit is told with field, value and what does."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from cinderengine.api.types.schema import Field, Kind, Type
from cinderengine.errors import Invalid

# Whole numbers are kept in 64 bits.
MOST = 2**63 - 1
# Lists that clients send have a few members.
LONGEST = 1000
_SHOWN = 60
_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})
# What XML 1.0 cannot carry (section 2.2), which we do not take in JSON either.
_NOT_TEXT = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The last day that ISO 8601 can tell of, in milliseconds since the epoch.
LATEST_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_EXPECTED = {
    Kind.TEXT: "text without control characters",
    Kind.BOOL: "true or false",
    Kind.INT: f"a whole number from {-MOST} to {MOST}",
    Kind.DECIMAL: "a number",
    Kind.DATE: "a time as ISO 8601 has it, such as 2015-05-31T15:28:25.525+03:00",
    Kind.ONE: "an object",
    Kind.MANY: "a list",
}


def refused(owner: Type, field: Field, given: str | None = None) -> Invalid:
    """What is told of a value that does not fit; without the value where secrets are sent."""
    value = "that was sent"
    if given is not None and not owner.guarded:
        value = repr(given if len(given) <= _SHOWN else f"{given[:_SHOWN]}…")
    expected = f"one of {', '.join(field.words)}" if field.words else _EXPECTED[field.kind]
    return Invalid(
        f"Field {field.name} of {owner.name} has a value {value} that cannot be read: "
        f"give {expected}."
    )


def too_long(owner: Type, field: Field) -> Invalid:
    """What is told of a list that has too many members."""
    return Invalid(f"Field {field.name} of {owner.name} has more than {LONGEST} members.")


def read(owner: Type, field: Field, given: str) -> str | bool | int | float:
    """The value that a text stands for, by the field's kind. Raises Invalid if it does not fit."""
    value = _READ[field.kind](given)
    if value is None or (field.words and str(value).lower() not in field.words):
        raise refused(owner, field, given)
    return str(value).lower() if field.words else value


def written(field: Field, value: object) -> str:
    """A value as text, for either dialect; what XML cannot carry becomes U+FFFD."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if field.kind is Kind.DATE and isinstance(value, int):
        moment = _EPOCH + timedelta(milliseconds=value)
        return moment.isoformat(timespec="milliseconds")
    return printable(str(value))


def printable(text: str) -> str:
    """The text, with U+FFFD for what XML cannot carry."""
    return _NOT_TEXT.sub("\ufffd", text)


def _text(given: str) -> str | None:
    return None if _NOT_TEXT.search(given) else given


def _word(given: str) -> str | None:
    return _text(given.strip())


def _flag(given: str) -> bool | None:
    low = given.strip().lower()
    return low in _TRUE if low in _TRUE | _FALSE else None


def _number(given: str) -> int | None:
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", given.strip(), re.ASCII):
        return None
    number = int(given)
    return number if -MOST <= number <= MOST else None


def _decimal(given: str) -> float | None:
    if not re.fullmatch(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?", given.strip(), re.ASCII):
        return None
    return float(given)


def _date(given: str) -> int | None:
    try:
        moment = datetime.fromisoformat(given.strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return None


_READ = {
    Kind.TEXT: _text,
    Kind.ENUM: _word,
    Kind.BOOL: _flag,
    Kind.INT: _number,
    Kind.DECIMAL: _decimal,
    Kind.DATE: _date,
}
