# SPDX-License-Identifier: GPL-2.0-or-later
"""What an outgoing migration knows, and what it does about each event; machine.py says when.

It is pure, as machine.py tells. Each method takes in one event, and gives the actions that follow
from it; it may set the state, to one of those that the table allows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from vdsmcinder.errors import MigrationFailed, NoSuchVM, VdsmCinderError, VMExists
from vdsmcinder.virt.migration.common.backoff import Backoff
from vdsmcinder.virt.migration.common.table import Note, Wake
from vdsmcinder.virt.migration.outgoing import events as ev
from vdsmcinder.virt.migration.outgoing.copy_progress import CopyProgress
from vdsmcinder.virt.migration.outgoing.reasons import PAUSED_EARLY, Reasons
from vdsmcinder.virt.migration.outgoing.recovery import HANGS_S, STILL_S, Recovery
from vdsmcinder.virt.migration.outgoing.states import PHASES, Here, Plan, State
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.lifecycle import Change
from vdsmcinder.virt.vm.migration import Handover, Phase, Progress, Verdict

# All in seconds. Between two looks at a domain of which libvirt tells nothing new.
LOOK_S = 0.5
# Between two tries with a host that takes in others now.
BUSY_RETRY_S = 1.0
# How long libvirt may take to tell why a QEMU process has ended.
REASON_S = 5.0
# How long the other host may take to say whether it let the VM run, as if this one were off.
ASK_S = 15.0


class Transitions:
    """One migration away from this host.

    state: how far it has come. may_run_there: the guest was stopped to be handed over, or may have
    been. failure: why the VM stayed or was lost, once it is over.
    """

    def __init__(self, plan: Plan, now_s: float) -> None:
        self.state = State.WAITING
        self.may_run_there = False
        self.failure: VdsmCinderError | None = None
        self._plan = plan
        self._copy = CopyProgress(
            plan.name, plan.schedule, plan.stall_timeout_s, plan.progress_interval_s
        )
        self._backoff = Backoff()
        self._began_s = now_s
        # What is known of the VM here, and of the other host.
        self._stopped_s: float | None = None
        self._halted = False
        self._doomed = False
        self._qemu_gone = False
        self._known_there = False
        self._said_run = False
        self._dropped_there = False
        self._calling = False
        self._reasons = Reasons(plan.vm_id, plan.address)
        self._recovery = Recovery()
        # Of the state that it is in: until when it may last, and whether its trouble was told.
        self._until_s = 0.0
        self._told = False
        self._interrupted = False

    @property
    def phase(self) -> Phase:
        """The state in an engine's terms."""
        return PHASES.get(self.state, Phase.CONCLUDING)

    @property
    def cancelled(self) -> bool:
        """Whether it was told to end."""
        return self._reasons.cancelled

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done for the VM here."""
        return self.state is State.OVER

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self._copy.progress

    # What is only kept in mind

    def _ignore(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        return []

    def _stand(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        self._stopped_s = self._stopped_s or now_s
        self.may_run_there = True
        return []

    def _runs_there(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        self._stand(event, now_s)
        return self._in_post_copy()

    def _halt(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        self._halted = True
        return []

    def _has_ended(self, event: ev.Ended, _now_s: float) -> list[ev.Action]:
        self._reasons.has_ended(event.change)
        self._halted = True
        return []

    def _is_gone(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        self._qemu_gone = True
        return []

    def _is_cancelled(self, event: ev.Event, _now_s: float) -> list[ev.Action]:
        self._reasons.cancel()
        self._halted = True
        self._doomed = self._doomed or isinstance(event, ev.Doomed)
        return []

    def _call_ended(self, event: ev.CallEnded, _now_s: float) -> list[ev.Action]:
        self._calling = False
        if event.why is not None:
            self._reasons.call_failed(event.why, event.words)
        return []

    def _figures(self, event: ev.Figures, now_s: float) -> list[ev.Action]:
        return self._copy.found(event.progress, now_s)

    def _limit_not_set(self, event: ev.LimitNotSet, _now_s: float) -> Sequence[ev.Action]:
        return self._copy.limit_not_set(event.why)

    # Before it is copied

    def _offer(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        self.state = State.OFFERED
        return [ev.Offer()]

    def _reached(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        self._known_there = True
        return []

    def _wait(self, event: ev.Busy, _now_s: float) -> list[ev.Action]:
        self.state = State.WAITING
        told = self._note_once(logging.INFO, f"waits: {event.why}", separator=" ")
        return [*told, ev.Answer(), Wake(BUSY_RETRY_S)]

    def _mark(self, event: ev.Accepted, _now_s: float) -> list[ev.Action]:
        self.state = State.MARKING
        return [ev.Mark(event.encrypted)]

    def _begin(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        if self._halted:
            return self._call_off(event, now_s)
        self.state = State.COPYING
        self._copy.began(now_s)
        self._calling = True
        return [ev.Answer(), ev.Watch(), ev.Copy(self._plan.schedule.init)]

    def _take_up(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        self.state = State.COPYING
        self._copy.began(now_s)
        # If it was stopped for the handover, that was told while nobody listened.
        self.may_run_there = True
        return [ev.Watch(), ev.Look()]

    def _refuse(self, event: ev.Refused | ev.NotMarked, now_s: float) -> list[ev.Action]:
        self._reasons.refuse(event.why)
        return self._call_off(event, now_s)

    def _stop_before(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        """Whatever ends it before it is copied."""
        if isinstance(event, ev.Ended):
            self._has_ended(event, now_s)
        elif isinstance(event, (ev.Cancelled, ev.Doomed)):
            self._is_cancelled(event, now_s)
        return self._call_off(event, now_s)

    def _call_off(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        self.state = State.CALLING_OFF
        return [ev.Stay(owes=ev.Owe(Verdict.DROP) if self._known_there else None)]

    def _called_off(self, event: ev.Stays | ev.NotKnown, _now_s: float) -> list[ev.Action]:
        now = event.change if isinstance(event, ev.Stays) else lifecycle.RUNNING
        io_error = event.io_error if isinstance(event, ev.Stays) else ""
        why = self._reasons.refusal or self._explain(io_error, PAUSED_EARLY)
        owed = [ev.Owe(Verdict.DROP)] if self._known_there else []
        return [*owed, *self._fail(self._reasons.ended or now, why), ev.Answer(why)]

    # While it is copied

    def _abort(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        self._is_cancelled(event, now_s)
        return [ev.Abort()]

    def _advance(self, event: ev.Figures, now_s: float) -> list[ev.Action]:
        actions = self._figures(event, now_s)
        if self._copy.stalls(now_s):
            limit_s, to = self._plan.stall_timeout_s, self._plan.address
            text = f"{self._plan.name} has not come nearer to {to} for {limit_s:g} s"
            actions += [Note(logging.WARNING, text), ev.Abort()]
        return actions

    def _pass(self, event: ev.Passed, _now_s: float) -> list[ev.Action]:
        return self._copy.passed(event.iteration)

    def _limit(self, event: ev.LimitAsked, _now_s: float) -> list[ev.Action]:
        self._copy.limit(event.mib_s)
        return []

    def _limit_set(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        self._copy.limit(None)
        return []

    def _stand_watched(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        self._stand(event, now_s)
        return [ev.WatchClosely()]

    def _moves_there(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        self.state = State.POST_COPY
        return [*self._runs_there(event, now_s), *self._stir(event, now_s)]

    def _stir(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        """What libvirt's call does is known when it comes back; what another daemon's does, now."""
        if isinstance(event, ev.Ended):
            self._has_ended(event, now_s)
        return [] if self._calling else [ev.Look()]

    def _look(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        if isinstance(event, ev.CallEnded):
            self._call_ended(event, now_s)
        elif isinstance(event, ev.Ended):
            self._has_ended(event, now_s)
        return [ev.Look()]

    def _due(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        if not self._calling:
            return [ev.Look()]
        if self._copy.still_s(now_s) < HANGS_S:
            return []
        return self._note(
            logging.ERROR,
            f"QEMU on host {self._plan.address} has not gone on within {HANGS_S:g} s; it may wait "
            "itself for memory that is missing, and the VM be lost: VM.destroy on either host ends "
            "it",
        )

    def _judge(self, event: ev.Looked, now_s: float) -> list[ev.Action]:
        if event.here is Here.GONE:
            return self._gone(event, now_s)
        if event.here in (Here.POST_COPY, Here.BROKEN_OFF):
            told = self._in_post_copy()
            if event.here is Here.POST_COPY and self._copy.still_s(now_s) < STILL_S:
                self.state = State.POST_COPY
                return [*told, Wake(LOOK_S)]
            return [*told, *self._break_off()]
        if event.here in (None, Here.BUSY):
            return [Wake(LOOK_S)]
        self._interrupted = event.here is Here.INTERRUPTED
        return self._goes_on_here(event, now_s)

    def _goes_on_here(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        """Nothing is copied any more: the copy must not run, or has to be asked about."""
        if not self.may_run_there:
            return self._stay(event, now_s)
        if self._plan.handover is Handover.LIBVIRT:
            self.state = State.SUSPENDING
            where = self._plan.address
            text = f"{self._plan.name} is stopped until host {where} says whether it runs there"
            return [Note(logging.WARNING, text), ev.Suspend()]
        self.state = State.CHECKING
        self._until_s = now_s + ASK_S
        return self._ask(Verdict.DROP, ASK_S)

    # Post-copy

    def _in_post_copy(self) -> list[ev.Action]:
        published = self._copy.runs_there()
        if not published:
            return []
        text = f"{self._plan.name} runs on host {self._plan.address}, and its memory follows"
        return [Note(logging.INFO, text), *published]

    def _break_off(self) -> list[ev.Action]:
        self.state = State.BROKEN_OFF
        pause_s = self._recovery.pause_s(self.progress.transferred)
        why = self._reasons.call_words or "no data moves"
        text = (
            f"{self._plan.name} runs on host {self._plan.address}, but the rest of its memory does "
            f"not get there ({why}); trying on"
        )
        told = [Note(logging.WARNING, text)] if self._recovery.is_news() else []
        return [*told, Wake(pause_s)]

    def _go_on(self, event: ev.Objected | ev.Unreached, now_s: float) -> list[ev.Action]:
        self.state = State.POST_COPY
        if not isinstance(event.why, VMExists):
            self._recovery.not_heard()
            return [ev.Look()]
        self._calling = True
        dead = self._recovery.runs_there(self._copy.still_s(now_s), now_s)
        return [ev.ResumeCopy(break_off=dead), Wake(HANGS_S)]

    def _lose(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        self.state = State.LOST
        return self._destroy(event, now_s)

    def _lost(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        return self._fail(lifecycle.POSTCOPY_FAILED, self._reasons.lost(), asked=True)

    # The QEMU process here has ended

    def _gone(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        self._qemu_gone = True
        if self._doomed:
            return self._find_why(now_s)
        self.state = State.LETTING_RUN
        self._said_run = True
        return self._ask(Verdict.RUN)

    def _runs_now(self, event: ev.Answered, now_s: float) -> list[ev.Action]:
        self.state = State.CLOSING
        self._downtime(now_s, event.running_ms)
        # libvirt notices some tenths of a second after us that the process has ended.
        self._until_s = now_s + self._plan.call_timeout_s
        look = [] if self._calling else [ev.Look()]
        return [*look, Wake(self._plan.call_timeout_s)]

    def _closed(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        return self._left(now_s)

    def _close_when_gone(self, event: ev.Looked, now_s: float) -> list[ev.Action]:
        return self._left(now_s) if event.here is Here.GONE else self._wake_by_then(now_s)

    def _close_when_due(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        return self._left(now_s) if now_s >= self._until_s else [ev.Look(), *self._at_last(now_s)]

    def _may_not_run(self, event: ev.Objected, now_s: float) -> list[ev.Action]:
        if not isinstance(event.why, (NoSuchVM, MigrationFailed)):
            return self._again(event, now_s)
        self._reasons.refuse(event.why)
        self._said_run = False
        return self._find_why(now_s)

    def _doomed_now(self, event: ev.Doomed, now_s: float) -> list[ev.Action]:
        self._is_cancelled(event, now_s)
        return self._find_why(now_s)

    def _find_why(self, now_s: float) -> list[ev.Action]:
        self.state = State.FINDING_WHY
        self._until_s = now_s + REASON_S
        return [*self._owed(), ev.Look(), Wake(REASON_S)]

    def _owed(self) -> list[ev.Action]:
        """At once: until the other host has ended its copy, libvirt lets nobody remove the VM."""
        if self._dropped_there:
            return []
        if self.progress.post_copy:
            return [ev.Owe(Verdict.RUN, may_run=True)]
        by_itself = self._plan.handover is Handover.LIBVIRT and self.may_run_there
        return [ev.Owe(Verdict.DROP, may_run=by_itself or self._said_run)]

    def _found_why(self, event: ev.Looked, now_s: float) -> list[ev.Action]:
        if event.here is Here.GONE:
            return self._has_ended_here(event.change)
        return self._wake_by_then(now_s)

    def _why_due(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        if now_s >= self._until_s:
            return self._has_ended_here(None)
        return [ev.Look(), *self._at_last(now_s)]

    def _has_ended_here(self, change: Change | None) -> list[ev.Action]:
        refusal = None if self._reasons.ended_by_itself else self._reasons.refusal
        why = refusal or self._explain()
        if self.progress.post_copy:
            return self._fail(lifecycle.POSTCOPY_FAILED, why, asked=True)
        change = self._reasons.ended or change
        if change in (None, lifecycle.MIGRATED_AWAY, lifecycle.NOT_RUNNING):
            return self._fail(lifecycle.QEMU_LOST, why)
        assert change is not None
        return self._fail(change, why, asked=True)

    # The QEMU process here goes on

    def _stay(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        self.state = State.STAYING
        text = "it was left standing by libvirt at its handover; it is continued"
        told = self._note(logging.WARNING, text) if self._interrupted else []
        return [*told, ev.Stay(resume=self._interrupted, owes=self._drop())]

    def _stay_for_it_is_dropped(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        self._dropped_there = True
        return self._stay(event, now_s)

    def _is_it_there(self, event: ev.Objected, now_s: float) -> list[ev.Action]:
        if isinstance(event.why, VMExists):
            return self._give_up(event, now_s)
        return self._again(event, now_s)

    def _check_due(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        if now_s >= self._until_s:
            return self._stay(event, now_s)
        return [ev.Say(Verdict.DROP), *self._at_last(now_s)]

    def _stays(self, event: ev.Stays, _now_s: float) -> list[ev.Action]:
        drop = self._drop()
        owed = [] if drop is None else [drop]
        return [*owed, *self._fail(event.change, self._explain(event.io_error))]

    def _drop(self) -> ev.Owe | None:
        """What is owed when the VM goes on here."""
        if self._dropped_there:
            return None
        return ev.Owe(Verdict.DROP, may_yield=self.may_run_there)

    def _look_anew(self, event: ev.NotKnown, now_s: float) -> list[ev.Action]:
        if self._qemu_gone:
            return self._gone(event, now_s)
        self.state = State.COPYING
        text = f"whether it goes on here is not known yet: {event.why}"
        return [*self._note(logging.WARNING, text), Wake(LOOK_S)]

    # It stands here, and the copy may run

    def _contest(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        self.state = State.CONTESTED
        return self._ask(Verdict.DROP)

    def _say_drop(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        # A host that the VM has begun to run on refuses that: so it is asked, too.
        return [ev.Say(Verdict.DROP)]

    def _say_run(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        return [ev.Say(Verdict.RUN)]

    def _resume(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        self._dropped_there = True
        if self._doomed:
            return self._find_why(now_s)
        self.state = State.RESUMING
        return [ev.Look()]

    def _resume_if_there(self, event: ev.Looked, now_s: float) -> list[ev.Action]:
        if event.here is Here.GONE:
            return self._find_why(now_s)
        return [ev.Stay(resume=True)]

    def _not_resumed(self, event: ev.NotKnown, _now_s: float) -> list[ev.Action]:
        text = f"it cannot be continued yet: {event.why}"
        return [*self._note(logging.WARNING, text), Wake(LOOK_S)]

    def _give_up(self, event: ev.Event, now_s: float) -> list[ev.Action]:
        self.state = State.GIVING_UP
        return self._destroy(event, now_s)

    def _destroy(self, _event: ev.Event, _now_s: float) -> list[ev.Action]:
        return [ev.DestroyHere()]

    def _not_destroyed(self, event: ev.NotDestroyed, _now_s: float) -> list[ev.Action]:
        text = f"the QEMU process that it left here cannot be ended yet: {event.why}"
        return [*self._note(logging.WARNING, text), Wake(LOOK_S)]

    def _given_up(self, _event: ev.Event, now_s: float) -> list[ev.Action]:
        self._downtime(now_s, None)
        return self._left(now_s)

    # How it ends

    def _downtime(self, now_s: float, running_ms: int | None) -> None:
        if self._stopped_s is not None:
            self._copy.handed_over(now_s - self._stopped_s, running_ms)

    def _left(self, now_s: float) -> list[ev.Action]:
        self.state = State.OVER
        to = lifecycle.migrated_to(self._plan.address)
        return [*self._copy.done(), ev.Left(now_s - self._began_s), ev.Release(to)]

    def _fail(
        self, change: Change, why: VdsmCinderError, *, asked: bool = False
    ) -> list[ev.Action]:
        self.state = State.OVER
        self.failure = why
        level = logging.INFO if self.cancelled else logging.WARNING
        text = f"{self._plan.name} stays: {why.message}"
        return [Note(level, text), ev.Release(change, asked)]

    def _explain(self, io_error: str = "", otherwise: str = "") -> VdsmCinderError:
        return self._reasons.explain(self._copy.ended_for, io_error, otherwise)

    # What is repeated

    def _ask(self, verdict: Verdict, at_most_s: float | None = None) -> list[ev.Action]:
        self._told = False
        self._backoff.restart()
        return [ev.Say(verdict), *([] if at_most_s is None else [Wake(at_most_s)])]

    def _again(self, event: ev.Objected | ev.Unreached, now_s: float) -> list[ev.Action]:
        pause_s = self._backoff.pause_s()
        if self.state is State.CHECKING:
            pause_s = min(pause_s, max(self._until_s - now_s, 0.0))
        text = f"{event.why.message}; trying on"
        return [*self._note_once(logging.WARNING, text), Wake(pause_s)]

    def _wake_by_then(self, now_s: float) -> list[ev.Action]:
        return [Wake(min(LOOK_S, max(self._until_s - now_s, 0.0)))]

    def _at_last(self, now_s: float) -> list[ev.Action]:
        return [Wake(max(self._until_s - now_s, 0.0))]

    def _note(self, level: int, text: str) -> list[ev.Action]:
        return [Note(level, f"{self._plan.name}: {text}")]

    def _note_once(self, level: int, text: str, separator: str = ": ") -> list[ev.Action]:
        if self._told:
            return []
        self._told = True
        return [Note(level, f"{self._plan.name}{separator}{text}")]
