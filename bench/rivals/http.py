# SPDX-License-Identifier: GPL-2.0-or-later
"""A rival of bench/footprint.py: aiohttp's hello world, for scale."""

from __future__ import annotations

import asyncio

from aiohttp import web


async def hello(_: web.Request) -> web.Response:
    """Say hello."""
    return web.Response(text="hello")


async def main() -> None:
    """Serve on any free port until killed."""
    application = web.Application()
    application.add_routes([web.get("/", hello)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print("READY", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
