# SPDX-License-Identifier: GPL-2.0-or-later
"""A lane: so many answers at once, the others in line, and none begun for who is gone."""

from __future__ import annotations

import asyncio

import pytest

from vdsmcinder.tasks import Tasks
from vdsmcinder.transport import request_queue
from vdsmcinder.transport.request_queue import Lane


class Answers:
    """Answers that are there when the gate is open."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.delivered: list[bytes | None] = []
        self.gate = asyncio.Event()

    async def answer(self, number: int) -> bytes:
        self.begun.append(number)
        await self.gate.wait()
        if number == 0:
            raise ValueError("this one fails")
        return b"%d" % number


@pytest.fixture(autouse=True)
def two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_queue, "RUNNING_AT_ONCE", 2)
    monkeypatch.setattr(request_queue, "HELD_BYTES", 100)


async def test_a_few_run_and_the_others_wait_in_line() -> None:
    requests, answers, room = Tasks("requests"), Answers(), []
    line = Lane(requests, lambda: room.append(line.length))
    for number in range(5):
        line.add(answers.answer(number), answers.delivered.append, 40)
    await asyncio.sleep(0)
    assert (answers.begun, line.length, line.full) == ([0, 1], 5, True)
    answers.gate.set()
    await requests.finish(5)
    assert answers.begun == [0, 1, 2, 3, 4]
    assert answers.delivered == [b"1", b"2", b"3", b"4"]
    assert (line.length, line.full, room) == (0, False, [2])


async def test_what_waits_for_who_is_gone_is_not_begun() -> None:
    requests, answers = Tasks("requests"), Answers()
    line = Lane(requests, lambda: None)
    for number in range(1, 5):
        line.add(answers.answer(number), answers.delivered.append, 1)
    await asyncio.sleep(0)
    line.close()
    answers.gate.set()
    await requests.finish(5)
    assert answers.begun == [1, 2]
    assert answers.delivered == [b"1", b"2"]
