# SPDX-License-Identifier: GPL-2.0-or-later
"""STOMP 1.2 and JSON-RPC 2.0 as a real daemon speaks them, from CONNECT to the last RECEIPT."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.host.local import LocalDaemon
from tests.unit.transport.talking import CONNECT, SUBSCRIBE, Client, call, connect, send
from vdsmcinder.stomp.frames import Decoder, Frame, encode

REQUEST = {"destination": "jms.topic.vdsm_requests", "reply-to": "replies"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDaemon]:
    with LocalDaemon(tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


@pytest.fixture
def client(daemon: LocalDaemon) -> Iterator[Client]:
    with Client(daemon) as client:
        yield client


def hear(daemon: LocalDaemon, said: bytes) -> list[Frame]:
    """All frames that are said in answer, until the daemon hangs up."""
    decoder = Decoder()
    with connect(daemon) as connection:
        connection.sendall(said)
        while data := connection.recv(1 << 16):
            decoder.receive(data)
    return list(iter(decoder.next_frame, None))


# --- STOMP -------------------------------------------------------------------------------------


@pytest.mark.parametrize("versions", ["1.2", "1.0,1.1,1.2", "1.2,2.0"])
def test_our_version_is_chosen_among_those_offered(daemon: LocalDaemon, versions: str) -> None:
    connected = hear(daemon, CONNECT.replace(b"1.2", versions.encode()) + b"DISCONNECT\n\n\0")
    assert [f.command for f in connected] == ["CONNECTED"]
    assert connected[0].headers["version"] == "1.2"


def test_other_versions_get_an_error_with_ours(daemon: LocalDaemon) -> None:
    (error,) = hear(daemon, CONNECT.replace(b"1.2", b"1.0,1.1"))
    assert (error.command, error.headers["version"]) == ("ERROR", "1.2")


def test_every_frame_has_its_receipt_but_connect_which_has_its_answer(daemon: LocalDaemon) -> None:
    """ "Header receipt": any client frame other than CONNECT may specify one."""
    said = (
        Frame("CONNECT", {"accept-version": "1.2", "receipt": "0"}),
        Frame("SUBSCRIBE", {"id": "r", "destination": "replies", "receipt": "1"}),
        Frame("SEND", {**REQUEST, "receipt": "2"}, call("Host.ping2")),
        Frame("UNSUBSCRIBE", {"id": "r", "receipt": "3"}),
        Frame("DISCONNECT", {"receipt": "4:5"}),
    )
    heard = hear(daemon, b"".join(map(encode, said)))
    assert heard.pop(0).command == "CONNECTED"
    receipts = [f.headers["receipt-id"] for f in heard if f.command == "RECEIPT"]
    assert receipts == ["1", "2", "3", "4:5"]
    assert heard[-1].command == "RECEIPT"


def test_frames_without_optional_headers_are_enough(daemon: LocalDaemon) -> None:
    said = b"CONNECT\naccept-version:1.2\n\n\0SUBSCRIBE\nid:1\ndestination:d\n\n\0"
    heard = hear(daemon, said + b"UNSUBSCRIBE\nid:1\n\n\0DISCONNECT\n\n\0")
    assert [f.command for f in heard] == ["CONNECTED"]


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
@pytest.mark.parametrize("length", [True, False])
def test_lines_bodies_escapes_and_repeated_headers(
    daemon: LocalDaemon, ends: bytes, length: bool
) -> None:
    body = call("Host.echo", 1, message="text")
    lines = [
        *(b"SEND", b"destination:jms.topic.vdsm_requests", b"destination:elsewhere"),
        *(b"reply-to:re\\cplies\\n\\\\", b"reply-to:not this one"),
        *([b"content-length:%d" % len(body)] if length else []),
        *(b"", body + b"\0"),
    ]
    subscribe = encode(Frame("SUBSCRIBE", {"id": "a\\b:c", "destination": "re:plies\n\\"}))
    heard = hear(daemon, CONNECT + subscribe + ends.join(lines) + b"\n\r\n\nDISCONNECT\n\n\0")
    assert [f.command for f in heard] == ["CONNECTED", "MESSAGE"]
    assert heard[1].headers["subscription"] == "a\\b:c"
    assert heard[1].headers["destination"] == "re:plies\n\\"
    assert json.loads(heard[1].body)["result"] == "text"


def test_an_error_is_the_last_word(daemon: LocalDaemon) -> None:
    heard = hear(daemon, CONNECT + SUBSCRIBE + b"ACK\nid:1\nreceipt:7\n\n\0" + send(call("x")))
    assert [f.command for f in heard] == ["CONNECTED", "RECEIPT", "ERROR"]
    assert heard[-1].headers["receipt-id"] == "7"
    assert b"ACK is not served; expected one of SEND" in heard[-1].body


def test_one_byte_at_a_time(client: Client) -> None:
    for byte in send(call("Host.ping2", 5)):
        client.socket.sendall(bytes((byte,)))
    assert json.loads(client.read().body)["id"] == 5


def test_two_clients_with_the_same_ids_and_names_get_their_own(daemon: LocalDaemon) -> None:
    with Client(daemon) as one, Client(daemon) as two:
        for number in range(50):
            for who, client in (("one", one), ("two", two)):
                client.socket.sendall(send(call("Host.echo", number, message=who)))
                client.socket.sendall(send(call("Host.getHardwareInfo", number + 1000)))
        for who, client in (("one", one), ("two", two)):
            replies = [json.loads(client.read().body) for _ in range(100)]
            echoes = [r for r in replies if r["id"] < 1000]
            assert [(r["id"], r["result"]) for r in echoes] == [(n, who) for n in range(50)]
            assert sorted(r["id"] for r in replies if r["id"] >= 1000) == list(range(1000, 1050))
        for client in (one, two):
            client.ping()  # and nothing else came


# --- JSON-RPC ----------------------------------------------------------------------------------


def test_requests_by_position_and_by_name(client: Client) -> None:
    for params in (["text"], {"message": "text"}, {"message": "text", "unknown": 1}):
        request = {"jsonrpc": "2.0", "method": "Host.echo", "params": params, "id": "a"}
        reply = client.ask(json.dumps(request).encode())
        assert reply == {"jsonrpc": "2.0", "id": "a", "result": "text"}


def test_notifications_are_not_answered(client: Client) -> None:
    for verb in ("Host.ping2", "Host.getCapabilities", "no.verb"):
        client.socket.sendall(send(b'{"jsonrpc":"2.0","method":"%b"}' % verb.encode()))
    client.socket.sendall(send(b'[{"jsonrpc":"2.0","method":"Host.ping2"}]'))
    client.ping()


def test_batches_of_all_kinds(client: Client) -> None:
    batch = [
        json.loads(call("Host.ping2", "quick")),
        json.loads(call("Host.getHardwareInfo", "slow")),
        {"jsonrpc": "2.0", "method": "Host.ping2"},
        json.loads(call("no.verb", 3)),
        "nonsense",
    ]
    replies = {r["id"]: r for r in client.ask(json.dumps(batch).encode())}
    assert replies.keys() == {"quick", "slow", 3, None}
    assert replies["quick"]["result"] is True
    assert isinstance(replies["slow"]["result"], dict)
    assert replies[3]["error"]["code"] == -32601
    assert replies[None]["error"]["code"] == -32600


def test_a_long_batch_is_answered_in_full(client: Client) -> None:
    batch = [json.loads(call("Host.echo", n, message=str(n))) for n in range(1000)]
    replies = client.ask(json.dumps(batch).encode())
    assert {r["id"]: r["result"] for r in replies} == {n: str(n) for n in range(1000)}
    refused = client.ask(json.dumps([*batch, batch[0]]).encode())
    assert refused["error"]["code"] == 1100
