# SPDX-License-Identifier: GPL-2.0-or-later
"""The rival of bench/footprint.py and ping_http.py: aiohttp's hello world, for scale.

To POST / it answers with a constant that looks like the daemon's reply.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl

from aiohttp import web

from vdsmcinder.config import Listen
from vdsmcinder.transport.tls import server_context

BODY = b'{"jsonrpc":"2.0","id":"00000000-0000-4000-8000-000000000000","result":true}'


async def hello(_: web.Request) -> web.Response:
    """Say hello."""
    return web.Response(text="hello")


async def constant(request: web.Request) -> web.Response:
    """Read a request and answer it as if it had been understood."""
    await request.read()
    return web.Response(body=BODY, content_type="application/json")


async def main() -> None:
    """Serve until killed; says READY when clients can come."""
    arguments = _parse()
    context: ssl.SSLContext | None = None
    if arguments.tls:
        certificate, key, ca = arguments.tls
        context = server_context(Listen(certificate=certificate, key=key, ca=ca))
    application = web.Application()
    application.add_routes([web.get("/", hello), web.post("/", constant)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, arguments.address, arguments.port, ssl_context=context).start()
    print("READY", flush=True)
    await asyncio.Event().wait()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.rivals.http", description=__doc__)
    parser.add_argument("address", nargs="?", default="127.0.0.1")
    parser.add_argument("port", nargs="?", type=int, default=0)
    parser.add_argument("--tls", nargs=3, metavar=("CERT", "KEY", "CA"))
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
