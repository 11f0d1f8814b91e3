# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd is promised, where the program as a whole cannot show it."""

from __future__ import annotations

import socket
import subprocess
import sys

from cinderengine.system import supervision
from tests.pages import REPOSITORY

# Waits in a thread for what does not come, as one does that asked Cinder.
HANGING = """
import logging, os, threading
logging.basicConfig()
from cinderengine.system.supervision import end_at_the_latest
read, write = os.pipe()
threading.Thread(target=os.read, args=(read, 1), name="asks Cinder").start()
end_at_the_latest(0.01)
"""


def test_a_thread_that_hangs_does_not_keep_the_process():
    done = subprocess.run(
        [sys.executable, "-c", HANGING],
        check=False,
        text=True,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0
    assert "the end took 0.01 s, and is not waited for any more: " in done.stderr
    assert "asks Cinder" in done.stderr


def test_a_socket_in_the_abstract_namespace_is_told(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("")
        name = systemd.getsockname()
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name[1:].decode()}")
        supervision.notify("READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_nothing_is_told_without_systemd_and_one_that_is_lost_is_no_trouble(
    monkeypatch, tmp_path, caplog
):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    supervision.notify("READY=1")
    assert caplog.text == ""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    supervision.notify("READY=1\nSTATUS=x")
    assert "the service manager could not be told READY=1: " in caplog.text


def test_the_watchdog_is_fed_three_times_as_often_as_it_wants(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert supervision.interval_s() == 1.0
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert supervision.interval_s() == supervision.INTERVAL_S
