# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and writing XML documents, safely: what comes in may have been written by anyone.

No document type, no entities, no network, and nothing that takes a parser longer than its length
suggests. InvalidParameter says what a document was to be and what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import cast

from lxml import etree

from vdsmcinder.errors import InvalidParameter, UnsupportedDrive
from vdsmcinder.fields import is_xml_text, kind_of

_FAULTS: Mapping[int, str] = {
    etree.ErrorTypes.ERR_ATTRIBUTE_REDEFINED: "an attribute comes twice",
    etree.ErrorTypes.ERR_ATTRIBUTE_WITHOUT_VALUE: "an attribute has no value",
    etree.ErrorTypes.ERR_DOCUMENT_EMPTY: "it does not begin with an element",
    etree.ErrorTypes.ERR_DOCUMENT_END: "something follows its last element",
    etree.ErrorTypes.ERR_LT_IN_ATTRIBUTE: "an attribute's value holds '<'",
    etree.ErrorTypes.ERR_TAG_NAME_MISMATCH: "an end tag is not that of its element",
    etree.ErrorTypes.ERR_TAG_NOT_FINISHED: "an element has no end tag",
    etree.ErrorTypes.ERR_UNDECLARED_ENTITY: "an entity is not defined",
    etree.ErrorTypes.NS_ERR_UNDEFINED_NAMESPACE: "a prefix stands for no namespace",
}

# libvirt's own documents have a fraction of that. libxml2 compares each attribute of an element
# with each other one, and looks for a prefix among all namespaces.
MOST_CHARACTERS = 8 * 1024 * 1024
MOST_ATTRIBUTES = 256
MOST_NAMESPACES = 1024
# Elements of a namespace are somebody's own, as is all that stands in <metadata>.
_FOREIGN_ATTRIBUTES = etree.XPath(
    "//*[not(namespace-uri()) and @*[namespace-uri()] and not(ancestor::metadata)]"
)
_QUOTED = re.compile("\"[^\"]*\"|'[^']*'")


def parse(text: str, what: str) -> etree._Element:
    """Parse a document and return its root element, without comments and processing instructions.

    what: names the document in errors. Raises InvalidParameter for text that is not XML and for
    any document with a DTD: entities could read this host's files or grow without bound, and
    libvirt would expand those that we pass on. So it does for one that would take long to parse,
    and for attributes that libvirt takes for others.
    """
    _refuse_excess(text, what)
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
        root = etree.fromstring(text.encode("utf-8"), parser)
        _refuse_foreign_attributes(root, what)
        return root
    except UnicodeEncodeError:
        reason = "it holds characters that are not Unicode text"
    except etree.XMLSyntaxError as e:
        reason = _why(e) if text.strip() else "it is empty"
    raise InvalidParameter(f"{what}: not well-formed XML: {reason}; correct it", field="xml")


def _refuse_foreign_attributes(root: etree._Element, what: str) -> None:
    """Raise InvalidParameter for an attribute of a namespace on an element of none.

    libvirt takes x:type for type (xmlGetProp() heeds no namespace), and we would read another
    document than it does.
    """
    for element in cast("list[etree._Element]", _FOREIGN_ATTRIBUTES(root)):
        names = (etree.QName(name) for name in element.attrib)
        foreign = next(name.localname for name in names if name.namespace)
        raise InvalidParameter(
            f"{what}: <{element.tag!s}> has attribute {foreign} with a prefix; write it without",
            field="xml",
        )


def _refuse_excess(text: str, what: str) -> None:
    """Raise InvalidParameter for a document of more than a parser should be given."""
    if len(text) > MOST_CHARACTERS:
        excess = f"it has {len(text)} characters; expected at most {MOST_CHARACTERS}"
    elif (namespaces := text.count("xmlns")) > MOST_NAMESPACES:
        excess = f"it declares {namespaces} namespaces; expected at most {MOST_NAMESPACES}"
    elif (attributes := _most_attributes(text)) > MOST_ATTRIBUTES:
        excess = f"an element has {attributes} attributes; expected at most {MOST_ATTRIBUTES}"
    else:
        return
    raise InvalidParameter(f"{what}: {excess}", field="xml")


def _most_attributes(text: str) -> int:
    """How many attributes an element has at most, if they are many; 0 if none has many.

    In well-formed XML each of these signs begins a tag or the like (XML 1.0, section 2.4).
    """
    suspects = (part for part in text.split("<") if part.count("=") > MOST_ATTRIBUTES)
    tags = (_QUOTED.sub("", part).partition(">")[0] for part in suspects if part[:1] not in "!?/")
    return max((tag.count("=") for tag in tags), default=0)


def _why(error: etree.XMLSyntaxError) -> str:
    """What is wrong with a document and where; libxml2's own words quote from it."""
    line, column = error.position
    code: int = error.code  # type: ignore[attr-defined]
    deep = "Excessive depth" in (error.msg or "")
    what = "elements are nested too deep" if deep else _FAULTS.get(code, "it cannot be read")
    return f"{what} at line {line}, column {column}"


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
                f"{thing}: {kind_of(text)} is blank or holds control characters; expected plain "
                "text"
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
