# SPDX-License-Identifier: GPL-2.0-or-later
"""All that can be done wrong with a key: in parameters, in bodies, on the wire, on a command line.

What a reply repeats by its very nature, the id of a request, is left out, and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import json
from contextlib import suppress
from typing import Any

from lab.engine import Engine, client_context, new_id, secret_params
from lab.guest.domains import disk_xml
from lab.host.daemon import HostDaemon
from tests.functional.guests import Guest
from tests.functional.helpers import CONTRACT, destroyed_at_last, foreign_secret, refused
from vdsmcinder.errors import RemoteError

STAND_INS = {"vmParams": {}, "params": {}, "secrets": [], "uuids": [], "level": "DEBUG", "delay": 0}
CONNECT = b"CONNECT\naccept-version:1.2\nhost:lab\nlogin:lab\npasscode:%s\n\n\0"
SEND = b"SEND\ndestination:jms.topic.vdsm_requests\nreply-to:x\n"


async def attempt(engine: Engine, verb: str, params: Any) -> None:
    """Call a verb, whatever it says."""
    with suppress(RemoteError):
        await engine.session.call(verb, params)


# In parameters


async def misplace_in_secrets(engine: Engine, key: str) -> None:
    """Secrets of which something is wrong: the key, or what stands beside it."""
    good = secret_params(new_id(), key)
    wrong: list[dict[str, Any]] = [
        *({name: key} for name in ("uuid", "usageType", "usageID")),
        *({name: value} for name in good for value in ("", [key], {"value": key})),
        *({"password": text} for text in (f"{key}!", f" {key}", key[:-1], key[1:])),
        {"password": base64.b64decode(key).hex(), "uuid": "-"},
        {"password": base64.b64decode(key).decode("latin-1")},
        {"description": "\0"},
    ]
    lists = [[good, {**good, **fields}] for fields in wrong]
    for secrets in (*lists, [good, good], [key], [[key]]):
        with refused(72):
            await engine.call("Host.registerSecrets", secrets=secrets)
    for secrets in (key, good):
        with refused(-32602):
            await engine.call("Host.registerSecrets", secrets=secrets)
    with foreign_secret(engine.daemon.host) as uuid, refused(73, uuid):
        await engine.call("Host.registerSecrets", secrets=[{**good, "uuid": uuid}])


async def misplace_in_disks(engine: Engine, vm: Guest, key: str) -> None:
    """Disks that bring the key itself where they should name its secret."""
    named = {"type": "ceph", "username": "cinder", "uuid": engine.secret_id}
    wrong: list[Any] = [key, [key], {**named, "uuid": key}, {**named, "type": key}]
    for auth in wrong:
        disk = engine.disk("none", auth=auth)
        for verb in ("VM.hotplugDisk", "VM.hotunplugDisk"):
            await attempt(engine, verb, {"vmID": vm.id, "params": {"drive": disk}})
        await attempt(engine, "VM.create", [vm_id := new_id(), engine.flat(vm_id, disk)])
    xml = disk_xml(engine.lab.ceph, "none", "vdz", engine.secret_id)
    documents = [
        key,
        f"<disk>{key}",
        f"<{key}/>",
        xml.replace(engine.secret_id, key),
        xml.replace("<secret ", f"<secret key='{key}' "),
        xml.replace("<secret ", f"<secret key={key} "),
        xml.replace("</auth>", f"{key}</auth>"),
        xml.replace("</auth>", f"{key}"),
        xml.replace("type='ceph'", f"type='{key}'"),
    ]
    for document in documents:
        for verb in ("VM.hotplugDisk", "VM.hotunplugDisk"):
            await attempt(engine, verb, {"vmID": vm.id, "params": {"xml": document}})
        await create_and_destroy(engine, engine.document(new_id(), document))


async def create_and_destroy(engine: Engine, params: dict[str, Any]) -> None:
    async with destroyed_at_last(engine, params["vmId"]) as vm_id:
        with suppress(RemoteError):
            await engine.create(params)
            await started_or_not(engine, vm_id)


async def misplace_in_every_verb(engine: Engine, key: str) -> None:
    """The key in place of each parameter, beside them, and by position."""
    for verb in CONTRACT.verbs.values():
        names = [p.name for p in verb.params]
        good = {p.name: STAND_INS.get(p.name, "") for p in verb.params if not p.optional}
        if "vmID" in good:
            good["vmID"] = new_id()
        for name in names:
            for value in (key, [key], {"password": key}):
                await attempt(engine, verb.name, {**good, name: value})
        await attempt(engine, verb.name, {**good, "password": key, "more": {"password": key}})
        await attempt(engine, verb.name, {"password": key})
        await attempt(engine, verb.name, [[key]] * len(names))
        await attempt(engine, verb.name, [[]] * len(names) + [key])


async def started_or_not(engine: Engine, vm_id: str) -> None:
    def ended(event: Any) -> bool:
        return event["params"].get(vm_id, {}).get("status") in {"Up", "Down"}

    await engine.session.wait_for_event(ended)


# In bodies


def malformed_bodies(key: str) -> list[bytes]:
    """Bodies that are no requests, or requests for what there is not; each holds the key."""
    secret = secret_params(new_id(), key)
    good = {
        "jsonrpc": "2.0",
        "method": "Host.registerSecrets",
        "params": {"secrets": [secret], "clear": "no"},
        "id": "1",
    }
    text = json.dumps(good)
    contents: list[Any] = [
        key,
        [key],
        secret,
        [[]],
        [good, secret, key],
        {**good, "jsonrpc": "1.0"},
        {**good, "method": None},
        {**good, "method": {"secrets": secret}},
        {**good, "method": "Host.registerSecret"},
        {**good, "method": "VM.setTicket"},
        {**good, "params": key},
        {**good, "id": secret},
        {name: value for name, value in good.items() if name != "id"},
    ]
    return [
        *(json.dumps(content).encode() for content in contents),
        *(text[:length].encode() for length in (len(text) - 1, text.index(key) + len(key))),
        key.encode(),
        text.replace(f'"{key}"', key).encode(),
        text.replace(f'"{key}"', f"'{key}'").encode(),
        text.replace('"no"', "NaN").encode(),
        text.encode() + b"\xff",
        text.encode("utf-16"),
    ]


async def send_malformed_bodies(engine: Engine, key: str) -> bytes:
    """Over STOMP, and over HTTP with all that can be wrong there; what HTTP answered."""
    bodies = malformed_bodies(key)
    for body in bodies:
        engine.session.send_body(body)
    await engine.call("Host.ping2")
    post = b"POST / HTTP/1.1\r\nHost: lab\r\n%sContent-Length: %d\r\n\r\n"
    large = json.dumps([secret_params(new_id(), key)] * 1000).encode()
    requests = [
        *(post % (b"", len(body)) + body for body in bodies),
        *(post % (b"", cut) + bodies[1] for cut in (1, len(bodies[1]) - len(key) - 2)),
        post % (f"{key}\r\n".encode(), 0),
        post % (f"Authorization: Bearer {key}\r\nX\r\n".encode(), 0),
        post % (b"", len(large)) + large,
        b"PUT" + post[4:] % (b"", len(bodies[1])) + bodies[1],
    ]
    return b"".join([await over_http(engine, request) for request in requests])


async def over_http(engine: Engine, request: bytes) -> bytes:
    assert isinstance(engine.daemon, HostDaemon)
    reader, writer = await asyncio.open_unix_connection(engine.daemon.unix_socket)
    writer.write(request)
    writer.write_eof()
    answer = b""
    with suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answer


# On the wire


async def break_the_protocol(engine: Engine, key: str, max_frame_bytes: int) -> bytes:
    """Frames that STOMP does not allow; what was answered."""
    body = json.dumps(secret_params(new_id(), key), indent=1).encode()
    large = b"[" + body + b" " * max_frame_bytes
    frames = [
        b"\n".join([SEND.rstrip(), body, b"\0"]),
        SEND + f"{key}\n\n\0".encode(),
        SEND + f"password:{key}\\q\n\n\0".encode(),
        SEND + b"content-length:9\n\n" + body + b"\0",
        SEND + b"content-length:%d\n\n%s\0" % (len(large), large),
        SEND + b"\n" + large + b"\0",
        f"{key}\n\n\0".encode(),
        body + b"\0",
        SEND + body,
    ]
    return b"".join([await over_stomp(engine, key, frame) for frame in frames])


async def over_stomp(engine: Engine, key: str, frame: bytes) -> bytes:
    pki, daemon = engine.lab.pki, engine.daemon
    context = client_context(pki, pki.engine)
    reader, writer = await asyncio.open_connection(daemon.host.address, daemon.port, ssl=context)
    writer.write(CONNECT % key.encode())
    answer = await reader.readuntil(b"\0")
    writer.write(frame)
    with suppress(asyncio.TimeoutError, asyncio.IncompleteReadError, ConnectionError):
        answer += await asyncio.wait_for(reader.readuntil(b"\0"), 0.5)
    writer.transport.abort()
    return answer
