# SPDX-License-Identifier: GPL-2.0-or-later
"""Neither reply nor log repeats a key or a passphrase, wherever in a request it was put.

Every place of every parameter that schema.yml declares is tried, for every verb: those of whole
requests, and those beside them. Handlers read their requests as the daemon's do, and do no more.
test_secret_leak.py does it with a whole daemon that has VMs.
"""

from __future__ import annotations

import base64
import copy
import functools
import inspect
import json
import logging
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.functional.leaks import HEADER_TEXT, PIECE_TEXT, pieces
from tests.unit.rpc.requests.test_contract import ID, READERS, records
from vdsmcinder.errors import HotunplugDiskFailed
from vdsmcinder.rpc.dispatch import Caller, Dispatcher, Rules
from vdsmcinder.rpc.requests import devices, disk, nic, secrets, vm
from vdsmcinder.rpc.schema import schema
from vdsmcinder.rpc.schema.types import ListOf, Type
from vdsmcinder.rpc.schema.verb import Param, Verb
from vdsmcinder.virt.domain import create_request
from vdsmcinder.virt.domain.domain import Document

CONTRACT = schema.load()
CALLER = Caller("192.0.2.7", "CN=engine", "stomp")
SECRET_BYTES = 16
FOR_URLS = str.maketrans("+/", "-_")
DISK_XML = f"""<hotplug><devices><disk type="network" device="disk" snapshot="no">
<source protocol="rbd" name="volumes/v"><host name="10.0.0.1" port="6789" transport="tcp"/>
<auth username="cinder"><secret type="ceph" uuid="{ID}"/></auth>
<encryption format="luks"><secret type="passphrase" uuid="{ID}"/></encryption></source>
<target dev="vda" bus="virtio"/><driver name="qemu" type="raw" cache="none"/>
<iotune><total_iops_sec>5</total_iops_sec></iotune><serial>s</serial><alias name="ua-{ID}"/>
</disk></devices></hotplug>"""
NIC_XML = """<hotplug><devices><interface type="bridge"><mac address="00:1a:4a:16:01:51"/>
<source bridge="br0"/><model type="virtio"/><alias name="net0"/></interface></devices></hotplug>"""
DOMAIN_XML = f"<domain type='kvm'><name>n</name><uuid>{ID}</uuid>{DISK_XML[9:-10]}</domain>"
# How people paste a key: as it is, out of a keyring, of a sentence, of a URL, of a Kubernetes
# secret, of a terminal that broke the line.
FORMS: tuple[Callable[[str], str], ...] = (
    lambda key: key,
    lambda key: f"key={key}",
    lambda key: f"key = {key}",
    lambda key: f"{key}.",
    lambda key: f"'{key}'",
    lambda key: f'"{key}",',
    lambda key: f"the key is {key} of client.cinder",
    lambda key: f"x{key}",
    lambda key: f"{key}x",
    lambda key: f"/{key}/",
    lambda key: f"volumes/{key}",
    lambda key: f"ovirt/{key}",
    lambda key: f"ua-{key}",
    lambda key: key.rstrip("="),
    lambda key: key[:-6],
    lambda key: f"[client.cinder]\n\tkey = {key}\n",
    lambda key: f"{key[:20]}\n{key[20:]}",
    lambda key: quote(key, safe=""),
    lambda key: key.translate(FOR_URLS),
    lambda key: base64.b64encode(key.encode()).decode(),
)
KEYS = st.builds(
    lambda made_s, made_ns, secret: base64.b64encode(
        struct.pack("<HIIH", 1, made_s, made_ns, SECRET_BYTES) + secret
    ).decode(),
    st.integers(0, 2**32 - 1),
    st.integers(0, 999_999_999),
    st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
)
# Not one word that occurs in errors anyway, nor a name that a disk may have.
PASSPHRASES = st.text(
    st.characters(codec="ascii", categories=("L", "N", "P"), exclude_characters="/"),
    min_size=5,
    max_size=24,
).map(lambda text: f"Zq{text}")


def whole_requests(param: Param) -> list[Any]:
    """Requests that fit, or nearly."""
    kind, element = param.type, param.type.element if isinstance(param.type, ListOf) else None
    if element is not None:
        return [[value] for value in values(element)]
    return values(kind)


def values(kind: Type) -> list[Any]:
    names = [path_and_type[1].label for path_and_type in records(kind, "") if not path_and_type[0]]
    found = [request for name in names for request in READERS[name][1]]
    if names == ["HotplugDiskParams"]:
        found.append({"xml": DISK_XML})
    if names == ["HotplugNicParams"]:
        found.append({"xml": NIC_XML})
    if names == ["VmParams"]:
        found.append({"xml": DOMAIN_XML})
    return found or [ID if kind.label == "UUID" else "1"]


Place = Callable[[str], Any]


def places(request: Any, kind: Type, tried: set[object]) -> Iterator[Place]:
    """What puts a text somewhere into a copy of a request: in place of each value and beside them,
    but for places in tried, which those that are given are added to.
    """
    for path in _paths(request):
        if path not in tried:
            tried.add(path)
            yield functools.partial(_put, request, path)
    if not isinstance(request, dict):
        return
    for inner, record, _ in records(kind, ""):
        if not inner:
            for name in record.fields.keys() - request.keys():
                yield functools.partial(_put, {**request, name: ""}, (name,))
    yield lambda text: {**request, "more": {"deep": [text]}}
    document = request.get("xml", "")
    for part in (ID, "volumes/v", "10.0.0.1", "cinder", "ceph", "passphrase", "luks", "net0"):
        if part in document:
            yield functools.partial(_put_into_xml, request, part)


def _put_into_xml(request: Mapping[str, Any], part: str, text: str) -> Any:
    return {**request, "xml": request["xml"].replace(part, _xml(text))}


def _xml(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _paths(value: Any) -> Iterator[tuple[Any, ...]]:
    yield ()
    if isinstance(value, dict):
        members: Any = value.items()
    else:
        members = enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        for path in _paths(member):
            yield (name, *path)


def _put(request: Any, path: tuple[Any, ...], text: str) -> Any:
    if not path:
        return text
    changed = copy.deepcopy(request)
    at = changed
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = text
    return changed


def reading(verb: Verb) -> Callable[..., bool]:
    """A handler that reads what the verb is given and does nothing."""
    special: Mapping[str, Callable[..., Any]] = {
        "VM.create": _create,
        "VM.hotunplugDisk": lambda _, params: _not_plugged(disk.read_unplug(params)),
        "VM.hotunplugNic": lambda _, params: _not_plugged(nic.read_unplug(params)),
        "VM.diskSizeExtend": lambda _, specs, __: _not_plugged(disk.read_names(specs)),
        "VM.changeCD": lambda _, spec: devices.read_cd(spec),
        "VM.updateDevice": devices.read_update,
        "Host.registerSecrets": lambda given, _: secrets.read_secrets(given),
        "Host.unregisterSecrets": secrets.read_uuids,
    }

    def read(*given: Any) -> bool:
        if verb.name in special:
            special[verb.name](*given)
            return True
        for param, value in zip(verb.params, given):
            several = isinstance(param.type, ListOf)
            for kind in [r.label for path, r, _ in records(param.type, "") if not path]:
                for one in value if several else [value]:
                    READERS[kind][0](one)
        return True

    names = [inspect.Parameter(p.name, inspect.Parameter.POSITIONAL_ONLY) for p in verb.params]
    read.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    return read


def _not_plugged(query: object) -> None:
    raise HotunplugDiskFailed(f"disk {query} is not plugged")


def _create(vm_id: str, params: Mapping[str, Any]) -> None:
    request = vm.read_vm(vm_id, params)
    made = create_request.make_domain(vm_id, request, allow_emulation=False, spare_pcie_ports=1)
    Document.read(made.xml)


class Logged(logging.Handler):
    """What is logged, as text."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"


@pytest.fixture(scope="module")
def told() -> Iterator[Callable[[str, Any], str]]:
    """Calls a verb; what it answers and what is logged meanwhile."""
    verbs = {v.name: reading(v) for v in CONTRACT.served}
    dispatcher = Dispatcher(CONTRACT, verbs, Rules(lambda: True), 100)
    handler, root = Logged(), logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)

    def call(verb: str, params: Any) -> str:
        handler.text = ""
        request = {"jsonrpc": "2.0", "method": verb, "params": params, "id": "1"}
        reply = dispatcher.handle(json.dumps(request).encode(), CALLER)
        assert isinstance(reply, bytes)
        return json.dumps(json.loads(reply), ensure_ascii=False) + handler.text

    yield call
    root.removeHandler(handler)
    root.setLevel(before)


def requests(verb: Verb, text: str) -> Iterator[Any]:
    """Requests for a verb with the text in each place of a value that there is."""
    good = {p.name: whole_requests(p)[0] for p in verb.params if not p.optional}
    for param in verb.params:
        several = isinstance(param.type, ListOf)
        kind, tried = param.type.element if isinstance(param.type, ListOf) else param.type, set()
        for request in whole_requests(param):
            for put in places(request[0] if several else request, kind, tried):
                yield {**good, param.name: [put(text)] if several else put(text)}
        yield {**good, param.name: text}
        yield {**good, param.name: [text]}
    yield {**good, "more": text}
    yield [text] * (len(verb.params) + 1)


def with_names(verb: Verb, text: str) -> Iterator[Any]:
    """Requests with the text in place of a member's name."""
    good = {p.name: whole_requests(p)[0] for p in verb.params if not p.optional}
    yield {**good, text: text}
    for param in verb.params:
        request = whole_requests(param)[0]
        others = request if isinstance(request, dict) else {}
        yield {**good, param.name: {**others, text: "x"}}


# By their names: hypothesis writes out what an explicit example is called with, and a verb is long.
WITH_PARAMS = [verb.name for verb in CONTRACT.served if verb.params]


@pytest.mark.parametrize("name", WITH_PARAMS)
@settings(max_examples=3, phases=(Phase.explicit, Phase.generate))
@given(key=KEYS, form=st.sampled_from(FORMS))
def test_no_key_is_repeated(told, name: str, key: str, form: Callable[[str], str]) -> None:
    verb = CONTRACT.verbs[name]
    text = form(key)
    secret = key[HEADER_TEXT:].rstrip("=")
    again = base64.b64encode(key.encode()).decode()[2 * PIECE_TEXT :]
    written = [
        piece
        for one in (secret, quote(secret, safe=""), secret.translate(FOR_URLS), again)
        for piece in pieces(one)
    ]
    for request in (*requests(verb, text), *with_names(verb, text)):
        said = told(name, request).encode()
        assert not [piece for piece in written if piece in said], said


@pytest.mark.parametrize("name", WITH_PARAMS)
@settings(max_examples=3, phases=(Phase.explicit, Phase.generate))
@given(PASSPHRASES)
@example("Zq tr0ub4dor&3")
@example("Zq correct horse battery staple")
def test_no_passphrase_is_repeated(told, name: str, text: str) -> None:
    verb = CONTRACT.verbs[name]
    for request in requests(verb, text):
        said = told(name, request)
        for form in (text, repr(text)[1:-1], json.dumps(text)[1:-1]):
            assert form not in said, said
