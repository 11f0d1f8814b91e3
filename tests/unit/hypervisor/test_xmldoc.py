# SPDX-License-Identifier: GPL-2.0-or-later
"""Documents of clients: what takes a parser long is refused before; the rest is read in threads."""

from __future__ import annotations

import contextlib
import threading
import uuid
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

from tests.faults import pluggable
from tests.unit.transport.serving import until
from tests.unit.whole import running
from vdsmcinder.errors import InvalidParameter, RemoteError
from vdsmcinder.hypervisor import xmldoc
from vdsmcinder.hypervisor.long_xml import LONG
from vdsmcinder.hypervisor.xmldoc import MOST_ATTRIBUTES, MOST_CHARACTERS, MOST_NAMESPACES, parse


def attributes(count: int, value: str = "1", quote: str = "'") -> str:
    return " ".join(f"a{n}={quote}{value}{quote}" for n in range(count))


EXCESS = {
    "100,000 attributes": (f"<domain {attributes(100_000)}/>", "has 100000 attributes"),
    "on lines of their own": (
        "<a><b" + "".join(f"\n  a{n}\n =\n'1'" for n in range(MOST_ATTRIBUTES + 1)) + "/></a>",
        "has 257 attributes",
    ),
    "with values that look like the tag's end": (
        f"<a {attributes(300, '/>', chr(34))}/>",
        "has 300 attributes",
    ),
    "of another sort": (
        "<a " + " ".join(f"xmlns:n{n}='u'" for n in range(300)) + "/>",
        "has 300 attributes",
    ),
    "namespaces everywhere": (
        "<a>" + "<b xmlns='u'/>" * (MOST_NAMESPACES + 1) + "</a>",
        "declares 1025 namespaces",
    ),
    "too long": (f"<a>{' ' * MOST_CHARACTERS}</a>", "characters; expected at most"),
}


@pytest.mark.parametrize("name", EXCESS)
def test_what_takes_long_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    text, words = EXCESS[name]
    monkeypatch.setattr(etree, "fromstring", lambda *_: pytest.fail("it was parsed"))
    with pytest.raises(InvalidParameter, match=r"^the xml: .*expected at most") as e:
        parse(text, "the xml")
    assert words in e.value.message


@pytest.mark.parametrize(
    "text",
    [
        f"<a {attributes(MOST_ATTRIBUTES)}/>",
        f"<a {attributes(MOST_ATTRIBUTES, '=' * 10)}><b {attributes(200)}/></a>",
        f"<a b='1'>{'=' * 1000}</a>",
        f"<a><!-- {'=' * 1000} --><?p {'=' * 1000}?><b/></a>",
        f"<a><![CDATA[{attributes(1000)}]]></a>",
        f"<a b='{'=>' * 1000}'/>",
    ],
)
def test_what_does_not_is_parsed(text: str) -> None:
    assert parse(text, "the xml").tag == "a"


async def test_long_documents_are_read_in_threads_whoever_sends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm_id, another = str(uuid.uuid4()), str(uuid.uuid4())
    padding = f"<!--{'x' * LONG}-->"
    mac = "<mac address='52:54:00:00:00:01'/>"
    nic = {"xml": f"<hotplug><devices><interface>{mac}</interface>{padding}</devices></hotplug>"}
    disk = pluggable.DISK.format(image="i", target="vdx")
    plug = {"xml": f"<hotplug><devices>{disk}{padding}</devices></hotplug>"}
    document = pluggable.domain(another)["xml"].replace("</domain>", f"{padding}</domain>")
    offer = {"xml": document, "migrationId": str(uuid.uuid4()), "source": "host1:54321"}
    offer["handover"] = "confirmed"
    calls: dict[str, dict[str, Any]] = {
        "VM.hotplugDisk": {"vmID": vm_id, "params": plug},
        "VM.hotunplugDisk": {"vmID": vm_id, "params": plug},
        "VM.hotplugNic": {"vmID": vm_id, "params": nic},
        "VM.hotunplugNic": {"vmID": vm_id, "params": nic},
        "VM.updateDevice": {"vmID": vm_id, "params": {"deviceType": "interface", **nic}},
        "VM.create": {"vmID": another, "vmParams": {"xml": document}},
        "VM.migrationCreate": {"vmID": another, "params": offer},
    }
    on_loop, in_threads = [], 0
    look = xmldoc._refuse_excess

    def seen(text: str, what: str) -> None:
        nonlocal in_threads
        if len(text) >= LONG and threading.current_thread() is threading.main_thread():
            on_loop.append(what)
        in_threads += len(text) >= LONG
        look(text, what)

    plugs = pluggable.Plugs()
    plugs.install()
    try:
        async with running(tmp_path, **pluggable.host(tmp_path)) as whole:
            session = await whole.client()
            params = {"vmID": vm_id, "vmParams": pluggable.domain(vm_id)}
            await session.call("VM.create", params)
            vm = whole.daemon._registry.get(vm_id)
            await until(lambda: vm.running and not vm.starting, "the VM did not start")
            monkeypatch.setattr(xmldoc, "_refuse_excess", seen)
            for verb, params in calls.items():
                before = in_threads
                # What the test driver cannot do it says when the document was read.
                with contextlib.suppress(RemoteError):
                    await session.call(verb, params)
                assert in_threads > before, verb
            assert on_loop == []
            await session.close()
    finally:
        plugs.uninstall()


X = "xmlns:x='urn:x'"


@pytest.mark.parametrize(
    "text",
    [
        f"<disk {X} x:type='network'/>",
        f"<domain {X} x:type='kvm'><name/></domain>",
        f"<domain {X}><devices><disk type='file' x:type='network'/></devices></domain>",
        f"<domain {X}><devices><disk><source x:protocol='rbd'/></disk></devices></domain>",
        # No declaration is needed for this one.
        "<interface xml:type='vhostuser' type='bridge'/>",
    ],
)
def test_attributes_that_libvirt_takes_for_others_are_refused(text: str) -> None:
    with pytest.raises(
        InvalidParameter, match=r"has attribute \w+ with a prefix; write it without"
    ):
        parse(text, "the xml")


@pytest.mark.parametrize(
    "text",
    [
        f"<domain {X}><metadata><x:vm x:a='1'><b x:c='1'/></x:vm></metadata></domain>",
        f"<domain {X}><x:commandline x:a='1'/></domain>",
        f"<x:a {X} x:b='1'/>",
    ],
)
def test_what_is_somebodys_own_has_attributes_as_it_likes(text: str) -> None:
    parse(text, "the xml")


def test_libvirt_takes_an_attribute_of_a_namespace_for_its_own() -> None:
    """If it does so no more, there is nothing to refuse."""
    disk = (
        f"<disk {X} x:type='network' type='file'><source x:protocol='rbd' x:name='volumes/v'/>"
        "<target dev='vda'/></disk>"
    )
    connection = libvirt.open("test:///default")
    defined = connection.defineXML(
        f"<domain type='test'><name>a</name><memory>1024</memory><os><type>hvm</type></os>"
        f"<devices>{disk}</devices></domain>"
    )
    root = etree.fromstring(defined.XMLDesc())
    connection.close()
    assert root.find("devices/disk").get("type") == "network"
    assert dict(root.find("devices/disk/source").attrib) == {"protocol": "rbd", "name": "volumes/v"}
