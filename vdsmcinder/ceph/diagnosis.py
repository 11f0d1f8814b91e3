# SPDX-License-Identifier: GPL-2.0-or-later
"""What an operator is told of a disk on Ceph: each step from the monitors to the image's users.

A look needs a key and no daemon. The faults are those that a VM's start meets.
"""

from __future__ import annotations

import asyncio
import platform
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vdsmcinder.ceph.fault_kinds import FULL, KINDS, PASSING, CephFault, Kind
from vdsmcinder.ceph.findings import Check, Finding
from vdsmcinder.ceph.image_use import Claim, ImageUse, clients
from vdsmcinder.ceph.monitor_survey import Survey, all_silent, in_words, survey
from vdsmcinder.ceph.workers import Account, Key, Workers, result
from vdsmcinder.tasks import Tasks

# Who looks at the image for a moment, as `rbd` does, is still seen then.
_LOOKS, _PAUSE_S = 3, 0.3
# By bit; https://docs.ceph.com/en/latest/man/8/rbd names them.
_FEATURES = (
    *("layering", "striping", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"),
    *("journaling", "data-pool", "operations", "migrating", "non-primary", "dirty-cache"),
)


# What is checked, in this order: each step needs those before it.
SECRET = Check("secret")
MONITORS = Check("monitors")
USER = Check("user")
POOL = Check("pool")
IMAGE = Check("image")
FEATURES = Check("features")
USE = Check("use")
STEPS = (SECRET, MONITORS, USER, POOL, IMAGE, FEATURES, USE)

# At which step a fault is met; the image, unless it stands here.
_MET_AT: Mapping[Kind, Check] = {
    **dict.fromkeys((Kind.SILENT, Kind.OVERRUN, Kind.NO_MONITORS, Kind.BAD_NAMES), MONITORS),
    **dict.fromkeys((Kind.KEY, Kind.NO_KEY, Kind.NO_AUTH, Kind.BLOCKLISTED, Kind.ENDED), USER),
    **dict.fromkeys((Kind.NO_POOL, Kind.NO_NAMESPACE), POOL),
    Kind.FEATURES: FEATURES,
    **dict.fromkeys((*PASSING, Kind.LOCKED), USE),
}
_NOT_REACHED = "what comes before it has to be mended first"


@dataclass(frozen=True)
class Patient:
    """A disk to be looked at. open_here: its VM runs on this host, and so has the image open.

    secret: uuid of the libvirt secret with the user's key, None without one.
    """

    account: Account
    use: ImageUse
    secret: str | None = None
    open_here: bool = False

    @property
    def register(self) -> str:
        """The command that brings the user's key."""
        user = self.account.user
        return f"ceph auth get-key client.{user} | vdsm-cinder register-secret {self.secret}"


async def diagnose(patient: Patient, workers: Workers, key: Key | None) -> list[Finding]:
    """Each step from the monitors on. key: without it, what needs it is not checked.

    Takes no longer than two requests to Ceph may (config.py, ceph.timeout_s); never raises for
    what Ceph does.
    """
    surveying = survey(patient.account.hosts, workers.timeout_s)
    if key is None and patient.account.user is not None:
        return _without_key(patient, await surveying)
    async with Tasks("diagnosis") as tasks:
        telling = tasks.begin(_told(patient, workers, key), "image")
        found = await surveying
        if all_silent(found):
            return _up_to(patient, found, CephFault(Kind.SILENT, monitors=found))
        told = await telling
    if isinstance(told, CephFault):
        told.monitors = found
        return _up_to(patient, found, told)
    return [*_reached(patient, found, told), _features(patient, told), _users(patient, told)]


async def _told(patient: Patient, workers: Workers, key: Key | None) -> dict[str, Any] | CephFault:
    """What the worker tells of the image; what may pass is waited for."""
    for _ in range(_LOOKS):
        try:
            told = await _inspect(patient, workers, key)
        except CephFault as e:
            if e.kind not in PASSING:
                return e
            outcome: dict[str, Any] | CephFault = e
        else:
            outcome = told
            if patient.open_here or patient.use.held_elsewhere(told) is None:
                return told
        await asyncio.sleep(_PAUSE_S)
    return outcome


async def _inspect(patient: Patient, workers: Workers, key: Key | None) -> dict[str, Any]:
    """Ask as a start does: with a claim, which tells whether the user may write."""
    mine = Claim(str(uuid.uuid4()), f"a check on {platform.node()}")
    claim = None if patient.open_here else mine
    question = patient.use.question(claim)
    try:
        (answer,) = await workers.ask(patient.account, key, "inspect", images=[question])
        told: dict[str, Any] = result(answer)
    finally:
        if question["claim"] is not None:
            with suppress(CephFault):
                path = patient.use.path
                await workers.ask(
                    patient.account, key, "release", path=path, claim=question["claim"]
                )
    return told


def _without_key(patient: Patient, found: Survey) -> list[Finding]:
    if all_silent(found):
        return _up_to(patient, found, CephFault(Kind.SILENT, monitors=found))
    missing = f"the key of Ceph user {patient.account.user} is not at hand"
    return [
        _monitors(found),
        USER.unknown(missing, patient.register),
        *(step.unknown(missing) for step in STEPS[STEPS.index(POOL) :]),
    ]


def _up_to(patient: Patient, found: Survey, fault: CephFault) -> list[Finding]:
    """The steps up to a fault, and that what comes behind it was not reached."""
    met = _MET_AT.get(fault.kind, IMAGE)
    behind = [step.unknown(_NOT_REACHED) for step in STEPS[STEPS.index(met) + 1 :]]
    passed = [*_reached(patient, found, None), FEATURES.unknown("they were not looked at")]
    before = passed[: STEPS.index(met) - STEPS.index(MONITORS)]
    return [*before, _of_fault(patient, met, fault), *behind]


def _of_fault(patient: Patient, step: Check, fault: CephFault) -> Finding:
    user = patient.account.user
    register = fault.kind in (Kind.KEY, Kind.NO_KEY)
    remedy = patient.register if register else fault.remedy(user)
    return step.wrong(fault.cause(user), remedy)


def _reached(patient: Patient, found: Survey, told: Mapping[str, Any] | None) -> list[Finding]:
    """The steps to the image, which can be had."""
    user, path = patient.account.user, patient.use.path
    *pool, _ = path.split("/")
    image = path if patient.use.snapshot is None else f"{path}@{patient.use.snapshot}"
    size = "" if told is None else f", {_size(told['size'])}"
    fit = POOL.ok(f"{'/'.join(pool)} exists")
    accepted = USER.ok(f"Ceph accepts user {user} and its key" if user else "none is needed")
    return [
        _monitors(found),
        accepted if told is None else _rights(patient, told) or accepted,
        fit if told is None else _room(patient, told) or fit,
        IMAGE.ok(f"{image} exists{size}"),
    ]


def _rights(patient: Patient, told: Mapping[str, Any]) -> Finding | None:
    """What the user cannot do, though it can open the image."""
    if not patient.use.lacks_blocklist(told):
        return None
    dead = patient.use.left_locked(told)
    fault = CephFault(Kind.DENIED_BLOCKLIST, dead)
    found = _of_fault(patient, USER, fault)
    return found if dead else USER.warning(found.message, found.remedy)


def _room(patient: Patient, told: Mapping[str, Any]) -> Finding | None:
    """What is to be said of a pool of the image that lacks room."""
    fault = patient.use.full(told)
    if fault is not None:
        return _of_fault(patient, POOL, fault)
    for pool, room in told["room"].items():
        found = _of_fault(patient, POOL, CephFault(KINDS[room], pool))
        return POOL.warning(found.message, found.remedy)
    return None


def _monitors(found: Survey) -> Finding:
    if not found:
        return MONITORS.ok("those that ceph.conf names let us in")
    answering = [monitor for monitor, why in found.items() if why is None]
    words = f"{len(answering)} of {len(found)} answer: {in_words(found)}"
    if not answering:
        return MONITORS.wrong(words, "check them and the network to them")
    if len(answering) < len(found):
        return MONITORS.warning(words, "check the others and the network to them")
    return MONITORS.ok(f"all answer: {', '.join(monitor.name for monitor in found)}")


def _features(patient: Patient, told: Mapping[str, Any]) -> Finding:
    fault = patient.use.unfit(told)
    if fault is not None and fault.kind not in (Kind.DENIED_BLOCKLIST, *FULL):
        return _of_fault(patient, FEATURES, fault)
    names = [name for bit, name in enumerate(_FEATURES) if told["features"] & 1 << bit]
    return FEATURES.ok(f"librbd supports them: {', '.join(names) or 'it has none'}")


def _users(patient: Patient, told: Mapping[str, Any]) -> Finding:
    who = clients(told["watchers"])
    if patient.open_here:
        return _of_running(patient, told, who)
    fault = patient.use.held_elsewhere(told)
    if fault is not None:
        return _of_fault(patient, USE, fault)
    if who:
        return USE.ok(f"open by {who}, as that of a shared or read-only disk may be")
    return USE.ok("nobody has it open")


def _of_running(patient: Patient, told: Mapping[str, Any], who: str) -> Finding:
    """Of a disk whose VM runs. A read-only one may have no watcher."""
    if not who and not patient.use.readonly:
        return USE.warning(
            "nobody has it open, although the VM runs",
            "see 'ceph osd blocklist ls', and QEMU's log in /var/log/libvirt/qemu",
        )
    if len(told["watchers"]) > 1 and not patient.use.readonly and patient.use.exclusive:
        return USE.warning(
            f"open by {who}, of which one is this VM; migration or a copy under way explains it",
            "find out who the other one is, before both write",
        )
    return USE.ok(f"open by {who or 'nobody who says so'}, as it is while the VM runs")


def _size(size_bytes: int) -> str:
    unit, name = (2**30, "GiB") if size_bytes >= 2**30 else (2**20, "MiB")
    return f"{size_bytes / unit:.4g} {name}"
