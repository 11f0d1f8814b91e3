# SPDX-License-Identifier: GPL-2.0-or-later
"""A state machine that does things to VMs at once, and looks whether everybody agrees afterwards.

The world is libvirt's test driver or QEMU. What is to be expected is in the tables below and in
vdsmcinder/virt/vm/status.py.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from vdsmcinder.errors import RemoteError
from vdsmcinder.virt.vm.status import TRANSITIONS, Status

T = TypeVar("T")

LOOK_S = 0.02
LASTING = ("Up", "Paused", "Down")
IMAGES = ("one", "two")
VMS = (0, 1)
OK, NO_SUCH_VM, EXISTS, IS_DOWN, CREATE_FAILED, UNEXPECTED = 0, 1, 4, 6, 9, 16
PLUG_FAILED, UNPLUG_FAILED, RESET_FAILED = 45, 46, 90

# How to read it: what a verb answers when nothing else is under way, by the status of the VM; None:
# there is no VM. Of disks that are plugged already, or are not, see Interleavings._expected.
ALONE: Mapping[str, Mapping[str | None, int]] = {
    "create": {None: OK, "Up": EXISTS, "Paused": EXISTS, "Down": EXISTS},
    "destroy": {None: NO_SUCH_VM, "Up": OK, "Paused": OK, "Down": OK},
    "shutdown": {None: NO_SUCH_VM, "Up": OK, "Paused": OK, "Down": IS_DOWN},
    "reset": {None: NO_SUCH_VM, "Up": OK, "Paused": OK, "Down": IS_DOWN},
    "pause": {None: NO_SUCH_VM, "Up": OK, "Paused": OK, "Down": IS_DOWN},
    "cont": {None: NO_SUCH_VM, "Up": OK, "Paused": OK, "Down": IS_DOWN},
    "plug": {None: NO_SUCH_VM, "Up": OK, "Paused": OK, "Down": IS_DOWN},
    "unplug": {None: NO_SUCH_VM, "Up": OK, "Paused": OK, "Down": IS_DOWN},
}
# What a verb may answer besides when others are at work on the VM: it has to say one of these.
MEANWHILE: Mapping[str, frozenset[int]] = {
    "create": frozenset({CREATE_FAILED}),
    "reset": frozenset({RESET_FAILED}),
    "pause": frozenset({UNEXPECTED}),
    "cont": frozenset({UNEXPECTED}),
    "plug": frozenset({PLUG_FAILED}),
    "unplug": frozenset({UNPLUG_FAILED}),
}
ENDING = frozenset({"destroy", "shutdown"})


@dataclass(frozen=True)
class Call:
    """One call of an engine's. vm: which of the VMs. image: of the disk, where there is one."""

    verb: str
    vm: int
    image: str = ""


@dataclass(frozen=True)
class Seen:
    """A VM as libvirt or the API has it: its status, and the images that are plugged."""

    status: str
    images: frozenset[str] = frozenset()


class World(Protocol):
    """What the machine works on.

    lets_go: whether guests let go of disks; those that do not answer code 46 and keep them.
    settle_s: within which time all is quiet.
    others: what somebody else can do to a domain, past the daemon.
    """

    lets_go: bool
    settle_s: float
    others: Sequence[str]

    def run(self, work: Awaitable[T]) -> T:
        """Run it to its end on the world's loop."""

    async def call(self, verb: str, vm_id: str, image: str) -> None:
        """Call a verb as an engine does. Raises RemoteError."""

    async def interfere(self, action: str, vm_id: str) -> None:
        """Do something to a domain past the daemon; what libvirt refuses is not done."""

    async def listed(self) -> Mapping[str, Seen]:
        """The VMs as the API has them."""

    async def defined(self) -> Mapping[str, Seen]:
        """The same as libvirt has them: the domains that are ours."""

    def told(self) -> Iterable[tuple[str, str]]:
        """What events have told since the last time: VM and status."""


_vms = st.sampled_from(VMS)
# Each kind as often as the others: VMs that come and go are where the races are.
calls = st.one_of(
    st.builds(Call, st.just("create"), _vms),
    st.builds(Call, st.just("destroy"), _vms),
    st.builds(Call, st.sampled_from(["plug", "unplug"]), _vms, st.sampled_from(IMAGES)),
    st.builds(Call, st.sampled_from(["cont", "pause", "reset", "shutdown"]), _vms),
)
gaps_s = st.sampled_from([0.0, 0.0, 0.001, 0.005, 0.02])


class Interleavings(RuleBasedStateMachine):
    """Two VMs; a subclass says in which world."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.ids = [str(uuid.uuid4()) for _ in VMS]
        self.seen: dict[str, Seen] = {}
        self.history: dict[str, list[str]] = defaultdict(list)
        self.restarted: set[str] = set()

    @rule(call=calls)
    def alone(self, call: Call) -> None:
        """One call, with nothing else under way."""
        (code,) = self.world.run(self._at_once([(call, 0.0)]))
        assert code == self._expected(call), (call, code, self.seen)
        self.settle()

    @rule(batch=st.lists(st.tuples(calls, gaps_s), min_size=2, max_size=6))
    def at_once(self, batch: list[tuple[Call, float]]) -> None:
        """Several calls, one begun while the others are under way."""
        codes = self.world.run(self._at_once(batch))
        for (call, _), code in zip(batch, codes):
            allowed = {*ALONE[call.verb].values(), *MEANWHILE.get(call.verb, ())}
            assert code in allowed, (call, code, batch)
        for vm in VMS:
            self._judge([(c, code) for (c, _), code in zip(batch, codes) if c.vm == vm], vm)
        self.settle()

    @rule(vm=st.sampled_from(VMS), data=st.data())
    def somebody_else(self, vm: int, data: st.DataObject) -> None:
        """Something happens to a domain past the daemon."""
        if not self.world.others:
            return
        action = data.draw(st.sampled_from(self.world.others))
        if action in ("create", "start"):
            self.restarted.add(self.ids[vm])
        self.world.run(self.world.interfere(action, self.ids[vm]))
        self.settle()

    def teardown(self) -> None:
        for vm_id in self.ids:
            if vm_id in self.seen:
                self.world.run(self.world.call("destroy", vm_id, ""))
        self.settle()
        assert self.seen == {}

    def settle(self) -> None:
        """Wait until API, libvirt and events agree on VMs that do not change.

        A VM that was asked to shut down may be up when it is looked at and down when events are.
        """
        deadline = time.monotonic() + self.world.settle_s
        while True:
            self.seen = self.world.run(self._agreed(deadline))
            for vm_id, status in self.world.told():
                if vm_id in self.ids:
                    self.history[vm_id].append(status)
            last = {vm_id: statuses[-1] for vm_id, statuses in self.history.items()}
            lasting = {vm_id: self._lasting(vm_id) for vm_id in last}
            if last == lasting:
                break
            assert time.monotonic() < deadline, f"events told {last} of VMs that are {lasting}"
        for vm_id, statuses in self.history.items():
            check_history(statuses, vm_id in self.restarted)

    def _lasting(self, vm_id: str) -> str:
        return self.seen[vm_id].status if vm_id in self.seen else "Down"

    async def _agreed(self, deadline: float) -> dict[str, Seen]:
        while True:
            listed, defined = await self.world.listed(), await self.world.defined()
            ours = {vm_id: seen for vm_id, seen in listed.items() if vm_id in self.ids}
            theirs = {vm_id: seen for vm_id, seen in defined.items() if vm_id in self.ids}
            if ours == theirs and all(seen.status in LASTING for seen in ours.values()):
                return ours
            assert time.monotonic() < deadline, f"the API says {ours}, libvirt {theirs}"
            await asyncio.sleep(LOOK_S)

    async def _at_once(self, batch: Sequence[tuple[Call, float]]) -> list[int]:
        tasks = []
        for call, gap_s in batch:
            tasks.append(asyncio.create_task(self._code(call)))
            await asyncio.sleep(gap_s)
        return await asyncio.gather(*tasks)

    async def _code(self, call: Call) -> int:
        try:
            await self.world.call(call.verb, self.ids[call.vm], call.image)
        except RemoteError as e:
            return e.code
        return OK

    def _expected(self, call: Call) -> int:
        seen = self.seen.get(self.ids[call.vm])
        code = ALONE[call.verb][seen.status if seen else None]
        if seen is None or code != OK:
            return code
        if call.verb == "plug" and call.image in seen.images:
            return PLUG_FAILED
        if call.verb == "unplug" and (call.image not in seen.images or not self.world.lets_go):
            return UNPLUG_FAILED
        return code

    def _judge(self, answers: Sequence[tuple[Call, int]], vm: int) -> None:
        """What must hold whatever the order was in which the calls of one VM were served."""
        seen = self.seen.get(self.ids[vm])
        done = Counter(call for call, code in answers if code == OK)
        asked = {call.verb for call, _ in answers}
        if asked and "destroy" not in asked:
            created = done[Call("create", vm)]
            wanted = 1 if seen is None and "create" in asked else 0
            assert created == wanted, f"{created} creates of one VM went well, {wanted} had to"
        if not asked & {"unplug", *ENDING}:
            for image in IMAGES:
                plugged = seen is not None and image in seen.images
                times = done[Call("plug", vm, image)]
                assert times <= (0 if plugged else 1), f"{image} was plugged {times} times more"


def check_history(statuses: Sequence[str], restarted: bool) -> None:
    """Each step of a VM that events told is in the table; after Down comes another VM of its id.

    restarted: somebody else may have started its domain again.
    """
    begun = {Status.POWERING_UP, Status.DOWN}
    again = begun | ({Status.UP, Status.PAUSED} if restarted else set())
    before: Status | None = None
    for status in map(Status, statuses):
        if status is before:
            continue
        legal = begun if before is None else set(TRANSITIONS[before].values()) or again
        assert status in legal, f"{before} was followed by {status} in {statuses}"
        before = status
