# SPDX-License-Identifier: GPL-2.0-or-later
"""Hostile clients meet the daemon as hosts get it: from the package, run by systemd, with TLS.

What they send is that of tests/unit/transport/hostile.py, which a daemon of the tree is sent, too;
here the unit's limits, its sandbox and its watchdog stand around it. The lab's control groups count
no memory, so that what the daemon takes of it is compared with MemoryMax= here.
"""

from __future__ import annotations

import re
import ssl
from contextlib import ExitStack, suppress

import pytest

from lab.base import wait_until
from lab.engine import client_context
from lab.systemd.installed import SERVICE, RpmDaemon
from tests.functional.installed import installed
from tests.unit.transport import hostile
from tests.unit.transport.talking import CONNECT, Client, call, connect, send
from vdsmcinder.transport import newcomers

HALF_A_HANDSHAKE = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40)
# Fewer than may fail one after the other: the next client of their address is greeted.
CROWD = newcomers.FAILURES * 2 // 3
SLOW_OR_DEAF = 30
STRANGERS = 200


@pytest.fixture(scope="module")
def daemon(lab):
    with installed(lab, RpmDaemon) as daemon:
        daemon.wait_status("VMs:")
        yield daemon


@pytest.fixture(scope="module")
def first_pid(daemon):
    return daemon.pid


@pytest.fixture(scope="module")
def tls(lab):
    return client_context(lab.pki, lab.pki.engine)


@pytest.fixture(scope="module")
def bystander(daemon, tls):
    """An engine that is connected all the time."""
    with Client(daemon, tls) as client:
        yield client


@pytest.fixture(autouse=True)
def holds(daemon, first_pid, bystander):
    """After each test the same daemon runs, and the engine that was there is served."""
    yield
    bystander.ping()
    assert daemon.pid == first_pid


@pytest.mark.parametrize("name", hostile.STOMP)
def test_an_error_frame_says_what_was_wrong(daemon, bystander, tls, name):
    hostile.check_stomp(name, daemon, bystander, tls)


@pytest.mark.parametrize("name", hostile.BODIES)
def test_what_is_not_json_gets_a_reply_that_says_so(daemon, bystander, tls, name):
    hostile.check_body(name, daemon, bystander, tls)


@pytest.mark.parametrize("name", hostile.LARGE)
def test_large_requests_are_answered_and_forgotten(daemon, bystander, tls, name):
    hostile.check_large(name, daemon, bystander, tls)


@pytest.mark.parametrize("name", hostile.HTTP)
def test_an_http_status_says_what_was_wrong(daemon, bystander, tls, name):
    hostile.check_http(name, daemon, bystander, tls)


def test_half_handshakes_keep_nobody_out(daemon, bystander, tls):
    with ExitStack() as crowd:
        for _ in range(CROWD):
            crowd.enter_context(connect(daemon)).sendall(HALF_A_HANDSHAKE)
        bystander.ping()
        with Client(daemon, tls) as another:
            another.ping()


def test_who_sends_slowly_and_who_does_not_read_keep_nobody_waiting(daemon, bystander, tls):
    flood = b"".join(send(call("Host.getCapabilities", n)) for n in range(500))
    with ExitStack() as crowd:
        for _ in range(SLOW_OR_DEAF):
            slow = crowd.enter_context(Client(daemon, tls))
            slow.socket.sendall(send(call("Host.ping2"))[:-10])
            deaf = crowd.enter_context(Client(daemon, tls))
            deaf.socket.sendall(flood)
            bystander.ping()
        with Client(daemon, tls) as another:
            another.ping()


def strangers(lab):
    """TLS of clients whom the daemon does not know; None is one that speaks plain STOMP."""
    return {
        "no certificate": client_context(lab.pki, None),
        "another CA's": client_context(lab.pki, lab.pki.foreign),
        "no TLS": None,
    }


@pytest.mark.parametrize("kind", ["no certificate", "another CA's", "no TLS"])
def test_a_flood_of_strangers_is_turned_away_in_few_words(daemon, bystander, lab, tls, kind):
    host, stranger = daemon.host, strangers(lab)[kind]
    host.run(["journalctl", "--sync"])
    before = len(refusals(daemon))
    for _ in range(STRANGERS):
        assert is_turned_away(daemon, stranger)
        bystander.ping()
    host.run(["journalctl", "--sync"])
    assert len(refusals(daemon)) - before <= STRANGERS // 20
    # Those of the same address are greeted again, soon after it went quiet.
    wait_until(lambda: is_let_in(daemon, tls), "a client of the same address to be let in", 30)


def refusals(daemon):
    said = [entry["MESSAGE"] for entry in daemon.host.journal(f"--unit={SERVICE}")]
    return [line for line in said if re.search(r"^client .* refused|were refused", line)]


def is_turned_away(daemon, stranger):
    with suppress(ssl.SSLError, ConnectionError), connect(daemon, stranger) as connection:
        connection.sendall(CONNECT)
        return connection.recv(1 << 16) == b""
    return True


def is_let_in(daemon, tls):
    try:
        with Client(daemon, tls) as client:
            client.ping()
    except (AssertionError, ConnectionError, ssl.SSLError):
        return False
    return True


def test_none_of_it_cost_the_unit_anything(daemon, first_pid, record_property):
    """Of the daemon that has gone through all this."""
    host = daemon.host
    assert host.show(SERVICE, "NRestarts") == "0"
    said = [entry["MESSAGE"] for entry in host.journal(f"--unit={SERVICE}")]
    assert [line for line in said if re.search("Watchdog timeout|Traceback|fault", line)] == []
    status = host.run(["cat", f"/proc/{first_pid}/status"])
    (peak_kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.M)
    peak_bytes = int(peak_kib) * 1024
    record_property("peak", f"{peak_bytes / 2**20:.0f} MiB")
    assert peak_bytes < int(host.show(SERVICE, "MemoryMax")) / 2
    assert host.run(["cat", f"/proc/{first_pid}/oom_score_adj"]) == "1000\n"
    assert host.show(SERVICE, "WatchdogUSec") == "15s"
