# SPDX-License-Identifier: GPL-2.0-or-later
"""Documents made up from a RELAX NG schema of libvirt's, for tests of what reads them.

A schema says what may stand where, so that nobody has to think of it
(https://relaxng.org/spec-20011203.html). Values are made up by the names of their definitions.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from lxml import etree

SCHEMAS = Path("/usr/share/libvirt/schemas")
_NS = "{http://relaxng.org/ns/structure/1.0}"


class Grammar:
    """The definitions of a schema and of those that it includes.

    values: what definitions of values give, by name. favoured: definitions that a choice takes more
    often than not.
    """

    def __init__(
        self, file: Path, values: Mapping[str, Sequence[str]], favoured: Sequence[str] = ()
    ) -> None:
        self._defines: dict[str, list[etree._Element]] = {}
        self._values = values
        self._favoured = frozenset(favoured)
        self._load(file)

    def _load(self, file: Path) -> None:
        root = etree.parse(str(file)).getroot()
        for include in root.iter(f"{_NS}include"):
            self._load(file.with_name(str(include.get("href"))))
        for define in root.iter(f"{_NS}define"):
            self._defines.setdefault(str(define.get("name")), []).append(define)

    def element(self, name: str, chance: random.Random) -> etree._Element:
        """An element such as the definition of that name allows."""
        holder = etree.Element("holder")
        self._refer(name, holder, chance, 0)
        (made,) = holder
        return made

    def _refer(self, name: str, parent: etree._Element, chance: random.Random, depth: int) -> None:
        if name in self._values:
            parent.text = chance.choice(self._values[name])
            return
        # What one file leaves open another one fills.
        open_ = [d for d in self._defines[name] if d.find(f"{_NS}notAllowed") is None]
        self._all(chance.choice(open_ or self._defines[name]), parent, chance, depth)

    def _all(
        self, pattern: etree._Element, parent: etree._Element, chance: random.Random, depth: int
    ) -> None:
        parts = list(pattern.iterchildren("*"))
        if pattern.tag == f"{_NS}interleave":
            chance.shuffle(parts)
        for part in parts:
            self._one(part, parent, chance, depth)

    def _one(
        self, pattern: etree._Element, parent: etree._Element, chance: random.Random, depth: int
    ) -> None:
        kind = str(pattern.tag).removeprefix(_NS)
        if kind == "element":
            made = etree.SubElement(parent, str(pattern.get("name")))
            self._all(pattern, made, chance, depth + 1)
        elif kind == "attribute":
            value = etree.Element("value")
            self._all(pattern, value, chance, depth)
            parent.set(str(pattern.get("name")), value.text or chance.choice(self._values[""]))
        elif kind == "choice":
            self._one(self._chosen(pattern, chance, depth), parent, chance, depth)
        elif kind == "optional":
            if chance.random() < 0.4 and depth < 8:
                self._all(pattern, parent, chance, depth)
        elif kind in ("zeroOrMore", "oneOrMore"):
            for _ in range(chance.randint(kind == "oneOrMore", 2)):
                self._all(pattern, parent, chance, depth)
        elif kind in ("group", "interleave"):
            self._all(pattern, parent, chance, depth)
        elif kind == "ref":
            self._refer(str(pattern.get("name")), parent, chance, depth)
        elif kind == "value":
            parent.text = pattern.text
        elif kind in ("text", "data"):
            parent.text = chance.choice(self._values[pattern.get("type") or ""])
        else:
            assert kind in ("empty", "notAllowed"), kind

    def _chosen(self, pattern: etree._Element, chance: random.Random, depth: int) -> etree._Element:
        choices = [c for c in pattern.iterchildren("*") if depth < 6 or not _nests(c)]
        choices = choices or list(pattern.iterchildren("*"))
        liked = [c for c in choices if self._is_liked(c)]
        return chance.choice(liked if liked and chance.random() < 0.8 else choices)

    def _is_liked(self, pattern: etree._Element) -> bool:
        refs = (str(ref.get("name")) for ref in pattern.iter(f"{_NS}ref"))
        return not self._favoured.isdisjoint(refs)


def _nests(pattern: etree._Element) -> bool:
    return pattern.get("name") == "diskBackingStore"
