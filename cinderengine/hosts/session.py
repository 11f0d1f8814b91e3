# SPDX-License-Identifier: GPL-2.0-or-later
"""One host: its session is kept, what it tells is remembered, and it gets its keys.

What is to be done says state.py; this does it. All of it runs in the event loop that it was begun
in.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from cinderengine.errors import EngineError
from cinderengine.hosts import state
from cinderengine.hosts.dialling import Unreached, dial
from cinderengine.hosts.facts import Capabilities, HostFacts, Statistics
from cinderengine.hosts.keys import LATER, Delivery, HostKey
from cinderengine.hosts.state import Checked, Closed, Emptied, Happening, HostMachine, Opened
from cinderengine.model.hosts import Host, HostStatus
from cinderengine.model.ids import now_ms
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp.client import Event, SessionLost, StompSession
from vdsmcinder.tasks import Tasks, within

log = logging.getLogger(__name__)

# As which a host must work with us: oVirt's engines have such numbers.
ENGINE_VERSION = "4.5"
LIBRBD = "librbd1"
# A VM that has ended and that nobody has taken off the host.
_DOWN = "Down"


@dataclasses.dataclass(frozen=True)
class Pace:
    """How often and how long, in seconds.

    look_s: between two looks at statistics and keys. again_s: after one that came too early.
    capabilities_s: their age from which they are asked for anew. patience_s: how long a host may
    say "later" and still count as it did. answer_s: for the answer to a verb. grace_s: how long it
    may be away until it is not responsive.
    """

    look_s: float = 15.0
    again_s: float = 1.0
    capabilities_s: float = 300.0
    patience_s: float = 30.0
    answer_s: float = 30.0
    grace_s: float = state.GRACE_S


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a host's session needs of others.

    context: of TLS, asked for anew for each connection. wanted: the keys that a host must have.
    told: takes each new status with its reason. heard: takes each event of the host's.
    """

    context: Callable[[], ssl.SSLContext]
    wanted: Callable[[str], Awaitable[Sequence[HostKey]]]
    told: Callable[[str, HostStatus, str], None]
    heard: Callable[[str, Event], None] = lambda host_id, event: None
    pace: Pace = Pace()


class HostSession:
    """Keeps one host. facts: what it tells."""

    def __init__(self, host: Host, around: Surroundings, tasks: Tasks) -> None:
        """host: as the database has it now. tasks: whose group is this session's."""
        self.host = host
        self.facts = HostFacts(host.id)
        self._around = around
        self._pace = around.pace
        self._tasks = tasks.group(f"host {host.name}")
        self._machine = HostMachine(host.status, host.reason, grace_s=self._pace.grace_s)
        self._connection: asyncio.Task[None] | None = None
        self._session: StompSession | None = None
        self._due = asyncio.Event()
        self._delivery = Delivery(host.name)
        self._delivering = asyncio.Lock()
        self._capabilities_at_s: float | None = None
        self._later_since_s: float | None = None

    @property
    def status(self) -> HostStatus:
        """In which state it is."""
        return self._machine.status

    @property
    def reason(self) -> str:
        """Why, in a sentence."""
        return self._machine.reason

    def begin(self) -> None:
        """Begin to keep it."""
        self._act(self._machine.begin())

    def take(self, happened: Happening) -> None:
        """Something happened, and what is to be done is begun."""
        self._act(self._machine.take(happened))

    async def close(self) -> None:
        """Hang up; the host stays as it is."""
        await self._tasks.close()

    async def deliver(self, flow_id: str = "") -> bool:
        """Have the host get its keys now; whether it was there for that.

        flow_id: what its log is to call that. Raises KeysRefused with a sentence for each key that
        it does not take. One that is not there gets them when it is back, and before it is up.
        """
        if self._session is None or not self._is_to_have_keys:
            return False
        try:
            missing = await self._deliver(self._session, flow_id)
        except (RemoteError, OSError, TimeoutError):
            # It says "later", or goes away just now: the next look does it.
            return False
        finally:
            # What the host lacks is told, too.
            self._due.set()
        if missing:
            raise KeysRefused(missing)
        return True

    @property
    def _is_to_have_keys(self) -> bool:
        return self.status is not HostStatus.PREPARING_FOR_MAINTENANCE

    async def call(self, verb: str, params: Mapping[str, Any], flow_id: str | None = None) -> Any:
        """The host's answer. Raises RemoteError, SessionLost, TimeoutError; SessionLost if away."""
        if self._session is None:
            raise SessionLost(f"host {self.host.name} is not connected")
        return await self._call(self._session, verb, params, flow_id)

    # --- what is to be done

    def _act(self, actions: Sequence[state.Action]) -> None:
        for action in actions:
            match action:
                case state.Dial(after_s):
                    self._hang_up()
                    self._connection = self._tasks.spawn(self._connect(after_s), "session")
                case state.Look():
                    self._due.set()
                case state.HangUp():
                    self._hang_up()
                case state.Tell(status, reason):
                    log.info("host %s is %s%s", self.host.name, status, reason and f": {reason}")
                    self._around.told(self.host.id, status, reason)

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection is not asyncio.current_task():
            connection.cancel()

    async def _connect(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            await self._converse(await self._dialled())
        except* Unreached as es:
            e = es.exceptions[0]
            assert isinstance(e, Unreached)
            self._over(str(e), refused=e.refused)
        except* EngineError as es:
            self._over(str(es.exceptions[0]))
        except* (OSError, TimeoutError) as es:
            # Both that listen notice at once that it has ended.
            why = str(es.exceptions[0]) or f"no answer within {self._pace.answer_s:g} s"
            self._over(f"{self._ended} ({why}); it is connected anew")
        except* Exception:
            log.exception("host %s", self.host.name)
            self._over(f"{self._ended} by what it told; the engine's log says more")

    @property
    def _ended(self) -> str:
        return f"the session with host {self.host.name} at {self.host.address} ended"

    async def _dialled(self) -> StompSession:
        host, context = self.host, self._around.context()
        return await dial(host.name, host.address, host.port, context)

    async def _converse(self, session: StompSession) -> None:
        """Until the session ends, for whatever reason."""
        self._session = session
        self._capabilities_at_s = self._later_since_s = None
        self._delivery.forget()
        self._know(is_connected=True, heard_ms=now_ms())
        self.take(Opened())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(session))
                group.create_task(self._look_on(session))
        finally:
            session.abort()
            if self._session is session:
                self._session = None
                self._know(is_connected=False)

    def _over(self, sentence: str, *, refused: bool = False) -> None:
        self.take(Closed(sentence, asyncio.get_running_loop().time(), refused))

    # --- while a session stands

    async def _listen(self, session: StompSession) -> None:
        while True:
            event = await session.next_event()
            self.hear(event)
            self._around.heard(self.host.id, event)

    def hear(self, event: Event) -> None:
        """Remember what an event tells, and look at once where it tells that something changed."""
        self._know(heard_ms=now_ms())
        name = str(event.get("method", ""))
        if name.startswith("|virt|VM_status|"):
            self._status_changed(event)
        elif name.startswith("|net|host_conn|"):
            self._capabilities_at_s = None
            self._due.set()
        elif name.startswith("|host|secrets_missing|"):
            self._delivery.forget()
            self._due.set()
        elif name.startswith("|ceph|cluster_status|"):
            self._due.set()

    def _status_changed(self, event: Event) -> None:
        told = event.get("params")
        changed = {
            vm_id: str(of["status"])
            for vm_id, of in (told.items() if isinstance(told, Mapping) else ())
            if isinstance(of, Mapping) and "status" in of
        }
        self._know(vms={**self.facts.vms, **changed})
        if self.status is HostStatus.PREPARING_FOR_MAINTENANCE:
            self._due.set()

    async def _look_on(self, session: StompSession) -> None:
        while True:
            self._due.clear()
            pause_s = self._pace.look_s if await self._look(session) else self._pace.again_s
            with contextlib.suppress(TimeoutError):
                await within(self._due.wait(), pause_s)

    async def _look(self, session: StompSession) -> bool:
        """Look at the host once; False if it said that it is too early."""
        try:
            if self.status is HostStatus.PREPARING_FOR_MAINTENANCE:
                self.take(Emptied(await self._what_holds(session)))
            else:
                self.take(Checked(await self._what_lacks(session)))
            if self._session is session:
                raw = await self._call(session, "Host.getStats", {})
                self._know(statistics=Statistics.read(raw), heard_ms=now_ms())
        except EngineError as e:
            # Of the engine's own: its database, for one. The host is as it was.
            log.warning("host %s: %s", self.host.name, e.detail)
            return False
        except RemoteError as e:
            return self._too_early(e)
        self._later_since_s = None
        return True

    def _too_early(self, e: RemoteError) -> bool:
        now_s = asyncio.get_running_loop().time()
        if self._later_since_s is None:
            self._later_since_s = now_s
        has_patience = now_s - self._later_since_s < self._pace.patience_s
        if e.code not in LATER or not has_patience:
            self.take(Checked(f"host {self.host.name} does not do its part: {e.message}"))
        return False

    async def _what_lacks(self, session: StompSession) -> str:
        """A sentence for what keeps the host from being up; empty if nothing does."""
        await self._see_capabilities(session)
        seen = self.facts.capabilities
        name = self.host.name
        if ENGINE_VERSION not in seen.engines:
            known = ", ".join(seen.engines) or "none"
            return (
                f"host {name} does not work with engines of version {ENGINE_VERSION} (with {known} "
                "it does); install vdsm-cinder there"
            )
        if LIBRBD not in seen.packages:
            return (
                f"host {name} has no librbd, so its virtual machines cannot have disks on Ceph; "
                f"install {LIBRBD} there"
            )
        await self._see_vms(session)
        return await self._deliver(session)

    async def _see_capabilities(self, session: StompSession) -> None:
        now_s = asyncio.get_running_loop().time()
        seen_s = self._capabilities_at_s
        if seen_s is None or now_s - seen_s >= self._pace.capabilities_s:
            raw = await self._call(session, "Host.getCapabilities", {})
            self._know(capabilities=Capabilities.read(raw), heard_ms=now_ms())
            self._capabilities_at_s = now_s

    async def _see_vms(self, session: StompSession) -> None:
        listed = await self._call(session, "Host.getVMList", {})
        self._know(vms={str(vm["vmId"]): str(vm.get("status", "")) for vm in listed})

    async def _deliver(self, session: StompSession, flow_id: str = "") -> str:
        """Have the host have the keys that it must have and no others of ours; what it refuses."""

        async def call(verb: str, params: Mapping[str, Any]) -> Any:
            return await self._call(session, verb, params, flow_id or None)

        # Which ones is asked when it is our turn: an older answer would undo what went before.
        async with self._delivering:
            wanted = await self._around.wanted(self.host.id) if self._is_to_have_keys else ()
            return await self._delivery.deliver(wanted, call)

    async def _what_holds(self, session: StompSession) -> str:
        """A sentence for what keeps the host from maintenance; empty once its keys are gone."""
        await self._see_vms(session)
        running = [vm_id for vm_id, status in self.facts.vms.items() if status != _DOWN]
        if running:
            return (
                f"{len(running)} virtual machines run on host {self.host.name} yet, {running[0]} "
                "for one; end them or move them away"
            )
        return await self._deliver(session)

    async def _call(
        self,
        session: StompSession,
        verb: str,
        params: Mapping[str, Any],
        flow_id: str | None = None,
    ) -> Any:
        return await session.call(verb, params, flow_id, self._pace.answer_s)

    def _know(self, **news: Any) -> None:
        self.facts = dataclasses.replace(self.facts, **news)


class KeysRefused(EngineError):
    """A host did not take, or did not give up, authentication keys."""
