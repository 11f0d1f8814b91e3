# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of a STOMP session as tables of bytes: what a client says, and what it is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsmcinder.stomp.frames import Decoder, Frame, Limits, encode
from vdsmcinder.stomp.session import Heartbeats, Request, Session, event_tail

CONNECT = Frame("CONNECT", {"accept-version": "1.2", "host": "node7"})
REPLIES = Frame("SUBSCRIBE", {"id": "r", "destination": "jms.topic.vdsm_responses"})
REQUEST = Frame(
    "SEND",
    {"destination": "jms.topic.vdsm_requests", "reply-to": "jms.topic.vdsm_responses"},
    b"{}",
)


class Client:
    """Talks to a session in frames."""

    def __init__(self, *said: Frame) -> None:
        self.session = Session(Limits(), heartbeat_floor_ms=1000)
        self.heard: list[Frame] = []
        self.requests = self.say(*said)

    def say(self, *frames: Frame) -> list[Request]:
        self.session.receive(b"".join(map(encode, frames)))
        requests = []
        while (request := self.session.next_request()) is not None:
            requests.append(request)
        self.listen()
        return requests

    def listen(self) -> None:
        decoder = Decoder()
        decoder.receive(b"".join(self.session.take_output()) + (self.session.farewell or b""))
        while (frame := decoder.next_frame()) is not None:
            self.heard.append(frame)

    @property
    def answer(self) -> Frame:
        return self.heard[-1]


def without(frame: Frame, name: str) -> Frame:
    return frame._replace(headers={k: v for k, v in frame.headers.items() if k != name})


def with_headers(frame: Frame, **headers: str) -> Frame:
    renamed = {name.replace("_", "-"): value for name, value in headers.items()}
    return frame._replace(headers={**frame.headers, **renamed})


@pytest.mark.parametrize("command", ["CONNECT", "STOMP"])
@pytest.mark.parametrize("versions", ["1.2", "1.0,1.1,1.2", "1.1, 1.2"])
def test_connected(command: str, versions: str) -> None:
    client = Client(Frame(command, {"accept-version": versions}))
    assert client.answer.command == "CONNECTED"
    assert client.answer.headers["version"] == "1.2"
    assert client.answer.headers["session"]
    assert client.session.farewell is None


@pytest.mark.parametrize("headers", [{"accept-version": "1.0,1.1"}, {}])
def test_other_versions_are_told_ours(headers: dict[str, str]) -> None:
    client = Client(Frame("CONNECT", headers))
    assert client.answer.command == "ERROR"
    assert client.answer.headers["version"] == "1.2"
    assert b"expected accept-version 1.2" in client.answer.body


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("0,0", "0,0"),
        ("5000,8000", "8000,5000"),
        ("1,1", "1000,1000"),
        ("0,5000", "5000,0"),
        ("5000,0", "0,5000"),
    ],
)
def test_heartbeats_are_agreed_on_above_a_floor(offer: str, answer: str) -> None:
    client = Client(with_headers(CONNECT, heart_beat=offer))
    assert client.answer.headers["heart-beat"] == answer
    sent, expected = map(int, answer.split(","))
    assert client.session.heartbeats == Heartbeats(sent, expected)


def test_a_request_goes_out_and_its_reply_comes_back() -> None:
    client = Client(CONNECT, REPLIES)
    (request,) = client.say(with_headers(REQUEST, ovirtCorrelationId="flow-1"))
    assert (request.body, request.flow_id) == (b"{}", "flow-1")
    client.session.reply(request.subscription, b"reply\0with NUL")
    client.listen()
    assert client.answer == Frame(
        "MESSAGE",
        {
            "subscription": "r",
            "destination": "jms.topic.vdsm_responses",
            "content-type": "application/json",
            "message-id": "1",
            "content-length": "14",
        },
        b"reply\0with NUL",
    )


def test_requests_may_go_below_the_destination() -> None:
    client = Client(CONNECT, REPLIES)
    assert client.say(with_headers(REQUEST, destination="jms.topic.vdsm_requests.a.b"))


def test_of_two_subscriptions_to_a_destination_one_gets_the_reply() -> None:
    client = Client(CONNECT, REPLIES, with_headers(REPLIES, id="second"))
    assert client.say(REQUEST)[0].subscription.id == "r"
    client.say(Frame("UNSUBSCRIBE", {"id": "r"}))
    assert client.say(REQUEST)[0].subscription.id == "second"


def test_a_reply_to_whoever_unsubscribed_meanwhile_is_dropped() -> None:
    client = Client(CONNECT, REPLIES)
    (request,) = client.say(REQUEST)
    client.say(Frame("UNSUBSCRIBE", {"id": "r"}), with_headers(REPLIES, destination="elsewhere"))
    client.session.reply(request.subscription, b"{}")
    assert client.session.take_output() == []


@pytest.mark.parametrize("destination", ["jms.queue.events", "jms.queue", "jms"])
def test_events_go_to_subscribers_of_their_destination_and_its_parents(destination: str) -> None:
    client = Client(CONNECT, Frame("SUBSCRIBE", {"id": "a:b", "destination": destination}))
    client.session.event(event_tail(b'{"method":"x"}', 3))
    client.listen()
    assert client.answer == Frame(
        "MESSAGE",
        {
            "subscription": "a:b",
            "destination": "jms.queue.events",
            "content-type": "application/json",
            "message-id": "event-3",
            "content-length": "14",
        },
        b'{"method":"x"}',
    )


@pytest.mark.parametrize("destination", ["jms.queue.events.x", "jms.queue.event", "jms.topic", "j"])
def test_events_go_to_nobody_else(destination: str) -> None:
    client = Client(CONNECT, Frame("SUBSCRIBE", {"id": "1", "destination": destination}))
    client.session.event(event_tail(b"{}", 1))
    assert client.session.take_output() == []


def test_every_frame_can_have_a_receipt() -> None:
    client = Client(CONNECT, with_headers(REPLIES, receipt="a:1"))
    client.say(with_headers(REQUEST, receipt="2"))
    client.say(Frame("UNSUBSCRIBE", {"id": "r", "receipt": "3"}))
    client.say(Frame("DISCONNECT", {"receipt": "4"}))
    assert [f.headers["receipt-id"] for f in client.heard[1:]] == ["a:1", "2", "3", "4"]
    assert {f.command for f in client.heard[1:]} == {"RECEIPT"}


def test_disconnect_ends_the_session_without_a_word_if_none_is_asked_for() -> None:
    client = Client(CONNECT, Frame("DISCONNECT", {}), REQUEST)
    assert client.session.farewell == b""
    assert not client.session.failure


def test_unsubscribing_what_is_not_subscribed_is_no_error() -> None:
    assert Client(CONNECT, Frame("UNSUBSCRIBE", {"id": "x"})).session.farewell is None


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (without(REPLIES, "id"), "SUBSCRIBE has no header id; expected 'id:...'"),
        (without(REPLIES, "destination"), "SUBSCRIBE has no header destination"),
        (REPLIES, "subscription 'r' exists already"),
        (with_headers(REPLIES, id="2", ack="client"), "header ack of SUBSCRIBE '2' is 'client'"),
        (Frame("UNSUBSCRIBE", {}), "UNSUBSCRIBE has no header id"),
        (without(REQUEST, "destination"), "SEND to destination ''; expected jms.topic.vdsm_req"),
        (with_headers(REQUEST, destination="jms.topic.vdsm_requestsx"), "SEND to destination"),
        (without(REQUEST, "reply-to"), "SEND has no header reply-to, so its answer could not be"),
        (Frame("ACK", {"id": "1"}), "ACK is not served; expected one of SEND, CONNECT"),
        (Frame("BEGIN", {"transaction": "1"}), "BEGIN is not served"),
        (Frame("MESSAGE", {}), "MESSAGE is not served"),
    ],
)
def test_a_broken_rule_ends_the_session_with_the_reason(frame: Frame, reason: str) -> None:
    client = Client(CONNECT, REPLIES)
    assert client.say(with_headers(frame, receipt="77"), REQUEST) == []
    assert client.answer.command == "ERROR"
    assert reason in client.answer.body.decode()
    assert client.answer.headers["message"] == client.answer.body.decode()
    assert client.answer.headers["receipt-id"] == "77"
    assert client.session.failure == client.answer.body.decode()


def test_what_was_queued_for_a_lost_connection_may_come_before_connect() -> None:
    client = Client(REPLIES, REQUEST, CONNECT)
    assert [request.body for request in client.requests] == [b"{}"]
    assert client.answer.command == "CONNECTED"
    assert client.session.farewell is None


def test_connect_is_answered_each_time_and_agrees_anew() -> None:
    client = Client(CONNECT, REPLIES, with_headers(CONNECT, heart_beat="2000,3000"))
    assert [frame.command for frame in client.heard] == ["CONNECTED", "CONNECTED"]
    assert client.session.heartbeats == Heartbeats(sent_every=3000, expected_every=2000)
    assert client.session.connects == 2
    assert len(client.say(REQUEST)) == 1


def test_a_request_whose_answer_could_not_be_sent_is_dropped_and_the_session_goes_on() -> None:
    client = Client(REQUEST, CONNECT, REPLIES)
    assert client.requests == []
    assert client.say(with_headers(REQUEST, reply_to="x", receipt="1"), REQUEST) != []
    assert "names 'x', which the connection is not subscribed to" in client.session.unanswerable
    assert [frame.command for frame in client.heard] == ["CONNECTED"]


@pytest.mark.parametrize("below", ["", ".x.y"])
@pytest.mark.parametrize("destination", ["jms.topic.vdsm_requests", "jms.topic.vdsm_irs_requests"])
def test_requests_come_to_either_destination_and_below_it(destination: str, below: str) -> None:
    client = Client(CONNECT, REPLIES)
    assert len(client.say(with_headers(REQUEST, destination=destination + below))) == 1


def test_each_frame_goes_out_alone_unless_the_client_can_take_several() -> None:
    for gathered in (False, True):
        about = with_headers(CONNECT, gathered_frames=str(gathered).lower())
        client = Client(about, REPLIES, Frame("SUBSCRIBE", {"id": "e", "destination": "jms"}))
        (request,) = client.say(REQUEST)
        client.session.reply(request.subscription, b"{}")
        client.session.event(event_tail(b"{}", 1))
        client.session.reply(request.subscription, b"{}")
        output = client.session.take_output()
        assert len(output) == (1 if gathered else 3)
        assert all(part.startswith(b"MESSAGE\n") and part.endswith(b"\0") for part in output)
        assert client.session.take_output() == []


@pytest.mark.parametrize("offer", ["1000", "1000,", "-1,5", "a,b", "1,2,3", "9999999999,0"])
def test_heartbeats_that_are_not_numbers_are_refused(offer: str) -> None:
    client = Client(with_headers(CONNECT, heart_beat=offer))
    assert b"expected two numbers of milliseconds" in client.answer.body


def test_requests_before_a_broken_frame_are_handed_out() -> None:
    client = Client(CONNECT, REPLIES)
    client.session.receive(encode(REQUEST) + b"garbage that is no frame at all")
    assert client.session.next_request() is not None
    assert client.session.next_request() is None
    client.listen()
    assert b"begins with 'garbage that" in client.answer.body


def test_subscriptions_are_bounded() -> None:
    many = [Frame("SUBSCRIBE", {"id": str(n), "destination": "x"}) for n in range(33)]
    client = Client(CONNECT, *many)
    assert b"subscription '32' is one too many; expected at most 32" in client.answer.body


client_frames = st.builds(
    Frame,
    st.sampled_from(
        ["CONNECT", "SEND", "SUBSCRIBE", "UNSUBSCRIBE", "DISCONNECT", "ACK", "MESSAGE"]
    ),
    st.dictionaries(
        st.sampled_from(
            ["id", "destination", "reply-to", "receipt", "accept-version", "heart-beat", "ack"]
        ),
        st.sampled_from(["1.2", "r", "jms.topic.vdsm_requests", "jms", "0,0", "auto", "\\", ""]),
    ),
    st.binary(max_size=9),
)


@given(st.lists(client_frames, max_size=12))
def test_whatever_a_client_says_is_taken_or_refused(said: list[Frame]) -> None:
    client = Client(*said)
    ended = client.session.farewell is not None
    assert ended or client.session.connects or not said
    assert sum(f.command == "ERROR" for f in client.heard) == bool(client.session.failure)
