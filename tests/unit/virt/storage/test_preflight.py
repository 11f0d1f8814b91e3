# SPDX-License-Identifier: GPL-2.0-or-later
"""When images are refused before they are opened: what is known of others, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.transport.serving import until
from vdsmcinder.ceph.fault_kinds import CephFault
from vdsmcinder.ceph.image_use import Others
from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.ceph.workers import Account
from vdsmcinder.config import Ceph
from vdsmcinder.errors import CreateFailed, ImageNotFound, ResourceUnavailable
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.disk.ceph_images import CephImage, CephImages, UntoldImage
from vdsmcinder.virt.secrets.secret import Secret, SecretName
from vdsmcinder.virt.storage import preflight
from vdsmcinder.virt.storage.consent import Consent
from vdsmcinder.virt.storage.image_locks import Claims
from vdsmcinder.virt.storage.preflight import Preflight

KEY = SecretName("5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d")
VM = "0f0e0d0c-0b0a-4908-8706-050403020100"
FREE = {
    **{"size": 1, "features": 5, "unknown": 0, "watchers": [], "locks": [], "primary": True},
    **{"room": {}, "may_blocklist": True},
}
STRANGER = {"address": "10.0.0.9", "client": 4711, "here": False}
HELD = {**FREE, "watchers": [STRANGER]}
LOCKED = {**FREE, "locks": [{"client": "client.1", "cookie": "backup", "address": "10.0.0.9"}]}
MISSING = {"error": {"kind": "no_image", "text": "no"}}


class Cluster:
    """Workers: what images are found to be, and what was asked of them.

    looks: how often they were looked at.
    """

    def __init__(self, **images: Mapping[str, Any]) -> None:
        self.images = images
        self.looks = 0
        self.asked: list[tuple[str, str]] = []

    async def ask(
        self, account: Account, key: Secret | None, op: str, *_timeout: float, **args: Any
    ) -> Any:
        if op != "inspect":
            self.asked.append((op, args["path"]))
            return None
        self.looks += 1
        return [self._answer(image) for image in args["images"]]

    def _answer(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        found = self.images[asked["path"].rpartition("/")[2]]
        return found if "error" in found else {"result": found}

    def found_down(self, account: Account, fault: CephFault) -> None:
        raise AssertionError(f"{account}: {fault}")


class Keys:
    """Secrets that libvirt has, all of them, and whether the daemon knows their values."""

    def __init__(self, *, known: bool) -> None:
        self._known = known

    async def missing(self, names: object) -> list[SecretName]:
        return []

    def value(self, name: SecretName) -> Secret | None:
        return Secret(b"key") if self._known else None


def image(name: str, disk: str = "vda", **changes: Any) -> CephImage:
    hosts = (MonitorHost("10.0.0.1"),)
    return CephImage(disk, f"volumes/{name}", hosts, user="cinder", secret=KEY, **changes)


class Desk:
    """A preflight of its own, and the keys that it lacked."""

    def __init__(self, cluster: Cluster, mode: str = "enforce", *, key: bool = True) -> None:
        self.lacked: list[SecretName] = []
        self.tasks = Tasks("preflight")
        self.preflight = Preflight(
            cluster,  # type: ignore[arg-type]
            Keys(known=key),  # type: ignore[arg-type]
            Ceph(preflight=mode),
            self.tasks,
            lambda name, _what: self.lacked.append(name),
        )

    async def check(self, *images: CephImage, **more: Any) -> Claims:
        untold = more.pop("untold", ())
        ceph = CephImages(images, tuple(untold), tuple((i.disk, KEY) for i in images))
        claims = await self.preflight.check(ceph, VM, CreateFailed, **more)
        await claims.release()
        return claims


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody lets go of an image here; and the monitors of images without a key answer."""

    async def answering(hosts: tuple[MonitorHost, ...], _timeout_s: float) -> dict[Any, None]:
        return dict.fromkeys(hosts)

    monkeypatch.setattr(preflight, "_PASSING_S", 0)
    monkeypatch.setattr(preflight, "survey", answering)


@pytest.mark.parametrize("mode", ["enforce", "warn"])
@pytest.mark.parametrize(
    "found, words",
    [
        (HELD, "in use elsewhere"),
        (LOCKED, "locked by hand"),
        ({"error": {"kind": "claimed", "text": "VM y on host2"}}, "VM y on host2"),
    ],
)
async def test_who_has_an_image_for_certain_is_never_overlooked(mode, found, words):
    cluster = Cluster(a=FREE, b=found)
    for consent in (Consent(), Consent(unchecked=True)):
        with pytest.raises(CreateFailed, match=words) as refused:
            await Desk(cluster, mode).check(image("a"), image("b", "vdb"), consent=consent)
        assert "disk vdb (volumes/b)" in refused.value.message
    # What was claimed is free again.
    assert ("release", "volumes/a") in cluster.asked


async def test_certainty_comes_before_what_a_warning_lets_pass():
    cluster = Cluster(a=MISSING, b=HELD)
    with pytest.raises(CreateFailed, match="disk vdb"):
        await Desk(cluster, "warn").check(image("a"), image("b", "vdb"))


async def test_other_faults_are_refused_or_warned_of():
    cluster = Cluster(a=MISSING)
    with pytest.raises(ImageNotFound, match=r"disk vda \(volumes/a\)"):
        await Desk(cluster).check(image("a"))
    await Desk(cluster, "warn").check(image("a"))
    await Desk(Cluster(), "off").check(image("a"))


@pytest.mark.parametrize(("room", "why"), [("quota", "its quota is"), ("full", "an OSD of the")])
async def test_a_full_pool_is_named(room, why):
    cluster = Cluster(a={**FREE, "room": {"volumes": room}})
    with pytest.raises(
        ResourceUnavailable, match=rf"\(volumes/a\): pool volumes is full, for {why}"
    ):
        await Desk(cluster).check(image("a"))
    await Desk(cluster, "warn").check(image("a"))
    # QEMU opens it as if it wrote to it.
    with pytest.raises(ResourceUnavailable, match=why):
        await Desk(cluster).check(image("a", readonly=True))
    await Desk(Cluster(a={**FREE, "room": {"data": room}})).check(image("a", readonly=True))
    await Desk(Cluster(a={**FREE, "room": {"volumes": "scarce"}})).check(image("a"))


async def test_a_user_that_may_not_blocklist_is_refused_what_a_dead_client_locked(caplog):
    lock = {"client": "client.7", "cookie": "auto 93", "address": "10.0.0.9"}
    lacking = {**FREE, "may_blocklist": False}
    left = {**lacking, "locks": [lock]}
    words = r"cinder may not blocklist clients, .* \(client.7 at 10.0.0.9 has it locked\); give"
    with pytest.raises(CreateFailed, match=words):
        await Desk(Cluster(a=left)).check(image("a"))
    for fine in (lacking, {**left, "may_blocklist": True}):
        await Desk(Cluster(a=fine)).check(image("a"))
        await Desk(Cluster(a=fine)).check(image("a", readonly=True))
    assert caplog.text.count("disk vda (volumes/a): Ceph user cinder may not blocklist") == 1


async def test_without_the_key_nobody_knows_and_the_key_is_asked_for():
    desk = Desk(Cluster(), key=False)
    with pytest.raises(CreateFailed, match="cannot be seen") as refused:
        await desk.check(image("a"))
    assert refused.value.data["missingSecrets"] == [KEY.uuid]
    assert desk.lacked == [KEY]
    # Unless the request says that it is known, or nothing is to be known.
    await desk.check(image("a"), consent=Consent(unchecked=True))
    await desk.check(image("a", readonly=True), image("b", "vdb", shared=True))
    await Desk(Cluster(), "warn", key=False).check(image("a"))


async def test_an_image_without_exclusive_lock():
    cluster = Cluster(a={**FREE, "features": 1})
    with pytest.raises(CreateFailed, match=r"\(volumes/a\): the image has no feature") as refused:
        await Desk(cluster).check(image("a"), consent=Consent(unchecked=True))
    assert "'rbd feature enable POOL/IMAGE exclusive-lock'" in refused.value.message
    await Desk(cluster).check(image("a"), consent=Consent(unguarded=True))
    await Desk(cluster, "warn").check(image("a"))
    await Desk(cluster).check(image("a", shared=True), image("a", "vdb", shared=True))
    await Desk(cluster).check(image("a", readonly=True))
    await Desk(cluster).check(image("a"), others=Others.SOURCE)
    # Certain is certain.
    held = Cluster(a={**HELD, "features": 1})
    with pytest.raises(CreateFailed, match="in use elsewhere"):
        await Desk(held).check(image("a"), consent=Consent(unguarded=True))


async def test_an_image_that_cannot_be_asked_for():
    untold = [UntoldImage("vdc", "disk vdc: its image is 'x'; expected pool/image")]
    with pytest.raises(CreateFailed, match="disk vdc: its image is 'x'") as refused:
        await Desk(Cluster()).check(untold=untold)
    assert "allowUnchecked" in refused.value.message
    await Desk(Cluster()).check(untold=untold, consent=Consent(unchecked=True))
    await Desk(Cluster(), "warn").check(untold=untold)


@pytest.mark.parametrize("mode", ["enforce", "warn", "off"])
async def test_one_image_twice_in_one_vm_whatever_is_checked(mode):
    cluster = Cluster(a=FREE)
    with pytest.raises(CreateFailed, match=r"disk vdb \(volumes/a\): VM .* as another disk too"):
        await Desk(cluster, mode).check(image("a"), image("a", "vdb"))
    beside = CephImages((image("a"),))
    with pytest.raises(CreateFailed, match="as another disk too"):
        await Desk(cluster, mode).check(image("a", "vdb"), beside=beside)
    await Desk(cluster, mode).check(image("a", shared=True), image("a", "vdb", shared=True))


async def test_a_secret_that_nobody_has_is_told_with_its_disk(monkeypatch):
    async def missing(_self: Keys, names: Any) -> list[SecretName]:
        return list(names)

    monkeypatch.setattr(Keys, "missing", missing)
    with pytest.raises(CreateFailed, match=r"which disk vda \(volumes/a\) needs") as refused:
        await Desk(Cluster(), "off").check(image("a"), image("b", "vdb"))
    assert refused.value.data == {"secret": KEY.uuid, "disk": "vda"}


async def test_what_is_claimed_is_renewed_until_it_is_let_go(monkeypatch):
    monkeypatch.setattr("vdsmcinder.virt.storage.image_locks.RENEW_S", 0.001)
    cluster = Cluster(a=FREE)
    desk = Desk(cluster, "warn")
    ceph = CephImages((image("a"),))
    claims = await desk.preflight.check(ceph, VM, CreateFailed)
    await until(lambda: ("renew", "volumes/a") in cluster.asked, "it was not renewed")
    await claims.release()
    assert cluster.asked[-1] == ("release", "volumes/a")


CLAIMED = {"error": {"kind": "claimed", "text": f"VM {VM} on host2"}}


async def test_what_qemu_has_open_may_be_claimed_yet_by_the_daemon_that_began():
    """That one was killed, so that its claim lapses; of what nobody has open another has one."""
    cluster, ceph = Cluster(a=CLAIMED), CephImages((image("a"),))
    desk = Desk(cluster)
    with pytest.raises(CreateFailed, match=f"being given to another VM just now .VM {VM} on host2"):
        await desk.check(image("a"))
    before = cluster.looks
    async with Tasks("confirm") as tasks:
        claims = desk.preflight.no_claims()
        confirm = desk.preflight.confirm(ceph, VM, claims, CreateFailed)
        confirming = tasks.begin(confirm, "confirm")
        await until(lambda: cluster.looks > before + 1, "it was not looked at once more")
        cluster.images["a"] = FREE
        await confirming
        await claims.release()
    assert cluster.asked[-1] == ("release", "volumes/a")


HERE = {"address": "10.0.0.1", "client": 1, "here": True}


@pytest.mark.parametrize(
    "watchers, elsewhere",
    [([], False), ([HERE], False), ([STRANGER], True), ([HERE, STRANGER], True)],
)
async def test_who_has_the_images_of_a_vm_that_stands(watchers, elsewhere):
    ceph = CephImages((image("a"), image("b", "vdb")))
    desk = Desk(Cluster(a=FREE, b={**FREE, "watchers": watchers}))
    found = await desk.preflight.open_elsewhere(ceph, 10)
    told = "the image of disk vdb (volumes/b) is open on another host (client.4711 at 10.0.0.9)"
    assert found == (told if elsewhere else "")
    assert desk.lacked == []


@pytest.mark.parametrize(
    "changes, mode, key",
    [
        ({"shared": True}, "enforce", True),
        ({"readonly": True}, "enforce", True),
        ({}, "off", True),
        ({}, "enforce", False),
    ],
)
async def test_whose_images_are_not_the_vms_alone_or_cannot_be_asked_for(changes, mode, key):
    desk = Desk(Cluster(a=HELD), mode, key=key)
    assert await desk.preflight.open_elsewhere(CephImages((image("a", **changes),)), 10) == ""


@pytest.mark.parametrize("kind", ["slow", "silent"])
async def test_osds_that_do_not_answer_do_not_tell(kind):
    desk = Desk(Cluster(a={"error": {"kind": kind, "text": "no"}}))
    assert await desk.preflight.open_elsewhere(CephImages((image("a"),)), 10) is None


async def test_a_cluster_that_does_not_answer_does_not_tell(monkeypatch):
    desk, asked = Desk(Cluster(a=HELD)), asyncio.Event()

    async def silent(*_: Any, **_named: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Cluster, "ask", silent)
    assert await desk.preflight.open_elsewhere(CephImages((image("a"),)), 0.01) is None
    assert asked.is_set()
