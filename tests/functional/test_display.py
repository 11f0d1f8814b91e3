# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's display: who is let in, and what is to be seen."""

from __future__ import annotations

import base64
import struct
import time
import zlib

import pytest

from lab.engine import new_id
from lab.guest.domains import disk_xml
from tests.functional import vnc
from tests.functional.helpers import refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Of a character cell in text mode.
VGA_CHARACTER_ROWS = 16
TICKET = {"ttl": 120, "existingConnAction": "keep", "params": {"userName": "admin"}}


async def display(guest) -> tuple[str, int]:
    """Address and port of the display."""
    (info,) = (await guest.stats())["displayInfo"]
    assert info["type"] == "vnc"
    return info["ipAddress"], int(info["port"])


async def test_nobody_gets_in_without_a_ticket(guest):
    assert not vnc.opens(*await display(guest), "")
    assert not vnc.opens(*await display(guest), "*****")


async def test_a_ticket_opens_the_display(guest):
    door = await display(guest)
    assert await guest.call("setTicket", password="secret01", **TICKET) is True
    assert vnc.opens(*door, "secret01")
    assert not vnc.opens(*door, "secret02")
    await guest.call("setTicket", password="secret02", **TICKET)
    assert vnc.opens(*door, "secret02")
    assert not vnc.opens(*door, "secret01")
    update = {
        "deviceType": "graphics",
        "graphicsType": "vnc",
        "password": "secret03",
        "ttl": 120,
        "existingConnAction": "keep",
        "params": {},
        "consoleDisconnectActionDelay": 0,
    }
    await guest.call("updateDevice", params=update)
    assert vnc.opens(*door, "secret03")


async def test_a_ticket_expires(guest):
    door = await display(guest)
    for ttl in (60, 1):
        await guest.call("setTicket", password="brief", ttl=ttl, existingConnAction="keep")
        assert ttl == 1 or vnc.opens(*door, "brief")
    deadline = time.monotonic() + 30
    while vnc.opens(*door, "brief"):
        assert time.monotonic() < deadline


async def test_a_ticket_for_ever(guest):
    await guest.call("setTicket", password="always", ttl=0, existingConnAction="keep")
    assert vnc.opens(*await display(guest), "always")


async def test_a_ticket_leaves_no_trace(guest, daemon):
    password = "tracer7!"
    await guest.call("setTicket", password=password, **TICKET)
    with refused(91, "longer than 8 characters"):
        await guest.call("setTicket", password=password + password, **TICKET)
    with refused(91, "control characters"):
        await guest.call("setTicket", password=f"{password[:6]}\0", **TICKET)
    with refused(-32602, "existingConnAction"):
        await guest.call("setTicket", password=password, ttl=1, existingConnAction="shout")
    with refused(56, "has no spice display"):
        update = {"graphicsType": "spice", "password": password, "ttl": 1}
        await guest.call("updateDevice", params=update)
    with refused(91, "ttl is a string of 1 character"):
        update = {"graphicsType": "vnc", "password": password, "ttl": "x"}
        await guest.call("updateDevice", params=update)
    dumped = await guest.engine.call("Host.dumpxmls", vmList=[guest.id])
    for text in (daemon.log.read_text(), str(dumped), str(await guest.call("getInfo"))):
        assert password not in text
        assert password[:6] not in text


def pixels(png):
    """Width, height and the rows of a PNG of 8 bits a colour, as decompressed."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    parts, offset = {}, 8
    while offset < len(png):
        (length,) = struct.unpack_from(">I", png, offset)
        name, data = png[offset + 4 : offset + 8], png[offset + 8 : offset + 8 + length]
        assert zlib.crc32(name + data) == struct.unpack_from(">I", png, offset + 8 + length)[0]
        parts[name] = parts.get(name, b"") + data
        offset += 12 + length
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    return width, height, zlib.decompress(parts[b"IDAT"])


async def test_a_screenshot_shows_what_the_guest_does(guest):
    async def picture():
        answer = await guest.call("screenshot")
        assert answer.keys() == {"data", "encoding", "mime_type"}
        assert (answer["encoding"], answer["mime_type"]) == ("base64", "image/png")
        return base64.b64decode(answer["data"])

    width, height, before = pixels(await picture())
    assert (width, height) >= (640, 400)
    assert len(set(before)) > 1
    # Into the memory of VGA's text mode, at 0xb8000: the guest's kernel has no console there. What
    # the firmware has left blinks below, its cursor.
    text = "yes hello | tr -d '\\n' | head -c 160"
    await guest.after(f"{text} | dd of=/dev/mem bs=160 seek=4710; say written", "^written$")
    first_line = slice(0, VGA_CHARACTER_ROWS * (1 + 3 * width))
    assert pixels(await picture())[2][first_line] != before[first_line]


async def test_a_vm_without_a_display(engine, image):
    params = engine.document(new_id(), disk_xml(engine.lab.ceph, image(), "vda", engine.secret_id))
    vm_id = await engine.run(params)
    try:
        with refused(75, "has no display"):
            await engine.call("VM.screenshot", vmID=vm_id)
        with refused(56, "has no VNC or SPICE display"):
            await engine.call("VM.setTicket", vmID=vm_id, password="x", **TICKET)
    finally:
        await engine.destroy(vm_id)
