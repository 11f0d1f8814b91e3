# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and writing XML documents, safely: what comes in may have been written by anyone.

No document type, no entities, no network. InvalidParameter says what a document was to be and what
is wrong with it.
"""

from __future__ import annotations

from collections.abc import Container

from lxml import etree

from vdsmcinder.errors import InvalidParameter, UnsupportedDrive
from vdsmcinder.fields import is_xml_text


def parse(text: str, what: str) -> etree._Element:
    """Parse a document and return its root element, without comments and processing instructions.

    what: names the document in errors. Raises InvalidParameter for text that is not XML and for
    any document with a DTD: entities could read this host's files or grow without bound, and
    libvirt would expand those that we pass on.
    """
    if "<!DOCTYPE" in text:
        raise InvalidParameter(
            f"{what}: it holds a document type declaration, which is not allowed; "
            "send the document without it",
            field="xml",
        )
    # The text is Unicode already: whatever encoding it declares is overridden.
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        remove_blank_text=True,
    )
    try:
        return etree.fromstring(text.encode("utf-8"), parser)
    except UnicodeEncodeError:
        reason = "it holds characters that are not Unicode text"
    except etree.XMLSyntaxError as e:
        reason = e.msg or "it is empty"
    raise InvalidParameter(f"{what}: not well-formed XML: {reason}; correct it", field="xml")


def only(text: str, tag: str, what: str) -> etree._Element:
    """The one element of that tag in a document, its root included.

    Raises InvalidParameter for text that is not XML, and for none or several; what: as in parse.
    """
    root = parse(text, what)
    found = list(root.iter(tag))
    if len(found) != 1:
        raise InvalidParameter(
            f"{what}: <{root.tag!s}> holds {len(found)} {tag}s; expected exactly one", field="xml"
        )
    return found[0]


def to_text(element: etree._Element) -> str:
    """An element as an indented document."""
    etree.indent(element)
    return etree.tostring(element, encoding="unicode")


def child_attribute(element: etree._Element, child: str, name: str) -> str | None:
    """An attribute of an element's child; None without the child or the attribute, or if empty."""
    found = element.find(child)
    return None if found is None else found.get(name) or None


def check_text(thing: str, *texts: str | None) -> None:
    """Raise InvalidParameter for text that would not come through XML unchanged.

    Control characters cannot be written, blank text would not be read back; None is no text.
    """
    for text in texts:
        if text is not None and not (text.strip() and is_xml_text(text)):
            raise InvalidParameter(
                f"{thing}: {text!r} is blank or holds control characters; expected plain text"
            )


def need_attribute(element: etree._Element, name: str, thing: str) -> str:
    """An attribute that must be there. Raises UnsupportedDrive; thing names the disk."""
    value = element.get(name)
    if not value:
        raise UnsupportedDrive(
            f"{thing}: <{element.tag}> has no {name} attribute, without which it cannot be used; "
            "give it one",
            field=f"{element.tag}.{name}",
        )
    return value


def refuse_attributes(element: etree._Element, known: Container[str], thing: str) -> None:
    """Raise UnsupportedDrive for an attribute that would be lost in reading."""
    for name in element.attrib:
        if name not in known:
            raise _unknown(thing, element, f"attribute {name!s}")


def refuse_children(element: etree._Element, known: Container[str], thing: str) -> None:
    """Raise UnsupportedDrive for a child that would be lost in reading."""
    for child in element:
        if child.tag not in known:
            raise _unknown(thing, element, f"child {child.tag!s}")


def refuse_repeated(element: etree._Element, thing: str, but: Container[str] = ()) -> None:
    """Raise InvalidParameter for a second child of one tag, of which only the first would be read.

    but: tags of which there may be several.
    """
    seen: set[object] = set()
    for child in element:
        if child.tag in seen and child.tag not in but:
            raise InvalidParameter(
                f"{thing}: <{element.tag!s}> has {child.tag!s} twice; expected it once",
                field=f"{element.tag!s}.{child.tag!s}",
            )
        seen.add(child.tag)


def _unknown(thing: str, element: etree._Element, what: str) -> UnsupportedDrive:
    return UnsupportedDrive(
        f"{thing}: <{element.tag!s}> has {what}, which is not supported; leave it out",
        field=str(element.tag),
    )
