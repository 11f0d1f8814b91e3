# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts and ends the lab: its first process, with which all ends, then network, Ceph, hosts.

What it leaves running is found again by a record in the lab's directory (lab/running.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lab.base import ENGINE_ADDRESS, LabError, lab_dir, run, wait_until
from lab.ceph.cluster import Ceph
from lab.ceph.setup import MONITORS, write_cluster_files
from lab.fetching import fetch
from lab.guest.image import Guest
from lab.host.hypervisor import BRIDGE, BRIDGE_MAC, address_of, make_host
from lab.namespace import Namespace, children, first_of, kill_and_wait
from lab.pki import make_pki
from lab.running import KINDS, Lab, Record, holder
from lab.steps import Step, Steps

TOOLS = (
    *("ceph-mon", "ceph-mgr", "ceph-osd", "rbd", "libvirtd", "virsh", "qemu-system-x86_64"),
    *(
        "busybox",
        "cpio",
        "lz4",
        "mformat",
        "syslinux",
        "ip",
        "openssl",
        "tini",
        "nsenter",
        "setpriv",
    ),
)

NEW_NAMESPACES = ("--mount", "--propagation=unchanged", "--net", "--pid", "--ipc")
# Ceph's and libvirt's, the guests' consoles, the daemon under test.
WITH_LOGS = ("log", "guests", "daemon")
ROOT_SCRIPT = Path(__file__).with_name("lab-root.sh")
# Whether the QEMU processes of any user may move memory in post-copy; one setting for all hosts.
USERFAULTFD = Path("/proc/sys/vm/unprivileged_userfaultfd")


def kept_logs() -> Path:
    """Where the logs of a lab that failed are kept until the next start or `down`."""
    return lab_dir().with_name(lab_dir().name + ".failed")


def up(host_count: int, steps: Steps, *, with_cinder: bool = False) -> Lab:
    """Start the lab with hosts host1 … hostN; LabError, and nothing left, if that fails."""
    _check_machine()
    with _lock() as lock:
        first: subprocess.Popen[bytes] | None = None
        try:
            guest = fetch(steps, with_cinder=with_cinder)
            with steps.step("namespaces and network"):
                for name in ("log", "ceph", "guests", "hosts"):
                    (lab_dir() / name).mkdir()
                first = _start_first_process(lock)
                namespace = Namespace(_child_of(first), KINDS)
                Record(first.pid, namespace.pid, {}).write(lab_dir())
                _make_network(namespace)
                _allow_post_copy()
            hosts = _fill(namespace, guest, [f"host{n + 1}" for n in range(host_count)], steps)
            record = Record(first.pid, namespace.pid, hosts)
            record.write(lab_dir())
            lab = Lab.of_record(lab_dir(), record)
            if with_cinder:
                with steps.step("Cinder: API, scheduler, volume service on RBD") as step:
                    lab.cinder.start(step)
            _let_it_live(first)
            return lab
        except BaseException as error:
            _clean_up_after(error, first)
            raise


def down() -> bool:
    """End the lab and remove its files; False if there was nothing to do."""
    directory = lab_dir()
    there = directory.exists() or kept_logs().exists()
    _remove(kept_logs())
    _end_processes(directory)
    _remove(directory)
    return there


def down_keeping_logs() -> Path:
    """End the lab and remove its files but for the logs; where those are now (`kept_logs`)."""
    directory = lab_dir()
    _end_processes(directory)
    _keep_logs(directory)
    _remove(directory)
    return kept_logs()


def _end_processes(directory: Path) -> None:
    pid = holder(directory)
    if pid:
        record = Record.read(directory)
        kill_and_wait([pid, *([record.init] if record else [])])
        wait_until(lambda: not holder(directory), "the lab's first process to end", 30)


def _keep_logs(directory: Path) -> None:
    _remove(kept_logs())
    kept_logs().mkdir()
    for name in WITH_LOGS:
        if (directory / name).exists():
            (directory / name).rename(kept_logs() / name)


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab needs root, for its namespaces: run it with sudo")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise LabError(f"{', '.join(missing)} not installed: install what lab/packages.txt lists")


@contextlib.contextmanager
def _lock() -> Iterator[IO[str]]:
    """Hold the lab's lock, which the first process inherits and keeps as long as it lives."""
    directory = lab_dir()
    directory.mkdir(parents=True, mode=0o755, exist_ok=True)
    with (directory / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(
                f"a lab runs already as process {holder(directory)}: "
                "use it, or end it with 'python -m lab down'"
            ) from None
        _write_holder(lock, os.getpid())
        _remove(kept_logs())
        for leftover in directory.iterdir():
            if leftover.name != "lock":
                _remove(leftover)
        yield lock


def _write_holder(lock: IO[str], pid: int) -> None:
    lock.seek(0)
    lock.write(f"{pid}\n")
    lock.truncate()
    lock.flush()


def _start_first_process(lock: IO[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["unshare", *NEW_NAMESPACES, "--fork", "--kill-child", ROOT_SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=_root_log().open("w"),
        start_new_session=True,
        pass_fds=(lock.fileno(),),
    )


def _root_log() -> Path:
    return lab_dir() / "log" / "root.log"


def _child_of(first: subprocess.Popen[bytes]) -> int:
    def child() -> int | None:
        if first.poll() is not None:
            said = _root_log().read_text().strip()
            raise LabError(
                f"new namespaces are refused, which a container may have to allow: {said}"
            )
        return first_of(first.pid)

    return wait_until(child, "the lab's first process", 10)


def has_post_copy() -> bool:
    """Whether QEMU on the lab's hosts can take VMs in by post-copy."""
    return not USERFAULTFD.exists() or USERFAULTFD.read_text().strip() != "0"


def _allow_post_copy() -> None:
    """Set what libvirt's package sets on EL; a container may refuse it, and has no post-copy."""
    if not has_post_copy():
        with contextlib.suppress(OSError):
            USERFAULTFD.write_text("1\n")


def _make_network(namespace: Namespace) -> None:
    namespace.run(["ip", "link", "set", "lo", "up"])
    # With an address of its own. It would take the lowest of its ports', and another when that port
    # goes; for up to a minute the other hosts would send what is for the monitors to nobody.
    namespace.run(["ip", "link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge"])
    for address in (ENGINE_ADDRESS, *(monitor.address for monitor in MONITORS)):
        namespace.run(["ip", "address", "add", f"{address}/24", "dev", BRIDGE])
    namespace.run(["ip", "link", "set", BRIDGE, "up"])


def _fill(namespace: Namespace, guest: Guest, names: list[str], steps: Steps) -> dict[str, int]:
    directory = lab_dir()
    peers = {name: address_of(name) for name in names}
    ceph = Ceph(namespace, directory / "ceph")
    with steps.step("Ceph: three monitors") as step:
        _start_monitors(ceph, directory / "log", step)
    with steps.step("Ceph: manager, OSD, pool") as step:
        step.progress("starting")
        ceph.start_mgr()
        ceph.make_osd()
        step.progress("waiting for the OSD")
        ceph.wait_osd()
        ceph.make_pool()
    with steps.step("certificates"):
        make_pki(directory / "pki", peers)
        _copy_guest(guest, directory / "kernel")
    hosts: dict[str, int] = {}
    for name in names:
        with steps.step(f"hypervisor {name}"):
            hosts[name] = make_host(namespace, directory, name, peers).namespace.pid
    with steps.step("Ceph: healthy"):
        ceph.wait_healthy()
    return hosts


def _start_monitors(ceph: Ceph, log: Path, step: Step) -> None:
    data = ceph.directory / "data"
    data.mkdir()
    # In the lab's own mount namespace: gone with it, and faster than a disk.
    ceph.namespace.run(["mount", "-t", "tmpfs", "-o", "mode=700", "lab", data])
    write_cluster_files(ceph.directory, log)
    ceph.make_mons()
    step.progress("waiting for their quorum")
    ceph.wait_quorum(len(ceph.monitors))


def _copy_guest(guest: Guest, directory: Path) -> None:
    """Copies, because libvirt changes the owner of the files that a VM boots from."""
    directory.mkdir()
    run(["cp", "--sparse=always", guest.kernel, guest.initrd, guest.boot_image, directory])


def _let_it_live(first: subprocess.Popen[bytes]) -> None:
    lock = (lab_dir() / "lock").open("r+")
    _write_holder(lock, first.pid)
    lock.close()
    assert first.stdin is not None
    first.stdin.write(b"all is up\n")
    first.stdin.close()


def _clean_up_after(error: BaseException, first: subprocess.Popen[bytes] | None) -> None:
    directory = lab_dir()
    if first is not None:
        kill_and_wait([first.pid, *children(first.pid)])
        first.wait()
    if first is not None and isinstance(error, Exception):
        _keep_logs(directory)
    _remove(directory)


def _remove(path: Path) -> None:
    """Remove a file or a directory, into which dying processes may still write for a moment."""

    def gone() -> bool:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return not path.exists()

    wait_until(gone, f"{path} to be removed", 10)
