# SPDX-License-Identifier: GPL-2.0-or-later
"""The rival of bench/ping.py: what a STOMP server costs in asyncio before it does any work.

It finds the end of each frame and answers it with the same MESSAGE, whatever the frame says. Runs
as a process of its own, with the daemon's TLS settings.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl

from vdsmcinder.config import Listen
from vdsmcinder.transport.tls import server_context

BODY = b'{"jsonrpc":"2.0","id":"00000000-0000-4000-8000-000000000000","result":true}'
REPLY = (
    b"MESSAGE\nsubscription:replies\ndestination:jms.topic.vdsm_responses\n"
    b"content-type:application/json\nmessage-id:1\ncontent-length:%d\n\n%b\0" % (len(BODY), BODY)
)


class Constant(asyncio.Protocol):
    """One connection; each frame is answered as soon as its end is found."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        end = data.find(b"\0")
        while end >= 0:
            self._transport.write(REPLY)
            end = data.find(b"\0", end + 1)


class Gathered(Constant):
    """The same, but all frames that arrive together are answered with one write."""

    def data_received(self, data: bytes) -> None:
        self._transport.write(REPLY * data.count(b"\0"))


async def main() -> None:
    """Serve until killed; says READY when clients can come."""
    arguments = _parse()
    context: ssl.SSLContext | None = None
    if arguments.tls:
        certificate, key, ca = arguments.tls
        context = server_context(Listen(certificate=certificate, key=key, ca=ca))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        Gathered if arguments.gather else Constant, arguments.address, arguments.port, ssl=context
    )
    print("READY", flush=True)
    await server.serve_forever()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.rivals.stomp", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--gather", action="store_true", help="answer what came together at once")
    parser.add_argument("--tls", nargs=3, metavar=("CERT", "KEY", "CA"))
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
