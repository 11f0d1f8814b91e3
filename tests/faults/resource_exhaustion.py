# SPDX-License-Identifier: GPL-2.0-or-later
"""What a daemon can run out of: room on disk, file descriptors, memory, time, a valid certificate.

Each takes the Scene that it happens to.
"""

from __future__ import annotations

import asyncio
import calendar
import contextlib
import itertools
import resource
import signal
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from lab.engine import new_id
from tests.faults.scene import Scene, until
from vdsmcinder.client.pki import certificates
from vdsmcinder.errors import RemoteError

# Where libvirt keeps what it knows of domains: those that are defined, and those that run.
STATE = ("/etc/libvirt/qemu", "/run/libvirt/qemu")
FILLER = "faults-filler"
CREATE_FAILED = 9
REASONS = ("Read-only file system", "No space left on device")

CLOCK = "/run/vdsm-cinder-faults-clock"
# The dynamic linker knows what $LIB is on this machine. CLOCK_MONOTONIC is never stepped.
STEPPED_CLOCK: Mapping[str, str] = {
    "LD_PRELOAD": "/usr/$LIB/faketime/libfaketime.so.1",
    "FAKETIME_TIMESTAMP_FILE": CLOCK,
    "FAKETIME_NO_CACHE": "1",
    "DONT_FAKE_MONOTONIC": "1",
}
HOUR_S = 3600

CERTIFICATE_S = 2
# Beyond what the process has: enough for small answers, not for what is asked for in exhaust().
SPARE_BYTES = 4 * 1024**2
LARGE_BYTES = 2 * 1024**2

MANY = 100


# Where libvirt keeps its state


async def make_state_read_only(scene: Scene) -> None:
    """As after an error of the file system below it."""
    for path in STATE:
        scene.host.run(["mount", "--bind", path, path])
        scene.host.run(["mount", "-o", "remount,bind,ro", path])


async def make_state_writable(scene: Scene) -> None:
    """Take that back."""
    for path in STATE:
        scene.host.run(["umount", path])


async def move_state(scene: Scene) -> None:
    """Put libvirt's state on file systems of its own, which can be filled."""
    for path in STATE:
        copy = f"cp -a {path}/. /mnt/ && mount --move /mnt {path}"
        scene.host.run(["sh", "-ec", f"mount -t tmpfs -o size=16m,mode=755 state /mnt; {copy}"])


async def fill_state(scene: Scene) -> None:
    """Leave not a byte free."""
    for path in STATE:
        scene.host.run(["sh", "-c", f"cat /dev/zero >{path}/{FILLER} 2>/dev/null || true"])


async def free_state(scene: Scene) -> None:
    """Make room again."""
    for path in STATE:
        scene.host.run(["rm", "-f", f"{path}/{FILLER}"])


async def create_is_refused(scene: Scene) -> bool:
    """Whether VM.create says why it cannot be, and leaves nothing."""
    vm_id = new_id()
    try:
        await scene.engine.create(scene.engine.flat(vm_id, memSize=64))
    except RemoteError as e:
        vms = await scene.engine.call("Host.getVMList", onlyUUID=True)
        said = any(reason in e.message for reason in REASONS)
        return e.code == CREATE_FAILED and said and vm_id not in vms
    await scene.engine.destroy(vm_id)
    return False


# File descriptors and memory


async def exhaust_files(scene: Scene) -> None:
    """Let the daemon open nothing more."""
    pid = scene.daemon.process.pid_outside
    _limit(pid, resource.RLIMIT_NOFILE, _lowest_free_file(pid))


async def allow_files(scene: Scene) -> None:
    """Take that back."""
    _unlimit(scene, resource.RLIMIT_NOFILE)


async def nobody_new_is_accepted(scene: Scene) -> bool:
    """Whether a client that connects now gets no answer, while one that is connected does."""
    return not await scene.health() and await scene.engine.call("Host.ping2")


async def exhaust_memory(scene: Scene) -> None:
    """Let the daemon have hardly any more memory than it has."""
    pid = scene.daemon.process.pid_outside
    _limit(pid, resource.RLIMIT_AS, _size_bytes(pid) + SPARE_BYTES)


async def allow_memory(scene: Scene) -> None:
    """Take that back."""
    _unlimit(scene, resource.RLIMIT_AS)


async def memory_is_short(scene: Scene) -> bool:
    """Whether the daemon cannot do what takes much memory, and says so or is restarted."""
    calls = [scene.calling.call("Host.echo", {"message": "x" * LARGE_BYTES}) for _ in range(8)]
    return set(await asyncio.gather(*calls)) != {"answered"}


def _lowest_free_file(pid: int) -> int:
    taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return next(number for number in itertools.count() if number not in taken)


def _size_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmSize:"))


def _limit(pid: int, what: int, soft: int) -> None:
    _, hard = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, hard))


def _unlimit(scene: Scene, what: int) -> None:
    # A daemon that was restarted meanwhile has no limit.
    if scene.daemon.runs:
        pid = scene.daemon.process.pid_outside
        _, hard = resource.prlimit(pid, what)
        resource.prlimit(pid, what, (hard, hard))


# Time


async def step_clock_forward(scene: Scene) -> None:
    """An hour, for the daemon and its Ceph workers."""
    _set_clock(scene, f"+{HOUR_S}")


async def step_clock_back(scene: Scene) -> None:
    """An hour back, to what it was."""
    _set_clock(scene, "+0")


def _set_clock(scene: Scene, offset: str) -> None:
    scene.host.path(CLOCK).write_text(f"{offset}\n")


async def clock_is_wrong(scene: Scene) -> bool:
    """Whether the daemon takes it for an hour later than it is."""
    stats = await scene.engine.call("Host.getStats")
    told = calendar.timegm(time.strptime(stats["dateTime"], "%Y-%m-%dT%H:%M:%S GMT"))
    return abs(told - time.time() - HOUR_S) < 60


# The host's certificate


async def let_certificate_expire(scene: Scene) -> None:
    """Put one in force that is valid for a moment more; returns when it is not any more."""
    _shorten(scene)
    scene.daemon.reload()
    await asyncio.sleep(CERTIFICATE_S)


async def renew_certificate(scene: Scene) -> None:
    """As vdsm-cinder pki renew does: the files, and a reload."""
    _restore(scene)
    scene.daemon.reload()
    await until(lambda: _accepted(scene), "the renewed certificate to be in force", 10)


def _shorten(scene: Scene) -> None:
    pki, mine = scene.daemon.pki, scene.daemon.pki.identity(scene.host.name).cert
    authority = certificates.Authority(
        x509.load_pem_x509_certificate(pki.ca.read_bytes()),
        certificates.key_of(pki.ca.with_suffix(".key").read_bytes(), "the lab's CA"),
    )
    _backup(scene).write_bytes(mine.read_bytes())
    old = x509.load_pem_x509_certificate(mine.read_bytes())
    days = CERTIFICATE_S / 86400
    public = certificates.public_key(old, "the host's certificate")
    short = authority.sign(certificates.Wish.like(old), public, days)
    mine.write_bytes(short.public_bytes(serialization.Encoding.PEM))


def _restore(scene: Scene) -> None:
    scene.daemon.pki.identity(scene.host.name).cert.write_bytes(_backup(scene).read_bytes())


async def expiry_is_told(scene: Scene) -> bool:
    """Whether health says it, a new client is not let down unawares, and one inside is served."""
    reasons = (await scene.health()).get("reasons", [])
    told = any("has expired" in reason for reason in reasons)
    return told and not await _accepted(scene) and await scene.engine.call("Host.ping2")


async def _accepted(scene: Scene) -> bool:
    with contextlib.suppress(ssl.SSLCertVerificationError):
        await scene.another_client()
        return True
    return False


def _backup(scene: Scene) -> Path:
    return scene.daemon.directory / "certificate.pem"


# Many VMs


async def make_many(scene: Scene) -> None:
    """A hundred VMs more, whose processors stand still, so that they cost memory alone."""
    ids = [new_id() for _ in range(MANY)]
    params = [
        scene.engine.flat(vm_id, memSize=16, launchPaused="true", vmName=f"many-{vm_id}")
        for vm_id in ids
    ]
    for some in params:
        await scene.engine.create(some)
    await until(lambda: _counted(scene, "Paused"), f"{MANY} VMs to be there", 300)


async def kill_daemon_of_many(scene: Scene) -> None:
    """kill -9; returns when nothing of what it knew can be asked of it any more."""
    scene.daemon.process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(scene.daemon.process.wait)


async def many_are_known(scene: Scene) -> bool:
    """Whether the daemon knows them all; the first HTTP client would keep it from its work."""
    return await _counted(scene, "Paused")


async def remove_many(scene: Scene) -> None:
    """Remove them again."""
    await scene.connect()
    for vm in await scene.engine.call("Host.getVMList"):
        if vm["status"] == "Paused":
            await scene.engine.destroy(vm["vmId"])
            scene.dismissed.add(vm["vmId"])


async def _counted(scene: Scene, status: str) -> bool:
    vms: list[dict[str, Any]] = await scene.asked("Host.getVMList") or []
    return len([vm for vm in vms if vm["status"] == status]) == MANY
