# SPDX-License-Identifier: GPL-2.0-or-later
"""A server without sockets that is spoken to in HTTP, and what must hold for any bytes it hears."""

from __future__ import annotations

from collections.abc import Iterator

import h11

from vdsmcinder.transport.http_session import HttpSession, Refused, Request, Stage

MAX_BODY = 256


class Conversation:
    """A session to which something is said, and which answers each request with its number."""

    def __init__(self, max_body_bytes: int) -> None:
        self.session = HttpSession(_admit, max_body_bytes)
        self.requests: list[Request] = []
        self.told = b""
        self.refused: Refused | None = None

    def say(self, data: bytes) -> None:
        """The client sends this."""
        self.session.receive(data)
        self._read()

    def end(self) -> None:
        """The client sends no more."""
        self.session.receive_end()
        self._read()

    def _read(self) -> None:
        session = self.session
        try:
            while session.stage in (Stage.HEAD, Stage.BODY):
                unread = session.unread
                request, told = session.next_request()
                self.told += told
                if request is not None:
                    self.requests.append(request)
                    body = b"%d" % len(self.requests)
                    self.told += session.answer(200, {"Content-Type": "text/plain"}, body)
                elif session.unread == unread:
                    break
        except Refused as e:
            self.refused = e
            self.told += session.answer(e.status, e.headers, str(e).encode(), last=True)


def _admit(request: Request) -> None:
    if request.method == "CONNECT":  # an answer that it succeeds would end HTTP on the connection
        raise Refused(405, "expected another method")


def http(data: bytes) -> None:
    """A session reads requests or refuses one; cut differently, the same; a client can read it."""
    whole, cut = _converse(data, len(data) or 1), _converse(data, 1)
    if "more follows" not in str(whole.refused):  # which is seen only if it comes at once
        assert whole.requests == cut.requests
        assert str(whole.refused) == str(cut.refused)
        assert whole.session.stage is cut.session.stage
    assert whole.session.count == len(whole.requests) + (whole.refused is not None)
    for conversation in (whole, cut):
        answers = list(_read_answers(conversation))
        expected = [b"%d" % n for n in range(1, len(conversation.requests) + 1)]
        if conversation.refused is not None:
            expected.append(str(conversation.refused).encode())
        assert answers == expected


def _converse(data: bytes, step: int) -> Conversation:
    conversation = Conversation(MAX_BODY)
    for start in range(0, len(data), step):
        conversation.say(data[start : start + step])
    conversation.end()
    return conversation


def _read_answers(conversation: Conversation) -> Iterator[bytes]:
    """The bodies of all answers as a client reads them; in place of none, what would be there."""
    told = conversation.told
    methods = [request.method for request in conversation.requests]
    for number, method in enumerate([*methods, "GET"], 1):
        if not told:
            return
        client, body = h11.Connection(h11.CLIENT), b""
        client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        client.receive_data(told)
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert isinstance(event, (h11.InformationalResponse, h11.Response, h11.Data))
            body += bytes(event.data) if isinstance(event, h11.Data) else b""
        yield body if method != "HEAD" else b"%d" % number
        told = client.trailing_data[0]
    assert not told
