# SPDX-License-Identifier: GPL-2.0-or-later
"""A hypervisor of the lab that boots systemd, and on which the daemon is installed as a package.

It is started beside the lab's own hosts, and ends with whoever started it or with the lab.
"""

from __future__ import annotations

import json
import shutil
import signal
from typing import Any

from lab.base import LabError, run, wait_until
from lab.host.hypervisor import KINDS, Host, address_of, connect, settings, start_first_process
from lab.namespace import Namespace, kill_and_wait
from lab.running import Lab

# polkit decides who may use libvirt, as on a real host; root may.
LIBVIRTD_CONF = """\
host_uuid = "{uuid}"
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""
# Not multi-user.target: its gettys wait for devices that are not there.
TARGET = """\
[Unit]
Requires=basic.target dbus.socket libvirtd.socket virtlogd.socket virtlockd.socket
After=basic.target
"""
# The control group that host-root.sh made, and all that systemd made in it.
REMOVE_GROUP = """\
mount -t cgroup -o none,name=systemd lab /mnt
find "/mnt/$1" -depth -type d -exec rmdir {} +
"""
BOOT_TIMEOUT_S = 60


class SystemdHost(Host):
    """A host whose PID 1 is systemd, which runs libvirtd when somebody calls it."""

    def systemctl(self, *args: str, timeout_s: float = 60) -> str:
        """Run systemctl; its stdout without the blank lines around it, or LabError."""
        return self.run(["systemctl", "--no-pager", *args], timeout_s).strip()

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit)

    def journal(self, *args: str) -> list[dict[str, Any]]:
        """The journal's entries that journalctl's arguments choose."""
        lines = self.run(["journalctl", "--output=json", "--no-pager", *args]).splitlines()
        return [json.loads(line) for line in lines]

    def journal_bytes(self, *args: str) -> bytes:
        """Every field of those entries as the journal keeps it, in its export format.

        It is no text: a field with a newline, such as a traceback, has its length before it.
        """
        command = ["journalctl", "--output=export", "--no-pager", *args]
        return self.run(command, errors="surrogateescape").encode(errors="surrogateescape")

    def start_libvirtd(self) -> None:
        """Start libvirtd by asking it something."""
        self.virsh("version")

    def _end_libvirtd(self, sig: signal.Signals) -> None:
        self.systemctl("kill", f"--signal={sig.name}", "--kill-whom=main", "libvirtd.service")

    def end(self) -> None:
        """End the host and all that runs on it."""
        kill_and_wait([self.namespace.pid])
        group = f"{self.lab_dir.name}-{self.name}"
        run(["unshare", "--mount", "sh", "-c", REMOVE_GROUP, "sh", group])


def boot(lab: Lab, name: str) -> SystemdHost:
    """Boot a further host in the lab; returns when its system is up and libvirt answers.

    One of that name must have ended, and its files go.
    """
    for leftover in (lab.directory / "hosts" / name, lab.directory / "log" / name):
        shutil.rmtree(leftover, ignore_errors=True)
    peers = {name: address_of(name)}
    files = {**settings(name, peers, LIBVIRTD_CONF), "/etc/systemd/system/lab.target": TARGET}
    for path, content in files.items():
        file = lab.directory / "hosts" / name / "files" / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    pid = start_first_process(lab.namespace, lab.directory, name, "systemd")
    host = SystemdHost(name, Namespace(pid, (*KINDS, "cgroup")), lab.directory)
    try:
        connect(lab.namespace, host)
        wait_until(lambda: _is_up(host), f"{name} to boot", BOOT_TIMEOUT_S)
        host.start_libvirtd()
    except BaseException:
        host.end()
        raise
    return host


def _is_up(host: SystemdHost) -> bool:
    try:
        return host.systemctl("is-active", "lab.target") == "active"
    except LabError:
        return False
