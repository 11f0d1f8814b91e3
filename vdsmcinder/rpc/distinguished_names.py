# SPDX-License-Identifier: GPL-2.0-or-later
"""Distinguished names as people write them and as certificates hold them, in one form to compare.

A name is the set of its attributes, each by its OID: neither their order nor their grouping counts,
and values are compared as RFC 5280, section 7.1, has it, without regard to case and extra blanks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

# The short names of RFC 4514, and those that openssl, libvirt's tools and others print.
OIDS: Mapping[str, str] = {
    **{"CN": "2.5.4.3", "COMMONNAME": "2.5.4.3"},
    **{"SN": "2.5.4.4", "SURNAME": "2.5.4.4", "SERIALNUMBER": "2.5.4.5"},
    **{"C": "2.5.4.6", "COUNTRYNAME": "2.5.4.6", "L": "2.5.4.7", "LOCALITYNAME": "2.5.4.7"},
    **{"ST": "2.5.4.8", "S": "2.5.4.8", "SP": "2.5.4.8", "STATEORPROVINCENAME": "2.5.4.8"},
    **{"STREET": "2.5.4.9", "STREETADDRESS": "2.5.4.9"},
    **{"O": "2.5.4.10", "ORGANIZATIONNAME": "2.5.4.10"},
    **{"OU": "2.5.4.11", "ORGANIZATIONALUNITNAME": "2.5.4.11"},
    **{"T": "2.5.4.12", "TITLE": "2.5.4.12", "DESCRIPTION": "2.5.4.13"},
    **{"BUSINESSCATEGORY": "2.5.4.15", "POSTALCODE": "2.5.4.17", "TELEPHONENUMBER": "2.5.4.20"},
    **{"NAME": "2.5.4.41", "GN": "2.5.4.42", "GIVENNAME": "2.5.4.42", "INITIALS": "2.5.4.43"},
    **{"GENERATIONQUALIFIER": "2.5.4.44", "X500UNIQUEIDENTIFIER": "2.5.4.45"},
    **{"DNQ": "2.5.4.46", "DNQUALIFIER": "2.5.4.46", "PSEUDONYM": "2.5.4.65"},
    **{"ROLE": "2.5.4.72", "ORGANIZATIONIDENTIFIER": "2.5.4.97"},
    **{"UID": "0.9.2342.19200300.100.1.1", "USERID": "0.9.2342.19200300.100.1.1"},
    **{"MAIL": "0.9.2342.19200300.100.1.3", "DC": "0.9.2342.19200300.100.1.25"},
    "DOMAINCOMPONENT": "0.9.2342.19200300.100.1.25",
    **dict.fromkeys(("E", "EMAIL", "EMAILADDRESS"), "1.2.840.113549.1.9.1"),
    **{"UNSTRUCTUREDNAME": "1.2.840.113549.1.9.2", "UNSTRUCTUREDADDRESS": "1.2.840.113549.1.9.8"},
    **dict.fromkeys(("JURISDICTIONL", "JURISDICTIONLOCALITYNAME"), "1.3.6.1.4.1.311.60.2.1.1"),
    **dict.fromkeys(
        ("JURISDICTIONST", "JURISDICTIONSTATEORPROVINCENAME"), "1.3.6.1.4.1.311.60.2.1.2"
    ),
    **dict.fromkeys(("JURISDICTIONC", "JURISDICTIONCOUNTRYNAME"), "1.3.6.1.4.1.311.60.2.1.3"),
}
_DOTTED = re.compile(r"(?:OID\.)?([0-2](?:\.(?:0|[1-9][0-9]*))+)", re.IGNORECASE)
# DER's tags of strings whose bytes are text, and how they are encoded.
_STRINGS: Mapping[int, str] = {
    **{0x0C: "utf-8", 0x12: "ascii", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii"},
    **{0x1A: "ascii", 0x1C: "utf-32-be", 0x1E: "utf-16-be"},
}
_ESCAPED = re.compile(r"\\([0-9A-Fa-f]{2}|.)", re.DOTALL)


def canonical(attributes: Iterable[tuple[str, str]]) -> str:
    """One text for all names that are the same. attributes: dotted OIDs and values."""
    return "+".join(sorted(f"{oid}={folded(value)!r}" for oid, value in attributes))


def parse(text: str) -> tuple[tuple[str, str], ...]:
    """The attributes of a name as somebody wrote it: dotted OIDs and values.

    RFC 4514's form ('CN=grafana,O=Example\\, Inc.'), with blanks around separators and quoted
    values too, and OpenSSL's ('/O=Example/CN=grafana', 'subject=O = Example, CN = grafana'). Raises
    ValueError, whose words say what is wrong.
    """
    text = re.sub(r"\A\s*subject\s*=\s*(?=[/\w].*=)", "", text).lstrip()
    parts = _of_slashes(text) if text.startswith("/") else _parts(text)
    attributes = tuple(_attribute(part) for part in parts)
    if not attributes:
        raise ValueError("it is empty")
    return attributes


def _of_slashes(text: str) -> Iterator[str]:
    # OpenSSL's old form escapes nothing: a slash is a separator where an attribute follows.
    return iter(re.split(r"/(?=[A-Za-z0-9.]+=)", text)[1:])


def _parts(text: str) -> Iterator[str]:
    """What stands between separators, which are those that are neither escaped nor quoted."""
    begin, at, quoted = 0, 0, False
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == '"':
            quoted = not quoted
        elif text[at] in ",;+" and not quoted:
            yield text[begin:at]
            begin = at + 1
        at += 1
    if quoted:
        raise ValueError("a quotation mark is missing")
    yield text[begin:]


def _attribute(part: str) -> tuple[str, str]:
    keyword, equals, value = part.partition("=")
    keyword, value = keyword.strip(), _trimmed(value)
    if not equals or not keyword:
        raise ValueError(f"{part.strip()!r} is not of the form attribute=value")
    dotted = _DOTTED.fullmatch(keyword)
    oid = dotted[1] if dotted else OIDS.get(keyword.upper())
    if oid is None:
        raise ValueError(f"{keyword!r} is no attribute that is known; write its OID, as in 2.5.4.3")
    if not value:
        raise ValueError(f"{keyword} has no value")
    return oid, _value(value)


def _trimmed(value: str) -> str:
    """Without blanks around it, but for one at its end that is escaped."""
    bare = value.strip()
    backslashes = len(bare) - len(bare.rstrip("\\"))
    return f"{bare} " if backslashes % 2 and value.endswith(" ") else bare


def _value(written: str) -> str:
    if re.fullmatch("#([0-9A-Fa-f]{2})+", written):
        return _of_der(bytes.fromhex(written[1:]))
    if len(written) > 1 and written[0] == written[-1] == '"':
        written = written[1:-1]
    encoded = bytearray()
    end = 0
    for match in _ESCAPED.finditer(written):
        encoded += written[end : match.start()].encode()
        pair = match[1]
        encoded += bytes.fromhex(pair) if len(pair) == 2 else pair.encode()
        end = match.end()
    encoded += written[end:].encode()
    return encoded.decode()


def _of_der(der: bytes) -> str:
    """The text of a string in DER, or what stands for whatever else it is."""
    encoding = _STRINGS.get(der[0])
    if encoding is None or len(der) < 2 or der[1] != len(der) - 2:
        return f"#{der.hex()}"
    return der[2:].decode(encoding)


def folded(value: str) -> str:
    """A value as it is compared."""
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())
