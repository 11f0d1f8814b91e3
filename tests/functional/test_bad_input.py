# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that cannot be served: each gets its code and one sentence, and changes nothing.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_bad_input.py`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
from typing import Any

import pytest
import pytest_asyncio

from lab.engine import Engine, client_context, new_id
from lab.guest.domains import disk_xml
from tests.functional.bystander import untouched
from tests.functional.helpers import (
    CONTRACT,
    MAX_FRAME_BYTES,
    absent_disk,
    booted,
    paths,
    refused,
    session_fixture,
    stray,
)
from vdsmcinder.stomp.client import SessionLost

pytestmark = pytest.mark.asyncio(loop_scope="session")

NOBODY = "6a1c52a8-3e0d-4b6e-9a4f-0d6f3c1b2a47"
LIMIT = MAX_FRAME_BYTES
UNSERVED = [verb.name for verb in CONTRACT.verbs.values() if not verb.served]


@session_fixture("module")
async def vm(engine):
    """A VM whose guest is ready; no test here changes it."""
    async with booted(engine) as machine:
        yield machine


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def nothing_changes(engine, vm):
    async with untouched(engine, vm):
        yield


async def answer(engine, body):
    """The reply to a body that belongs to no call."""
    engine.session.send_body(body)
    return await stray(engine)


def assert_sentence(message):
    """A cause and a remedy on one line."""
    assert "\n" not in message
    assert ";" in message


# Bodies and requests


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", -32700, "body of 0 bytes is not JSON"),
        (b"{", -32700, "line 1, column 2"),
        (b'{"jsonrpc": "2.0", "method": "Host.ping2", "id": "x"', -32700, "is not JSON"),
        (b"\xff\xfe{}", -32700, "byte 0 is not UTF-8"),
        (b'{"jsonrpc": "2.0", "method": "Host.ping2", "id": NaN}', -32700, "NaN is not a number"),
        (b"[" * 100_000, -32700, "nested too deeply"),
        (b"9" * 100_000, -32700, "a number in it is too long"),
        (b"7", -32600, "it is not an object"),
        (b"[]", -32600, "The batch is empty"),
        (b'{"method": "Host.ping2", "id": "x"}', -32600, 'jsonrpc is not "2.0"'),
        (b'{"jsonrpc": "2.0", "id": "x"}', -32600, "method is missing"),
        (b'{"jsonrpc": "2.0", "method": "Host.ping2", "params": 1}', -32600, "params is neither"),
        (b'{"jsonrpc": "2.0", "method": "Host.ping2", "id": {}}', -32600, "member id"),
    ],
)
async def test_what_is_no_request_is_refused(engine, body, code, words):
    error = (await answer(engine, body))["error"]
    assert error["code"] == code
    assert words in error["message"]
    assert "send a JSON-RPC 2.0 request" in error["message"] or "send at least" in error["message"]
    assert_sentence(error["message"])


async def test_one_bad_request_of_a_batch_does_not_spoil_the_others(engine):
    good = {"jsonrpc": "2.0", "method": "Host.echo", "params": ["x"], "id": "good"}
    unknown = {"jsonrpc": "2.0", "method": "Host.eco", "id": "unknown"}
    replies = await answer(engine, json.dumps([good, 7, unknown]).encode())
    by_id = {reply["id"]: reply for reply in replies}
    assert by_id["good"]["result"] == "x"
    assert by_id[None]["error"]["code"] == -32600
    assert by_id["unknown"]["error"]["code"] == -32601


@pytest.mark.parametrize(
    ("verb", "code", "words"),
    [
        ("VM.creat", -32601, "did you mean VM.create?"),
        ("", -32601, "docs/api.md lists those that there are"),
        ("x" * 100_000, -32601, "There is no verb 'xxx"),
        *((name, 44, f"{name} is not implemented in this version") for name in UNSERVED),
    ],
)
async def test_a_verb_that_is_not_served_is_refused(engine, verb, code, words):
    with refused(code, words):
        await engine.call(verb)


@pytest.mark.parametrize(
    ("verb", "params", "words"),
    [
        ("VM.getStats", {}, "VM.getStats: parameter vmID is missing; send it as UUID"),
        ("VM.create", {"vmID": NOBODY}, "parameter vmParams is missing"),
        ("VM.getStats", {"vmID": 7}, "vmID is a number; expected a UUID of 36 characters"),
        ("VM.getStats", {"vmID": "web"}, "vmID is a string of 3 characters"),
        ("VM.getStats", {"vmID": None}, "vmID is null; expected a UUID"),
        ("VM.create", {"vmID": NOBODY, "vmParams": "x"}, "vmParams is a string of 1 character;"),
        ("VM.shutdown", {"vmID": NOBODY, "delay": "soon", "message": ""}, "delay is a string"),
        (
            "Host.getVMList",
            {"vmList": "all"},
            "vmList is a string of 3 characters; expected a list",
        ),
        ("Host.getVMList", {"vmList": [7]}, "vmList[0] is a number"),
        ("Host.getVMList", {"fullStatus": "maybe"}, "fullStatus is a string of 5 characters"),
        ("Host.setLogLevel", {"level": "LOUD"}, "expected one of: DEBUG, INFO, WARNING, ERROR"),
        ("VM.hotplugDisk", {"vmID": NOBODY, "params": []}, "params is a list of 0"),
    ],
)
async def test_missing_and_wrong_typed_parameters_are_refused(engine, verb, params, words):
    with refused(-32602, words, ";"):
        await engine.call(verb, **params)


async def test_extra_parameters_are_passed_over_with_a_warning(engine, daemon):
    logged = daemon.log.stat().st_size
    assert await engine.call("Host.ping2", sinceVersion="4.9") is True
    assert await engine.session.call("Host.echo", ["x", "y", "z"]) == "x"
    lines = daemon.log.read_bytes()[logged:].decode()
    assert "WARNING vdsmcinder.rpc.method: Host.ping2: 1 unknown parameters ignored" in lines
    assert "'sinceVersion'" in lines
    assert "4.9" not in lines


async def test_every_verb_about_a_vm_names_the_one_that_it_does_not_find(engine):
    more: dict[str, dict[str, Any]] = {
        "VM.shutdown": {"delay": 0, "message": ""},
        "VM.hotplugDisk": {"params": {"drive": engine.disk("x")}},
        "VM.hotunplugDisk": {"params": {"drive": engine.disk("x")}},
    }
    verbs = ("destroy", "reset", "pause", "cont", "getStats", "getInfo")
    for verb in (*(f"VM.{name}" for name in verbs), *more):
        with refused(1, f"there is no VM {NOBODY} on this host", "Host.getVMList lists"):
            await engine.call(verb, vmID=NOBODY, **more.get(verb, {}))


# Frames and bodies that are too large


async def test_a_frame_over_the_limit_ends_its_connection_alone(engine, lab, daemon):
    async with Engine(lab, daemon) as other:
        other.session.send_body(b" " * (LIMIT + 1))
        with pytest.raises(SessionLost, match=f"expected at most {LIMIT} bytes"):
            await other.call("Host.ping2")
        other.session.abort()
        await other.connect()
        assert await other.call("Host.ping2") is True


async def test_a_large_frame_within_the_limit_is_served(engine):
    message = "x" * (LIMIT - 1000)
    assert await engine.call("Host.echo", message=message) == message


def over_tls(lab, daemon):
    context = client_context(lab.pki, lab.pki.engine)
    return http.client.HTTPSConnection(
        daemon.host.address, daemon.port, timeout=30, context=context
    )


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused(lab, daemon, chunked):
    body = b" " * (LIMIT + 1)
    connection = over_tls(lab, daemon)
    # The daemon may answer before all of it was sent.
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        connection.request("POST", "/", iter([body]) if chunked else body)
    answered = connection.getresponse()
    assert answered.status == 413
    error = json.loads(answered.read())["error"]
    assert f"larger than {LIMIT} bytes (option listen.max_frame_bytes); send less" in error
    connection.close()


# VMs


def deep(depth):
    return "<a>" * depth + "</a>" * depth


ENTITIES = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
BOMB = f'<!DOCTYPE domain [<!ENTITY a0 "lol">{ENTITIES}]><domain><name>&a9;</name></domain>'
FILE = '<!DOCTYPE d [<!ENTITY f SYSTEM "file:///etc/shadow">]><domain><name>&f;</name></domain>'


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("hello", "not well-formed XML"),
        ("<domain><name>x</domain>", "not well-formed XML"),
        (BOMB, "a document type declaration, which is not allowed; send the document without it"),
        (FILE, "a document type declaration, which is not allowed; send the document without it"),
        ("<domain><name>&f;</name></domain>", "an entity is not defined"),
        (deep(5000), "nested too deep"),
        ("<network/>", "root of xml is <network>; expected <domain>"),
        ("<domain><name>x</name><uuid>7</uuid></domain>", "uuid is a string of 1 character"),
        ("<domain><devices/><vcpu>many</vcpu></domain>", "vcpu is a string of 4 characters"),
    ],
)
async def test_a_document_that_is_no_domain_is_refused(engine, xml, words):
    with refused(91, words):
        await engine.create({"vmId": new_id(), "xml": xml})


async def test_a_document_of_another_vm_is_refused(engine):
    theirs, ours = new_id(), new_id()
    document = engine.document(theirs)["xml"]
    with refused(91, f"VM {ours}: uuid is", f"; expected the request's vmID, {ours}"):
        await engine.create({"vmId": ours, "xml": document})
    with refused(91, f"VM {ours}: vmId is", f"; expected the request's vmID, {ours}"):
        await engine.call("VM.create", vmID=ours, vmParams={"vmId": theirs, "xml": document})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("machine='q35'", "machine='pc-q35-99'", "does not support machine type 'pc-q35-99'"),
        ("arch='x86_64'", "arch='s390x'", "No emulator found for arch 's390x'"),
        ("<acpi/>", "<nonsense/>", "unexpected feature 'nonsense'"),
    ],
)
async def test_what_libvirt_refuses_is_told_in_its_words(engine, old, new, words):
    vm_id = new_id()
    params = engine.document(vm_id)
    with refused(9, f"VM {vm_id} could not be defined: libvirt says: ", words, "; correct its"):
        await engine.create({**params, "xml": params["xml"].replace(old, new)})


async def test_a_document_larger_than_libvirt_takes_is_refused(engine):
    params = engine.document(new_id())
    large = f"<description>{'x' * (LIMIT - 100_000)}</description></domain>"
    with refused(9, params["vmId"], "larger than the 4 MiB that libvirt takes", "; make the"):
        await engine.create({**params, "xml": params["xml"].replace("</domain>", large)})


async def test_the_name_of_another_vm_is_refused(engine, vm):
    vm_id = new_id()
    with refused(9, f"VM {vm_id} could not be defined", vm.name, "give it a name of its own"):
        await engine.create(engine.document(vm_id, name=vm.name))


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"memSize": None}, 11, "memSize is missing; expected a whole number"),
        ({"memSize": "much"}, 91, "memSize is a string of 4 characters; expected a whole number"),
        ({"memSize": 0}, 91, "memSize is a number; expected a whole number from 1"),
        ({"smp": -1}, 91, "smp is a number"),
        ({"vmName": "a/b"}, 91, "vmName is a string of 3 characters"),
        ({"devices": "none"}, 91, "devices"),
        ({"devices": [7]}, 91, "devices[0]"),
    ],
)
async def test_a_description_that_does_not_fit_is_refused(engine, changes, code, words):
    vm_id = new_id()
    described = {**engine.flat(vm_id), **changes}
    with refused(code, vm_id, words):
        await engine.create({k: v for k, v in described.items() if v is not None})


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (
            {"hosts": None},
            11,
            "hosts is missing; expected the address of at least one Ceph monitor",
        ),
        ({"hosts": []}, 11, "hosts"),
        ({"hosts": [{"name": "10.0.0.300"}]}, 91, "hosts[0].name is a string of 10 characters"),
        ({"hosts": [{"name": "a", "port": "0"}]}, 91, "hosts[0].port is a string of 1 character"),
        ({"protocol": None}, 11, "protocol is missing"),
        ({"path": None}, 11, "path is missing"),
        ({"device": "cdrom"}, 36, "cdrom"),
        ({"device": "floppy"}, 36, "floppy"),
        ({"format": "vmdk"}, 91, "format is a string of 4 characters"),
    ],
)
async def test_a_disk_that_cannot_be_is_refused_when_created_and_when_plugged(
    engine, vm, changes, code, words
):
    disk = engine.disk("volume-x", **changes)
    with refused(code, words):
        await engine.create(engine.flat(new_id(), disk))
    with refused(code, words):
        await engine.call("VM.hotplugDisk", vmID=vm.id, params={"vmId": vm.id, "drive": disk})


async def test_a_second_create_is_refused(engine, vm):
    for vm_id in (vm.id, vm.id.upper()):
        with refused(4, f"VM {vm.id} exists already and is Up; destroy it first"):
            await engine.create(engine.document(vm_id))


async def test_a_vm_that_is_down_must_be_destroyed_before_it_is_created_anew(engine, image):
    params = engine.flat(new_id(), absent_disk())
    await engine.create(params)
    await engine.wait_status(params["vmId"], "Down")
    with refused(4, "exists already and is Down; destroy it first"):
        await engine.create(params)
    with refused(6, f"VM {params['vmId']} is Down and cannot be given a disk", "; destroy it"):
        await plug(engine, params["vmId"], engine.disk("x"))
    await engine.destroy(params["vmId"])
    await engine.run({**params, "devices": [engine.disk(image())]})
    await engine.destroy(params["vmId"])


# Hot-plug


async def plug(engine, vm_id, disk):
    await engine.call("VM.hotplugDisk", vmID=vm_id, params={"vmId": vm_id, "drive": disk})


async def unplug(engine, vm_id, disk):
    await engine.call("VM.hotunplugDisk", vmID=vm_id, params={"vmId": vm_id, "drive": disk})


async def test_a_disk_that_is_plugged_is_not_plugged_again(engine, vm):
    with refused(45, f"volumes/{vm.image} is plugged into VM {vm.id} already, as vda; nothing was"):
        await plug(engine, vm.id, engine.disk(vm.image))
    xml = disk_xml(engine.lab.ceph, vm.image, "vdf", engine.secret_id)
    with refused(45, "is plugged into", "as vda; nothing was changed"):
        await engine.call("VM.hotplugDisk", vmID=vm.id, params={"vmId": vm.id, "xml": xml})


async def test_a_disk_that_is_not_plugged_is_not_unplugged(engine, vm):
    listed = f"VM {vm.id}, whose disks are: vda (volumes/{vm.image}); name one of them"
    with refused(46, f"disk volumes/volume-x is not plugged into {listed}"):
        await unplug(engine, vm.id, engine.disk("volume-x"))
    with refused(46, "disk ua-nothing is not plugged into", listed):
        await unplug(engine, vm.id, {"alias": "ua-nothing"})
    with refused(11, "drive is missing; expected an alias, a deviceId, a path, a serial"):
        await unplug(engine, vm.id, {})
    assert await paths(engine, vm.id) == {"vda": f"volumes/{vm.image}"}


@pytest.mark.parametrize(
    ("xml", "code", "words"),
    [
        ("<hotplug>", 91, "hot-plug xml: not well-formed XML"),
        ("<hotplug><devices/></hotplug>", 91, "holds 0 disks; expected exactly one"),
        ("<hotplug><disk/><disk/></hotplug>", 91, "holds 2 disks; expected exactly one"),
        ("<hotplug><disk type='volume'/></hotplug>", 36, "type"),
        (FILE, 91, "document type declaration"),
    ],
)
async def test_xml_that_holds_no_disk_is_refused(engine, vm, xml, code, words):
    with refused(code, words):
        await engine.call("VM.hotplugDisk", vmID=vm.id, params={"vmId": vm.id, "xml": xml})


async def test_no_sentence_quotes_python(engine, daemon):
    """Of all that was refused above, nothing was a fault of the daemon's own."""
    log = daemon.log.read_text()
    assert not re.search(r"Traceback|met a fault", log)
