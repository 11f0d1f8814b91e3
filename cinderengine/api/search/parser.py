# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads oVirt's search language:

    [KIND:] [CRITERION {and|or CRITERION}] [sortby FIELD [asc|desc]] [page NUMBER]

A criterion is FIELD=VALUE (or !=, <, >, <=, >=), a VALUE alone, which any text field may have, or
criteria in parentheses. `and` binds closer than `or`. A value with blanks or parentheses in it
stands in double quotes; * in it is any text. Words of the language are known in any case.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from cinderengine.api.search.expression import (
    EVERYTHING,
    All,
    Comparison,
    Expression,
    Operator,
    Search,
    Some,
)
from cinderengine.errors import Invalid

LONGEST = 4000
DEEPEST = 20


class _Kind(Enum):
    WORD = auto()
    QUOTED = auto()
    OPERATOR = auto()
    OPEN = auto()
    CLOSE = auto()
    COLON = auto()


@dataclass(frozen=True)
class _Token:
    kind: _Kind
    text: str
    at: int

    def says(self, *words: str) -> bool:
        return self.kind is _Kind.WORD and self.text.lower() in words


# How to read it: the first that matches, after blanks. A value may hold a colon (a time, an
# address), so that one ends a word only where the search begins: Disks: name=x.
_TOKENS = re.compile(
    r"""\s*(?:
      (?P<QUOTED>"(?P<inside>[^"]*)") |
      (?P<OPERATOR>!=|<=|>=|=|<|>) |
      (?P<OPEN>\() |
      (?P<CLOSE>\)) |
      (?P<WORD>[^\s"()=<>!]+)
    )""",
    re.VERBOSE,
)


def parse(text: str) -> Search:
    """The search that a text asks for. Raises Invalid that says where it cannot be read."""
    if len(text) > LONGEST:
        raise Invalid(f"The search has more than {LONGEST} characters.")
    tokens = _tokens(text)
    if tokens and tokens[0].kind is _Kind.WORD and re.fullmatch(r"[A-Za-z]+:", tokens[0].text):
        tokens = tokens[1:]
    return _Parser(text, tokens).search()


def _tokens(text: str) -> Sequence[_Token]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKENS.match(text, at)
        if match is None or match.lastgroup is None:
            rest = text[at:].strip()
            what = "a quotation mark that no other closes" if rest[0] == '"' else f"{rest[0]!r}"
            raise Invalid(f"The search {text[:200]!r} has {what} where that cannot be.")
        kind = next(kind for kind in _Kind if match.groupdict().get(kind.name) is not None)
        inside = match["inside"] if kind is _Kind.QUOTED else match[kind.name]
        found.append(_Token(kind, inside, match.start(kind.name)))
        at = match.end()
    return found


class _Parser:
    """Recursive descent: each method takes the tokens of what it is called after."""

    def __init__(self, text: str, tokens: Sequence[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._next = 0

    def search(self) -> Search:
        where: Expression = EVERYTHING
        if not self._at("sortby", "page") and self._peek() is not None:
            where = self._any(0)
        sort_by, descending = self._order()
        page = self._page()
        if self._peek() is not None:
            raise self._wrong("'and', 'or', 'sortby' or 'page'")
        return Search(where, sort_by, descending, page)

    def _any(self, depth: int) -> Expression:
        parts = [self._each(depth)]
        while self._take("or"):
            parts.append(self._each(depth))
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _each(self, depth: int) -> Expression:
        parts = [self._criterion(depth)]
        while self._take("and"):
            parts.append(self._criterion(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _criterion(self, depth: int) -> Expression:
        token = self._advance("a field or a value")
        if token.kind is _Kind.OPEN:
            if depth == DEEPEST:
                raise Invalid(f"The search has parentheses in one another {DEEPEST} deep.")
            inner = self._any(depth + 1)
            if self._advance("')'").kind is not _Kind.CLOSE:
                raise self._wrong("')'", back=1)
            return inner
        following = self._peek()
        if token.kind is _Kind.WORD and following and following.kind is _Kind.OPERATOR:
            operator = Operator(self._advance("an operator").text)
            return Comparison(token.text.lower(), operator, self._value())
        if token.kind in {_Kind.WORD, _Kind.QUOTED}:
            return Comparison("", Operator.EQUAL, f"*{token.text}*")
        raise self._wrong("a field or a value", back=1)

    def _value(self) -> str:
        token = self._advance("a value")
        if token.kind not in {_Kind.WORD, _Kind.QUOTED}:
            raise self._wrong("a value", back=1)
        return token.text

    def _order(self) -> tuple[str, bool]:
        if not self._take("sortby"):
            return "", False
        field = self._advance("a field to sort by")
        if field.kind is not _Kind.WORD:
            raise self._wrong("a field to sort by", back=1)
        if self._take("desc"):
            return field.text.lower(), True
        self._take("asc")
        return field.text.lower(), False

    def _page(self) -> int | None:
        if not self._take("page"):
            return None
        number = self._advance("the number of a page")
        if not re.fullmatch(r"[1-9][0-9]{0,8}", number.text, re.ASCII):
            raise self._wrong("the number of a page, from 1", back=1)
        return int(number.text)

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _at(self, *words: str) -> bool:
        token = self._peek()
        return token is not None and token.says(*words)

    def _take(self, word: str) -> bool:
        taken = self._at(word)
        self._next += taken
        return taken

    def _advance(self, expected: str) -> _Token:
        token = self._peek()
        if token is None:
            raise self._wrong(expected)
        self._next += 1
        return token

    def _wrong(self, expected: str, back: int = 0) -> Invalid:
        at = self._next - back
        found = f"has {self._tokens[at].text[:60]!r}" if at < len(self._tokens) else "ends"
        return Invalid(f"The search {self._text[:200]!r} {found} where {expected} is expected.")
