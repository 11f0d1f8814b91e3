# SPDX-License-Identifier: GPL-2.0-or-later
"""An incoming migration as a state machine: events in, actions out; TABLE, at the end, is all.

It is pure: no asyncio, no libvirt, no clock; the time comes in with the events, in seconds of the
monotonic clock. Who may run the VM when is told in virt/vm/migration.py. In post-copy libvirt lets
it run while the rest of its memory is on its way: it is Up then, and its migration is not over.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping, Sequence

from vdsmcinder.errors import MigrationFailed, VdsmCinderError
from vdsmcinder.virt.migration.common.backoff import Backoff
from vdsmcinder.virt.migration.common.table import Due, Note, Row, Wake, take_in
from vdsmcinder.virt.migration.incoming import events as ev
from vdsmcinder.virt.migration.incoming.events import Seen
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.lifecycle import Change

# All in seconds. A source says that its QEMU process has ended some milliseconds before libvirt
# here may be done.
WHOLE_S = 10.0
# Between two tries to let it run.
LOOK_S = 0.2
# libvirt begins to bring a VM so soon after it was announced, or its source has changed its mind.
COMES_S = 5.0
# By then a source whose daemon was restarted, or that could not be reached, has been heard of; from
# then on it is asked,
SILENT_S = 15.0
# with pauses of so long at most.
MOST_RETRY_S = 30.0
_FENCED = """vdsm-cinder call VM.migrationConclude vmID={vm_id} params='{{"verdict": "fenced"}}'"""


class State(enum.Enum):
    """How far it has come."""

    EXPECTED = "it was announced, and libvirt has no domain of it"
    COMING = "libvirt takes it in"
    WHOLE = "all of it is here, and it waits for its source to say that it may run"
    SILENT = "the same, and its source has not said anything for long"
    POST_COPY = "its guest runs here, and not all of its memory is here"
    ARRIVED = "it runs here, and nothing of it is on its source"
    FAILED = "it does not run here, and will not"


class IncomingMachine:
    """One migration to this host. source: where it comes from, in words.

    state: how far it has come.
    """

    def __init__(self, vm_id: str, name: str, source: str) -> None:
        self.state = State.EXPECTED
        self._vm_id = vm_id
        self._name = name
        self._source = source
        # Until when something may last, in seconds of the monotonic clock; None for nothing.
        self._comes_by_s: float | None = None
        self._expires_s = 0.0
        self._late = ""
        self._speaks_by_s: float | None = None
        self._runs_by_s: float | None = None
        self._try_at_s: float | None = None
        self._ask_at_s: float | None = None
        self._pauses = Backoff(MOST_RETRY_S)
        self._unheard = ""
        self._asked = False
        self._destroyed = False
        self._last_look = False
        self._killed = False

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done for it."""
        return self.state in (State.ARRIVED, State.FAILED)

    @property
    def came(self) -> bool:
        """Whether libvirt has, or had, a domain of it."""
        return self.state is not State.EXPECTED

    @property
    def remedy(self) -> str:
        """What to do for a verb that it keeps from the VM, as the end of a sentence."""
        if self.state is State.POST_COPY:
            return "it runs already: call again when the rest of its memory has come"
        if self.state not in (State.WHOLE, State.SILENT):
            return "call again when it has arrived; VM.migrateCancel on the other host ends that"
        return (
            "have vdsm-cinderd run there, which lets it run; or, if that host is lost for good, "
            f"see that it is off and call: {_FENCED.format(vm_id=self._vm_id)}"
        )

    @property
    def trouble(self) -> str:
        """That it has waited for long, and what to do, as a sentence; empty if it has not."""
        if self.state is not State.SILENT:
            return ""
        unheard = f" ({self._unheard})" if self._unheard else ""
        return (
            f"VM {self._vm_id} ({self._name}) has come whole from {self._source} and stands still, "
            f"for that host has not said yet that it may run{unheard}; {self.remedy}"
        )

    @property
    def verdict(self) -> VdsmCinderError | None:
        """What a source is answered that says too late that it may run; None if it does run."""
        return None if self.state is State.ARRIVED else self._did_not_arrive()

    def receive(self, event: ev.Event, now_s: float) -> Sequence[ev.Action]:
        """What is to be done now. Raises IllegalEvent, and nothing has changed then."""
        actions = take_in(self, TABLE, event, now_s)
        times = (self._comes_by_s, self._speaks_by_s, self._try_at_s, self._ask_at_s)
        due = [at_s for at_s in times if at_s is not None]
        if self.over or not due:
            return actions
        return [*actions, Wake(max(min(due) - now_s, 0.0))]

    # How it comes

    def _announced(self, event: ev.Announced, now_s: float) -> list[ev.Action]:
        self._comes_by_s = self._expires_s = now_s + event.within_s
        self._late = f"it did not come within {event.within_s:g} s"
        return []

    def _destroy(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        # Ended now, without a QEMU process, it would come later.
        if not self._destroyed:
            self._destroyed = True
            self._comes_by_s = min(now_s + COMES_S, self._expires_s)
            self._late = "it was destroyed here before it came"
        return []

    def _comes(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        self.state = State.COMING
        self._comes_by_s = None
        return self._try(event, now_s)

    def _whole(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        self.state = State.WHOLE
        self._comes_by_s = None
        self._speaks_by_s = now_s + SILENT_S
        return self._try(event, now_s)

    def _due(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        if self._comes_by_s is not None and now_s >= self._comes_by_s:
            return self._is_late(now_s)
        if self._speaks_by_s is not None and now_s >= self._speaks_by_s:
            self.state = State.SILENT
            self._speaks_by_s = None
            told = Note(logging.WARNING, self.trouble)
            return [told, ev.AskSource(), *self._try(event, now_s)]
        if self._ask_at_s is not None and now_s >= self._ask_at_s:
            self._ask_at_s = None
            return [ev.AskSource(), *self._try(event, now_s)]
        return self._try(event, now_s)

    def _is_late(self, now_s: float) -> list[ev.Action]:
        if not self._destroyed or now_s >= self._expires_s:
            return self._fail(self._late)
        # On a host that is busy QEMU takes longer to start; libvirt has a domain by then.
        self._last_look = True
        self._comes_by_s = min(now_s + COMES_S, self._expires_s)
        return [ev.Look()]

    def _is_it_coming(self, event: ev.Looked, now_s: float) -> list[ev.Action]:
        if event.seen is Seen.ABSENT and self._last_look:
            return self._fail(self._late)
        if event.seen in (Seen.ABSENT, Seen.GONE) and self._destroyed:
            return []
        return self._judge(event, now_s)

    def _ignore(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        return []

    def _look(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        return [ev.Look()]

    def _judge(self, event: ev.Looked, now_s: float) -> list[ev.Action]:
        """libvirt may have ended what came, or have let it run, and not have told."""
        if event.seen in (Seen.ABSENT, Seen.GONE):
            # Of what was announced and has not come libvirt has none.
            expected = event.seen is Seen.ABSENT and not self.came
            return [] if expected else self._ended(ev.Ended(event.change), now_s)
        if event.seen is Seen.RUNS_EARLY:
            return [] if self.state is State.POST_COPY else self._run_early(known=False)
        if self.state is State.POST_COPY or event.seen is Seen.RUNS:
            return self._arrive()
        if event.seen is Seen.WHOLE and self.state not in (State.WHOLE, State.SILENT):
            return self._whole(event, now_s)
        return self._try(event, now_s)

    # Its source is asked

    def _source_says(self, event: ev.SourceSays, now_s: float) -> list[ev.Action]:
        self._unheard = ""
        self._ask_at_s = now_s + self._pauses.pause_s()
        return [ev.GiveUp("its source keeps it")] if event.kept else []

    def _source_silent(self, event: ev.SourceSilent, now_s: float) -> list[ev.Action]:
        self._unheard = event.why
        self._ask_at_s = now_s + self._pauses.pause_s()
        return []

    # Post-copy

    def _runs_early(self, event: ev.RunsEarly, now_s: float) -> list[ev.Action]:
        if self.state is State.POST_COPY:
            actions = self._try(event, now_s)
        else:
            actions = [*self._run_early(known=True), *self._try(event, now_s)]
        text = (
            f"{self._name} runs here and waits for the rest of its memory, which does not come; "
            "its source sees to that"
        )
        return [*actions, *([Note(logging.WARNING, text)] if event.waits else [])]

    def _run_early(self, *, known: bool) -> list[ev.Action]:
        self.state = State.POST_COPY
        self._comes_by_s = self._speaks_by_s = self._ask_at_s = None
        text = f"{self._name} runs here, and its memory follows from {self._source}"
        return [ev.Began(known), Note(logging.INFO, text), ev.Arrive()]

    def _changes(self, event: ev.Whole | ev.Runs | ev.Told, now_s: float) -> list[ev.Action]:
        """Its guest has run: what libvirt tells is for the VM, and may be that all has come."""
        if isinstance(event, ev.Runs) and event.all_came:
            return self._arrive()
        told: list[ev.Action] = [] if event.change is None else [ev.Apply(event.change)]
        return [*told, ev.Look(), *self._try(event, now_s)]

    # Its source says that it may run

    def _ask(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        self._asked = True
        self._runs_by_s = now_s + WHOLE_S
        return [ev.TryToRun(self.state is State.POST_COPY)]

    def _try(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        """Something is new: it may be whole now."""
        self._try_at_s = None
        return [ev.TryToRun(self.state is State.POST_COPY)] if self._runs_by_s is not None else []

    def _not_yet(self, event: ev.NotYet, now_s: float) -> list[ev.Action]:
        text = f"{self._name} could not be let run: {event.why}"
        told = [Note(logging.WARNING, text)] if event.why else []
        if self._runs_by_s is None:
            return [*told]
        if now_s >= self._runs_by_s:
            return [*told, *self._give_up(event, now_s)]
        self._try_at_s = now_s + LOOK_S
        return [*told]

    def _give_up(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        if self._runs_by_s is None:
            return []
        self._runs_by_s = self._try_at_s = None
        if self.state is State.POST_COPY:
            self._killed = True
            return [ev.Kill()]
        return self._reply(self._did_not_arrive())

    def _not_possible(self, event: ev.NotKilled | ev.NotPossible, _now_s: float) -> list[ev.Action]:
        return self._reply(event.why)

    def _did_not_arrive(self) -> VdsmCinderError:
        return MigrationFailed(
            f"VM {self._vm_id} did not arrive whole on this host, so it cannot run here"
        )

    def _reply(self, error: VdsmCinderError | None) -> list[ev.Action]:
        asked, self._asked, self._runs_by_s = self._asked, False, None
        return [ev.Reply(error)] if asked else []

    # How it ends

    def _runs(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        return [ev.Began(known=True), *self._arrive()]

    def _let_run(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        return self._arrive() if self.state is State.POST_COPY else self._runs(event, now_s)

    def _arrive(self) -> list[ev.Action]:
        """What libvirt tells next, such as an I/O error, is for the VM itself."""
        up = [] if self.state is State.POST_COPY else [ev.Arrive()]
        self.state = State.ARRIVED
        text = f"{self._name} has arrived from {self._source}"
        return [
            Note(logging.INFO, text),
            *up,
            ev.Read(),
            *self._reply(None),
            ev.Release(ok=True),
        ]

    def _drop(self, event: ev.Dropped, now_s: float) -> list[ev.Action]:
        if self.state is State.POST_COPY:
            return self._ended(ev.Ended(), now_s)
        return self._fail(event.why)

    def _ended(self, event: ev.Ended | ev.Killed, _now_s: float) -> list[ev.Action]:
        """There is no QEMU process of it here any more."""
        if self.state is not State.POST_COPY:
            return self._fail("libvirt ended it here: its copying broke off")
        self.state = State.FAILED
        how = event.change if isinstance(event, ev.Ended) else None
        text = f"{self._name} ended here before all of its memory had come"
        # Killed for that, it has not ended by itself.
        change: Change = lifecycle.POSTCOPY_FAILED if self._killed else how or lifecycle.QEMU_LOST
        return [
            Note(logging.WARNING, text),
            ev.Apply(change, asked=self._killed),
            ev.CleanUp(undefine=False),
            *self._reply(self._did_not_arrive()),
            ev.Release(ok=False),
        ]

    def _fail(self, why: str) -> list[ev.Action]:
        clean_up = [ev.CleanUp(undefine=True)] if self.came else []
        self.state = State.FAILED
        text = f"{self._name} did not arrive from {self._source}: {why}"
        return [
            Note(logging.WARNING, text),
            ev.Apply(lifecycle.DID_NOT_ARRIVE, asked=True),
            *clean_up,
            *self._reply(self._did_not_arrive()),
            ev.Release(ok=False),
        ]


# How to read TABLE: in the state of a row, an event of the type that begins a line is taken in by
# the method that follows. Then stand the states to which it may lead; where there are none, and in
# other cases, the state stays. A row that begins with ** has the lines of that name as well, but
# for those that it has itself. What is in no line of a row cannot happen there: IllegalEvent.
_M, _S = IncomingMachine, State

_ANYWHERE: Row = {
    ev.Stirred: (_M._look,),
    ev.Ended: (_M._ended, _S.FAILED),
    ev.RunsEarly: (_M._runs_early, _S.POST_COPY),
    ev.Dropped: (_M._drop, _S.FAILED),
    ev.RunAsked: (_M._ask,),
    ev.LetRun: (_M._let_run, _S.ARRIVED),
    ev.NotYet: (_M._not_yet,),
    ev.NotThere: (_M._give_up,),
    ev.NotPossible: (_M._not_possible,),
    ev.DestroyAsked: (_M._ignore,),
    ev.Told: (_M._try,),
    ev.Comes: (_M._try,),
}

TABLE: Mapping[State, Row] = {
    _S.EXPECTED: {
        **_ANYWHERE,
        ev.Announced: (_M._announced,),
        ev.Comes: (_M._comes, _S.COMING),
        ev.Whole: (_M._whole, _S.WHOLE),
        ev.Runs: (_M._runs, _S.ARRIVED),
        ev.Looked: (_M._is_it_coming, _S.WHOLE, _S.POST_COPY, _S.ARRIVED, _S.FAILED),
        ev.DestroyAsked: (_M._destroy,),
        Due: (_M._due, _S.FAILED),
    },
    _S.COMING: {
        **_ANYWHERE,
        ev.Whole: (_M._whole, _S.WHOLE),
        ev.Runs: (_M._runs, _S.ARRIVED),
        ev.Looked: (_M._judge, _S.WHOLE, _S.POST_COPY, _S.ARRIVED, _S.FAILED),
        Due: (_M._due,),
    },
    _S.WHOLE: {
        **_ANYWHERE,
        ev.Whole: (_M._try,),
        ev.Runs: (_M._runs, _S.ARRIVED),
        ev.Looked: (_M._judge, _S.POST_COPY, _S.ARRIVED, _S.FAILED),
        Due: (_M._due, _S.SILENT),
    },
    _S.SILENT: {
        **_ANYWHERE,
        ev.Whole: (_M._try,),
        ev.Runs: (_M._runs, _S.ARRIVED),
        ev.Looked: (_M._judge, _S.POST_COPY, _S.ARRIVED, _S.FAILED),
        ev.SourceSays: (_M._source_says,),
        ev.SourceSilent: (_M._source_silent,),
        Due: (_M._due,),
    },
    _S.POST_COPY: {
        **_ANYWHERE,
        ev.Whole: (_M._changes,),
        ev.Runs: (_M._changes, _S.ARRIVED),
        ev.Told: (_M._changes,),
        ev.Looked: (_M._judge, _S.ARRIVED, _S.FAILED),
        ev.Killed: (_M._ended, _S.FAILED),
        ev.NotKilled: (_M._not_possible,),
        Due: (_M._due,),
    },
    _S.ARRIVED: {},
    _S.FAILED: {},
}
