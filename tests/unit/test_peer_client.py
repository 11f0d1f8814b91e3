# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon of another host that is none, or breaks the protocol: what is said of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.client.test_session import server
from tests.unit.transport.serving import listening
from vdsmcinder import peer_client
from vdsmcinder.config import Listen
from vdsmcinder.errors import PeerUnreachable
from vdsmcinder.rpc.schema import schema
from vdsmcinder.virt.vm.migration import Handover, Offer, Source
from vdsmcinder.virt.vm.migration_request import Address

PLAIN = Listen(tls=False)
OFFER = Offer(
    "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d", "", Handover.CONFIRMED, "<domain/>", Source("host1")
)
CONNECTED = b"CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0"
SUBSCRIBED = b"RECEIPT\nreceipt-id:SUBSCRIBE-2\n\n\0"


@contextlib.asynccontextmanager
async def host(*answers: bytes) -> AsyncIterator[Address]:
    async with server(*answers) as port:
        yield Address("127.0.0.1", port)


async def test_a_service_without_tls(tmp_path: Path) -> None:
    async with listening(tmp_path, tls=True) as ours, listening(tmp_path / "other") as other:
        with pytest.raises(PeerUnreachable, match=r"cannot be reached \(.*(version|record).*\)"):
            await peer_client.connect(ours.listen, Address("127.0.0.1", other.port))


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"CONNECTED\nversion:1.2\nheart-beat:soon\n\n\0",
        b"RECEIPT\n\n\0",
        b"MESSAGE\n\n{}\0",
    ],
)
async def test_a_service_that_is_no_daemon(answer: bytes) -> None:
    async with host(answer) as address:
        with pytest.raises(PeerUnreachable, match=r"cannot be reached \(the daemon broke the prot"):
            await peer_client.connect(PLAIN, address)


@pytest.mark.parametrize(
    "body", [b'{"id": "3"}', b'{"id": "3", "error": 4}', b'{"id": "3", "error": {}}']
)
async def test_a_daemon_that_does_not_answer_what_it_was_asked(body: bytes) -> None:
    message = b"MESSAGE\nsubscription:1\nmessage-id:1\ndestination:x\n\n" + body + b"\0"
    async with host(CONNECTED, SUBSCRIBED, message) as address:
        peer = await peer_client.connect(PLAIN, address)
        with pytest.raises(PeerUnreachable, match=r"was lost during VM.migrationCreate"):
            await peer.offer(OFFER)
        await peer.close()


def test_what_hosts_call_one_another_is_what_their_authority_is_let_in_for() -> None:
    source = Path(peer_client.__file__).read_text(encoding="utf-8")
    called = set(re.findall(r'_call\("([^"]+)"', source))
    assert called == {verb.name for verb in schema.load().verbs.values() if verb.for_hosts}
