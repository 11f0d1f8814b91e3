# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of VM.changeCD and of tickets; what they refuse never shows a password."""

from __future__ import annotations

import pytest

from vdsmcinder.errors import InvalidParameter, MissingParameter, UnsupportedDrive
from vdsmcinder.rpc.requests.devices import read_cd, read_ticket
from vdsmcinder.virt.disk.source import BlockSource, FileSource
from vdsmcinder.virt.live.media import CdChange


@pytest.mark.parametrize(
    ("spec", "change"),
    [
        ("/iso/a.iso", CdChange(FileSource("/iso/a.iso"))),
        ("", CdChange(FileSource(""))),
        ({"path": "/dev/sr0"}, CdChange(BlockSource("/dev/sr0"))),
        ({"path": None, "iface": "ide", "index": "2"}, CdChange(FileSource(""), "hdc")),
        ({"path": "/a", "index": 0}, CdChange(FileSource("/a"), "sda")),
    ],
)
def test_media(spec, change):
    assert read_cd(spec) == change


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("a.iso", InvalidParameter),
        (None, InvalidParameter),
        ({"path": "/a", "iface": "pigeon"}, InvalidParameter),
        ({"path": "volumes/a", "protocol": "rbd"}, UnsupportedDrive),
        ({"diskType": "network", "path": "volumes/a"}, UnsupportedDrive),
        ({"imageID": "x", "volumeID": "y"}, UnsupportedDrive),
        ({"specParams": {"vmPayload": {"file": {"a": "secret"}}}}, UnsupportedDrive),
    ],
)
def test_media_that_are_refused(spec, error):
    with pytest.raises(error) as caught:
        read_cd(spec)
    assert "secret" not in caught.value.message


def test_a_ticket():
    ticket = read_ticket({"graphicsType": "vnc", "password": "pass", "ttl": "120"})
    assert ticket.password.reveal() == b"pass"
    assert (ticket.ttl_s, ticket.display, ticket.existing) == (120, "vnc", "keep")
    assert "pass" not in repr(ticket).replace("password", "")


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"password": None}, MissingParameter),
        ({"password": 1234567}, MissingParameter),
        ({"password": "1234567", "ttl": "soon"}, InvalidParameter),
        ({"password": "1234567", "graphicsType": "tty"}, InvalidParameter),
        ({"password": "1234567", "existingConnAction": "shout"}, InvalidParameter),
    ],
)
def test_a_ticket_that_is_refused(params, error):
    with pytest.raises(error) as caught:
        read_ticket(params)
    assert "1234567" not in f"{caught.value.message} {caught.value.data}"
