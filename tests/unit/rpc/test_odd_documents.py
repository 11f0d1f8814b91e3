# SPDX-License-Identifier: GPL-2.0-or-later
"""Documents that hold what nobody expects there: each is told, or refused by field.

Whatever a VM's document says, the answers that tell of all VMs tell of the others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
from lxml import etree

from tests.unit.rpc.test_wire import SAMPLE, XML, vm
from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.rpc import envelope
from vdsmcinder.rpc.wire import common, iotune, stats
from vdsmcinder.virt.vm import event_log

DATA = Path(__file__).parents[1] / "data" / "domains"
DOCUMENTS = {
    "live": (DATA / "live.xml").read_text(),
    "wire": XML,
}
ODD = ("", " ", "x", "07", "08", "-1", "²", "9" * 5000)


def told(xml: str) -> None:
    """Make all that is told of a VM with this document. Raises VdsmCinderError if it is refused."""
    machine = vm(xml, sample=SAMPLE)
    event_log.described(machine.domain)
    list(event_log.devices_changed(machine.domain, machine.domain))
    for answer in (
        common.definition(machine),
        stats.vm_stats(machine),
        iotune.values(machine),
        iotune.policy(machine),
    ):
        envelope.encode(answer)


def variants(xml: str) -> Iterator[tuple[str, str]]:
    """Each document with one thing odd in it, and what that is."""
    root = parse(xml, "test")
    for element in list(root.iter()):
        for name, value in list(element.attrib.items()):
            for odd in ODD:
                element.set(name, odd)
                what = f"{element.tag!s} {name!s}={odd[:9]!r}"
                yield what, etree.tostring(root, encoding="unicode")
            del element.attrib[name]
            yield f"{element.tag!s} without {name!s}", etree.tostring(root, encoding="unicode")
            element.set(name, value)
        text = element.text
        for odd in ODD if text else ():
            element.text = odd
            yield f"{element.tag!s} is {odd[:9]!r}", etree.tostring(root, encoding="unicode")
        element.text = text
        parent = element.getparent()
        if parent is not None:
            double = copy.deepcopy(element)
            element.addnext(double)
            yield f"two {element.tag!s}", etree.tostring(root, encoding="unicode")
            parent.remove(double)
            place = parent.index(element)
            parent.remove(element)
            yield f"no {element.tag!s}", etree.tostring(root, encoding="unicode")
            parent.insert(place, element)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_whatever_stands_in_a_document_is_told_or_refused_by_field(name: str) -> None:
    spoilt = []
    for what, xml in variants(DOCUMENTS[name]):
        try:
            told(xml)
        except VdsmCinderError as e:
            assert e.message
        except Exception as e:
            spoilt.append(f"{what}: {type(e).__name__}: {e}")
    assert not spoilt, "\n".join(spoilt)
