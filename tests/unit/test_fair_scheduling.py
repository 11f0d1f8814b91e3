# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns: one in each pass of the loop, behind what came in meanwhile, in the order of asking."""

from __future__ import annotations

import asyncio
import socket

from vdsmcinder.fair_scheduling import Turns


async def test_turns_come_in_order_and_may_be_asked_for_again() -> None:
    turns, log = Turns(), []
    done = asyncio.Event()

    def work(name: str, times: int) -> None:
        log.append(name)
        if times > 1:
            turns.ask(lambda: work(name, times - 1))
        elif len(log) == 5:
            done.set()

    turns.ask(lambda: work("a", 3))
    turns.ask(lambda: work("b", 2))
    await done.wait()
    assert log == ["a", "b", "a", "b", "a"]


async def test_what_has_come_in_is_served_between_two_turns() -> None:
    turns = Turns()
    log: list[str | bytes] = []
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def begin() -> None:
        log.append("turn")
        theirs.send(b"x")
        turns.ask(end)

    def end() -> None:
        log.append("turn")
        done.set()

    loop.add_reader(ours, lambda: log.append(ours.recv(1)))
    turns.ask(begin)
    await done.wait()
    assert log == ["turn", b"x", "turn"]
    loop.remove_reader(ours)
    ours.close()
    theirs.close()


async def test_a_turn_that_fails_or_is_given_up_keeps_nobody_waiting() -> None:
    turns, problems = Turns(), []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(context["exception"]))
    turns.ask([].pop)
    given_up = asyncio.ensure_future(turns.next())
    await asyncio.sleep(0)
    given_up.cancel()
    await turns.next()
    assert [type(e) for e in problems] == [IndexError]
