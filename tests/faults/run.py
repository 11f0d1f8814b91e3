# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes a scene through one row: writes, injures, waits for what must be told, heals, compares.

What it finds is an Outcome; times are in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from lab.base import LabError
from lab.guest.records import Comparison
from lab.running import Lab
from tests.faults.calling import MISSING
from tests.faults.scene import Late, Scene, scene, until
from tests.faults.table import Row, Writes
from vdsmcinder.errors import RemoteError

# What a guest must have on disk before the fault and, where its writes go on, during it and after.
RECORDS = 10
RESUME_TIMEOUT_S = 90
# Engines that are told that something is unavailable now call again.
UNAVAILABLE, AGAIN_S = 40, 30
FAILURES = (Late, LabError, OSError, RemoteError, asyncio.TimeoutError)
NOTHING = Comparison(0, (), ())


@dataclass
class Outcome:
    """What came of a row. Times are in seconds.

    records: what the image holds of what the guest wrote. lost_vms: those that ended and should
    not have. told_s: from the fault to what had to be told. silent_s: the longest time without an
    answer. true_s: from the end of the fault to a status that is true. said: what the engine was
    told, in words. broken: what did not hold, one sentence each.
    """

    row: Row
    records: Comparison = NOTHING
    lost_vms: list[str] = field(default_factory=list)
    told_s: float | None = None
    silent_s: float = 0.0
    true_s: float = 0.0
    restarts: int = 0
    said: str = ""
    broken: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Whether everything held."""
        return not self.broken


class Stage:
    """The scene of one row after the other; it is built anew where the last row left it broken."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stack = AsyncExitStack()
        self._scene: Scene | None = None
        self._daemon: object = None

    async def __aenter__(self) -> Stage:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def scene_for(self, row: Row) -> Scene:
        """A scene that is whole, with the daemon that the row wants."""
        if self._scene is None or (row.options, row.environment) != self._daemon:
            with contextlib.suppress(*FAILURES):  # it was broken
                await self._stack.aclose()
            made = scene(self._lab, row.options, row.environment)
            self._scene = await self._stack.enter_async_context(made)
            self._daemon = (row.options, row.environment)
        return self._scene

    def left(self, outcome: Outcome) -> None:
        """Tell how a row left the scene."""
        if not outcome.held or outcome.row.end != "Up":
            self._scene = None


async def run_row(scene: Scene, row: Row, patience: float = 1.0) -> Outcome:
    """Run one row; what does not hold is in the outcome, not raised.

    patience: by what the times that the row allows are multiplied, for a machine that is busy.
    """
    outcome = Outcome(row)
    try:
        await row.prepare(scene)
    except FAILURES as e:
        outcome.broken.append(f"before the fault: {e}")
        await _heal(scene, outcome)
        return outcome
    writer, before = scene.writing, scene.qemus()
    await asyncio.to_thread(writer.begin)
    async with scene.calling:
        await _records(scene, RECORDS, 60)
        restarts, began_s = scene.keeper.restarts, time.monotonic()
        try:
            await row.inject(scene)
            await _during(scene, row, outcome, began_s, patience)
        except FAILURES as e:
            outcome.broken.append(f"during the fault: {e}")
        finally:
            await _heal(scene, outcome)
        healed_s = time.monotonic()
        await _after(scene, row, outcome, healed_s, patience)
        _look_back(scene, outcome, began_s, restarts)
    limit_s = row.silent_s * patience
    if outcome.silent_s > limit_s:
        outcome.broken.append(f"the API was silent for {outcome.silent_s:.1f} s, not {limit_s:g}")
    await _compare(scene, outcome, before)
    return outcome


async def _heal(scene: Scene, outcome: Outcome) -> None:
    try:
        await outcome.row.heal(scene)
    except FAILURES as e:
        outcome.broken.append(f"while it was undone: {e}")


async def _stands_still(scene: Scene, within_s: float) -> bool:
    """Whether no record comes for a second; those of before may still be on their way here."""
    until_s = time.monotonic() + within_s
    count, since_s = scene.writing.acknowledged(), time.monotonic()
    while time.monotonic() - since_s < 1:
        if time.monotonic() > until_s:
            return False
        await asyncio.sleep(0.05)
        if scene.writing.acknowledged() != count:
            count, since_s = scene.writing.acknowledged(), time.monotonic()
    return True


async def _during(
    scene: Scene, row: Row, outcome: Outcome, began_s: float, patience: float
) -> None:
    if row.told is not None:
        look, limit_s = row.told.look, row.told.within_s * patience
        await until(lambda: look(scene), row.told.what, limit_s)
        outcome.told_s = time.monotonic() - began_s
    if row.plugs is not None:
        await _plug(scene, row.plugs)
    if row.writes is Writes.GO_ON:
        await _records(scene, RECORDS, 30 * patience)
    stands = row.writes is not Writes.STALL or await _stands_still(scene, 10 * patience)
    before = scene.writing.acknowledged()
    await asyncio.sleep(row.hold_s)
    if row.writes is Writes.STALL and (not stands or scene.writing.acknowledged() > before):
        outcome.broken.append("the guest went on writing, so the fault did not happen")


async def _plug(scene: Scene, code: int) -> None:
    try:
        await scene.plug_and_unplug()
    except RemoteError as e:
        if e.code != code:
            raise
    else:
        if code:
            raise Late(f"a disk was plugged, code {code} was to be expected")


async def _after(
    scene: Scene, row: Row, outcome: Outcome, healed_s: float, patience: float
) -> None:
    """The status becomes true, writes go on, and nobody has to repair anything by hand."""

    async def true() -> bool:
        return await scene.statuses() == (row.end, "Up") and await scene.is_ready()

    try:
        await until(true, f"the status to be {row.end} and all to be well", row.true_s * patience)
        outcome.true_s = time.monotonic() - healed_s
        if row.end == "Up":
            await _records(scene, RECORDS, RESUME_TIMEOUT_S)
            await asyncio.to_thread(scene.writing.stop)
            await until(lambda: _plugged_and_unplugged(scene), "a disk to be plugged", AGAIN_S)
    except FAILURES as e:
        outcome.broken.append(f"afterwards: {e}")


async def _plugged_and_unplugged(scene: Scene) -> bool:
    """False where the daemon says to call again, as when not all of a cluster is back yet."""
    try:
        await scene.plug_and_unplug()
    except RemoteError as e:
        if e.code != UNAVAILABLE:
            raise
        return False
    return True


async def _records(scene: Scene, more: int, timeout_s: float) -> None:
    wanted = scene.writing.acknowledged() + more

    async def written() -> bool:
        return scene.writing.acknowledged() >= wanted

    await until(written, f"the guest to write {more} more records", timeout_s)


def _look_back(scene: Scene, outcome: Outcome, began_s: float, restarts: int) -> None:
    outcome.silent_s = scene.calling.longest_silence_s(began_s, time.monotonic())
    outcome.restarts = scene.keeper.restarts - restarts
    outcome.said = _said(scene, began_s)
    unanswered = scene.calling.outcomes(began_s)["no answer"]
    if unanswered:
        outcome.broken.append(f"{unanswered} calls got neither an answer nor a closed connection")


def _said(scene: Scene, began_s: float) -> str:
    """What the engine was told: events of the VMs, and how its calls came out."""
    names = {scene.writing.id: "VM", scene.bystander: "other VM"}
    last = dict.fromkeys(names, "Up")
    words: list[str] = []
    others = 0
    for heard in scene.calling.events(began_s):
        if heard.event["method"].startswith(MISSING):
            words.append("a secret is missing")
        for vm_id, told in heard.event["params"].items():
            if not isinstance(told, dict) or "status" not in told:
                continue
            if vm_id not in names:
                others += 1
            elif told["status"] != last[vm_id]:
                last[vm_id] = told["status"]
                reason = told.get("exitReason", told.get("pauseCode"))
                more = "" if reason is None else f" ({reason})"
                words.append(f"{names[vm_id]} {told['status']}{more}")
    if others:
        words.append(f"{others} events of VMs besides")
    counted = [f"{n} {what}" for what, n in scene.calling.outcomes(began_s).most_common()]
    return "; ".join([*words, ", ".join(counted)])


async def _compare(scene: Scene, outcome: Outcome, before: dict[str, int]) -> None:
    outcome.records = await asyncio.to_thread(scene.judge)
    if outcome.records.lost:
        lost = len(outcome.records.lost)
        outcome.broken.append(f"{lost} of {outcome.records.acknowledged} records are lost")
    if outcome.row.end == "Down":
        before.pop(scene.writing.id)
    now, kept = scene.qemus(), set(before) - scene.dismissed
    outcome.lost_vms = [vm_id for vm_id in kept if now.get(vm_id) != before[vm_id]]
    if outcome.lost_vms:
        outcome.broken.append(f"{len(outcome.lost_vms)} VMs are lost or run twice")
