# SPDX-License-Identifier: GPL-2.0-or-later
"""Searches as SQL find what they find without it, or are left to be evaluated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, MetaData, String, Table, create_engine, select

from cinderengine.api.search.evaluate import apply, page
from cinderengine.api.search.parser import parse
from cinderengine.api.search.selection import selection
from cinderengine.errors import Invalid

THINGS = Table(
    "things", MetaData(), Column("name", String), Column("size", BigInteger), Column("id", String)
)
ROWS = [
    (name, size, f"id{n}")
    for n, (name, size) in enumerate(
        [("cinder", 5), ("Cinder", 7), ("pool", 5), ("", 0), ("a b", -3), ("pool*", 9)]
    )
]
FIELDS = {
    "name": lambda row: row[0],
    "size": lambda row: row[1],
    "id": lambda row: row[2],
    "up": lambda row: True,
}
COLUMNS = {"name": THINGS.c.name, "size": THINGS.c.size, "id": THINGS.c.id}


@pytest.fixture(scope="module")
def conn():
    engine = create_engine("sqlite://")
    with engine.connect() as conn:
        THINGS.metadata.create_all(conn)
        for row in ROWS:
            conn.execute(THINGS.insert().values(row))
        yield conn
    engine.dispose()


def both(conn, text: str, most: int | None = None, exact_case: bool = True):
    """What is found by SQL, None if that does not say it, and without."""
    search = parse(text)
    found = apply(search, ROWS, FIELDS, exact_case=exact_case)
    wanted = list(page(found, search.page, most))
    chosen = selection(search, COLUMNS, most, exact_case=exact_case)
    if chosen is None:
        return None, wanted
    query = select(THINGS).order_by(THINGS.c.id)
    return [tuple(row) for row in conn.execute(chosen.of(query))], wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name=cinder",
        'name="a b"',
        "size>4",
        "size=5 and name=pool",
        "name=pool or size<1",
        "size!=5",
        "sortby size desc",
        "sortby id desc page 2",
        "page 2",
        "size>=5 sortby id",
        "(size=5 or size=7) and name=Cinder",
    ],
)
@pytest.mark.parametrize("most", [None, 0, 2])
def test_sql_says_the_same(conn, text, most) -> None:
    found, wanted = both(conn, text, most)
    assert found == wanted


@pytest.mark.parametrize(
    "text",
    ["name=c*", "name!=cinder", "up=true", "sortby up", "cinder", "name=a or up=true", "name>a"],
)
def test_what_sql_says_otherwise_is_left(conn, text) -> None:
    assert both(conn, text)[0] is None


def test_case_that_does_not_count_is_left(conn) -> None:
    assert both(conn, "name=cinder", exact_case=False)[0] is None


WORDS = st.sampled_from(
    [
        "name",
        "size",
        "id",
        "up",
        "=",
        "!=",
        "<",
        ">=",
        "5",
        "7",
        "pool",
        "*",
        "cinder",
        '"a b"',
        "and",
        "or",
        "(",
        ")",
        "sortby",
        "desc",
        "page",
        "1",
    ]
)


@given(st.lists(WORDS, max_size=10), st.none() | st.integers(0, 3))
def test_whatever_is_asked_for_sql_says_the_same_or_nothing(conn, words, most) -> None:
    text = " ".join(words)
    try:
        found, wanted = both(conn, text, most)
    except Invalid:
        return
    if found is not None and "sortby" not in words:
        assert found == wanted
    elif found is not None:
        assert sorted(found) == sorted(wanted) or most is not None
