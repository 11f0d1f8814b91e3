# SPDX-License-Identifier: GPL-2.0-or-later
"""The API's XML of versions 3 and 4, read and written by the table of types.

Entities are not resolved, nothing is fetched, a document type is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lxml import etree

from cinderengine.api.types.document import SURROUNDINGS, Document, Reading, made
from cinderengine.api.types.entity import Entity, Link, Many, Value
from cinderengine.api.types.registry import TYPES
from cinderengine.api.types.schema import Field, Kind, Type, Version
from cinderengine.api.types.values import LONGEST, printable, read, refused, too_long, written
from cinderengine.errors import Invalid


def reads(body: bytes, declared: Type, version: Version) -> Document:
    """The object of that type in a document. Raises Invalid that says what is wrong with it."""
    # One for each document: a parser holds what it has seen.
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError) as e:
        raise Invalid(
            f"The body is not XML ({printable(str(e))}); send a <{declared.name}>."
        ) from e
    if root is None:
        raise Invalid(f"The body is empty; send a <{declared.name}>.")
    if root.getroottree().docinfo.internalDTD is not None:
        raise Invalid(f"The body has a document type; send a <{declared.name}> alone.")
    name = _local(root)
    if name not in {declared.name, declared.root}:
        raise Invalid(f"The body is a <{printable(name[:60])}>; send a <{declared.name}>.")
    reader = _Reader(version)
    return Document(reader.object(root, declared, (declared.name,)), reader.reading.ignored)


def writes(content: Entity | Many, version: Version, base: str) -> bytes:
    """A document. base: the prefix of the API's root that hrefs are given."""
    writer = _Writer(version, base)
    if isinstance(content, Many):
        top = etree.Element(content.type.top_of_many(version))
        if content.href:
            top.set("href", base + content.href)
        name = content.type.top(version)
        for item in content.items:
            top.append(writer.element(name, item))
    else:
        top = writer.element(content.type.top(version), content)
    return etree.tostring(top, xml_declaration=True, encoding="UTF-8", standalone=True)


def _local(element: etree._Element) -> str:
    return str(etree.QName(element).localname)


def _elements(parent: etree._Element) -> Iterator[etree._Element]:
    # What is no element is an entity that was not resolved.
    return (child for child in parent if isinstance(child.tag, str))


class _Reader:
    def __init__(self, version: Version) -> None:
        self._version = version
        self.reading = Reading()

    def object(self, element: etree._Element, declared: Type, path: Sequence[str]) -> Entity:
        self.reading.enter(path)
        values: dict[str, Value] = {}
        for name, given in element.attrib.items():
            field = declared.field(str(name), self._version)
            if field is not None and field.attribute:
                values[field.name] = read(declared, field, str(given))
        for child in _elements(element):
            name = _local(child)
            found = declared.field(name, self._version)
            if found is not None:
                values[found.name] = self._value(child, declared, found, (*path, name))
            elif name not in SURROUNDINGS:
                self.reading.ignore(path, name)
        # A processor's id in version 3 is its type.
        id = "" if declared.field("id", self._version) else element.get("id", "")
        return made(declared, values, id, element.get("href", ""))

    def _value(
        self, element: etree._Element, owner: Type, field: Field, path: Sequence[str]
    ) -> Value:
        children = list(_elements(element))
        if field.kind is Kind.ONE:
            return self.object(element, TYPES[field.of], path)
        if field.kind is Kind.MANY:
            if len(children) > LONGEST:
                raise too_long(owner, field)
            return tuple(self.object(child, TYPES[field.of], path) for child in children)
        if field.state and children and _local(children[0]) == "state":
            element, children = children[0], list(_elements(children[0]))
        if children:
            raise refused(owner, field, f"<{_local(children[0])}>")
        return read(owner, field, str(element.text or ""))


class _Writer:
    def __init__(self, version: Version, base: str) -> None:
        self._version = version
        self._base = base

    def element(self, name: str, content: Entity) -> etree._Element:
        element = etree.Element(name)
        if content.href:
            element.set("href", self._base + content.href)
        if content.id:
            element.set("id", printable(content.id))
        if content.actions:
            actions = etree.SubElement(element, "actions")
            for action in content.actions:
                self._link(actions, action)
        for field in content.type.fields:
            value = content.values.get(field.name)
            if value is not None and not field.secret:
                self._field(element, field, value)
        for link in content.links:
            self._link(element, link)
        return element

    def _link(self, parent: etree._Element, link: Link) -> None:
        etree.SubElement(parent, "link", href=self._base + link.href, rel=link.rel)

    def _field(self, parent: etree._Element, field: Field, value: Value) -> None:
        name = field.named(self._version)
        if isinstance(value, Entity):
            parent.append(self.element(name, value))
        elif isinstance(value, tuple):
            inner = etree.SubElement(parent, name)
            inner.extend([self.element(field.of, item) for item in value])
        elif field.attribute and self._version is Version.V3:
            parent.set(name, written(field, value))
        else:
            self._plain(parent, name, field, value)
            if field.echo and self._version is Version.V3:
                self._plain(parent, field.echo, field, value)

    def _plain(self, parent: etree._Element, name: str, field: Field, value: Value) -> None:
        element = etree.SubElement(parent, name)
        if field.state and self._version is Version.V3:
            element = etree.SubElement(element, "state")
        element.text = written(field, value)
