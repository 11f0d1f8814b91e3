# SPDX-License-Identifier: GPL-2.0-or-later
"""oVirt's search language: how it is read, and what it says of objects."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderengine.api.search.evaluate import apply, page
from cinderengine.api.search.expression import All, Comparison, Operator, Search, Some
from cinderengine.api.search.parser import parse
from cinderengine.errors import Invalid


@dataclass(frozen=True)
class Thing:
    name: str
    size: int | None = None
    up: bool = True
    tags: tuple[str, ...] = ()


FIELDS = {
    "name": lambda thing: thing.name,
    "size": lambda thing: thing.size,
    "up": lambda thing: thing.up,
    "tag": lambda thing: thing.tags,
}
THINGS = [
    Thing("cinder", 5, tags=("a", "b")),
    Thing("Cinder two", 50, up=False),
    Thing("pool", None, tags=("b",)),
]


def names(text: str, **more) -> list[str]:
    return [thing.name for thing in apply(parse(text), THINGS, FIELDS, **more)]


def name_is(value: str) -> Comparison:
    return Comparison("name", Operator.EQUAL, value)


@pytest.mark.parametrize(
    "text, search",
    [
        ("", Search()),
        ("name=cinder", Search(name_is("cinder"))),
        ('name="cinder two"', Search(name_is("cinder two"))),
        ("Name = cinder", Search(name_is("cinder"))),
        ("Disks: name=x", Search(name_is("x"))),
        (
            "name=a and name=b or name=c",
            Search(Some((All((name_is("a"), name_is("b"))), name_is("c")))),
        ),
        (
            "name=a AND (name=b OR name=c)",
            Search(All((name_is("a"), Some((name_is("b"), name_is("c")))))),
        ),
        ("size>=5", Search(Comparison("size", Operator.AT_LEAST, "5"))),
        ("name!=a", Search(Comparison("name", Operator.UNEQUAL, "a"))),
        (
            "time>2015-05-31T15:28:25",
            Search(Comparison("time", Operator.MORE, "2015-05-31T15:28:25")),
        ),
        ("cinder", Search(Comparison("", Operator.EQUAL, "*cinder*"))),
        ("name=a sortby Size desc page 3", Search(name_is("a"), "size", True, 3)),
        ("sortby name asc", Search(sort_by="name")),
        ("page 2", Search(page=2)),
        ('name="and"', Search(name_is("and"))),
    ],
)
def test_searches_are_read(text: str, search: Search) -> None:
    assert parse(text) == search


@pytest.mark.parametrize(
    "text, words",
    [
        ("name=", "ends where a value is expected"),
        ("name=a b", "has 'b' where 'and', 'or', 'sortby' or 'page' is expected"),
        ("=a", "has '=' where a field or a value is expected"),
        ("name=(", "has '(' where a value is expected"),
        ("(name=a", "ends where ')' is expected"),
        ("(name=a name=b)", "has 'name' where ')' is expected"),
        ('name="a', "has a quotation mark that no other closes"),
        ("name=!", "has '!' where that cannot be"),
        ("page x", "has 'x' where the number of a page, from 1 is expected"),
        ("page 0", "has '0' where"),
        ("sortby", "ends where a field to sort by is expected"),
        ("sortby name desc asc", "has 'asc' where"),
        ("(" * 30 + "a" + ")" * 30, "20 deep"),
        ("a" * 5000, "more than 4000 characters"),
    ],
)
def test_what_cannot_be_read_is_told_where(text: str, words: str) -> None:
    with pytest.raises(Invalid) as e:
        parse(text)
    assert words in e.value.detail


@given(st.text(alphabet='ab"()=<>! *:\t', max_size=20) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text) -> None:
    try:
        search = parse(text)
        apply(search, THINGS, FIELDS)
    except Invalid as e:
        assert e.detail


@pytest.mark.parametrize(
    "text, found",
    [
        ("", ["cinder", "Cinder two", "pool"]),
        ("name=cinder", ["cinder"]),
        ("name=cin*", ["cinder"]),
        ("name=*o*", ["Cinder two", "pool"]),
        ("name=*", ["cinder", "Cinder two", "pool"]),
        ('name="Cinder two"', ["Cinder two"]),
        ("name!=cinder", ["Cinder two", "pool"]),
        ("size>5", ["Cinder two"]),
        ("size>=5", ["cinder", "Cinder two"]),
        ("size<50", ["cinder"]),
        ("size<=50", ["cinder", "Cinder two"]),
        ("size=50", ["Cinder two"]),
        ("up=false", ["Cinder two"]),
        ("up=True and tag=b", ["cinder", "pool"]),
        ("tag=a or up=no", ["cinder", "Cinder two"]),
        ("CINDER", ["cinder", "Cinder two"]),
        ("name>d", ["pool"]),
        ("sortby name desc", ["pool", "Cinder two", "cinder"]),
        ("sortby size", ["pool", "cinder", "Cinder two"]),
        ("size=", None),
    ],
)
def test_searches_find(text: str, found: list[str] | None) -> None:
    if found is None:
        with pytest.raises(Invalid):
            names(text)
    else:
        assert names(text) == found


def test_case_counts_unless_told_otherwise() -> None:
    assert names("name=CINDER") == []
    assert names("name=CINDER", exact_case=False) == ["cinder"]


def test_a_field_that_is_not_searched_by_is_told_with_those_that_are() -> None:
    with pytest.raises(Invalid) as e:
        names("colour=red")
    assert (
        e.value.detail
        == "There is no search by 'colour' here; there is one by name, size, tag, up."
    )
    with pytest.raises(Invalid):
        names("sortby colour")


def test_a_number_is_compared_with_a_number() -> None:
    with pytest.raises(Invalid) as e:
        names("size>much")
    assert e.value.detail == "The search compares size with 'much': give a whole number."


def test_a_search_of_many_wildcards_ends() -> None:
    things = [Thing("a" * 255)]
    text = f"name={'*a' * 200}*b"
    began = time.process_time()
    assert list(apply(parse(text), things, FIELDS)) == []
    assert time.process_time() - began < 5


def test_pages() -> None:
    rows = list(range(250))
    assert page(rows, None, None) == rows
    assert page(rows, None, 10) == rows[:10]
    assert page(rows, 2, 10) == rows[10:20]
    assert page(rows, 3, None) == rows[200:]
    assert page(rows, 9, None) == []
    assert page(rows, None, 0) == []
