# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine as a part of the system: installed, made, run by systemd as its unit says, removed.

On a machine of its own that boots systemd, by `make install-engine`, as on Debian.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
from pathlib import Path

import pytest

from lab.base import REPOSITORY, LabError, wait_until
from lab.systemd.host import boot

MACHINE = "host10"
NAME = "engine.example.com"
SERVICE = "cinder-engine.service"
PASSWORD = "correct horse\n"
# Where these tests find Python's packages, the unit might be forbidden to look.
DROP_IN = f"[Service]\nBindReadOnlyPaths={REPOSITORY} {sys.prefix}\n"
# What systemd-analyze says of it; the reasons stand in the unit.
SCORE = 2.0
OURS = ["(", "-name", "*cinder-engine*", "-o", "-name", "cinderengine", ")"]


# The engine's user imports from there, too.
REACHED = all(path.stat().st_mode & 0o001 for path in (Path(sys.prefix), *Path(sys.prefix).parents))
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        not REACHED, reason=f"only root gets to Python's packages here, {sys.prefix}"
    ),
]


class Installed:
    """The engine on a machine."""

    def __init__(self, host):
        self.host = host
        self.before = self.traces()

    def make(self, target):
        arguments = [target, f"PYTHON={sys.prefix}/bin/python3"]
        self.host.run(["make", "--directory", REPOSITORY, *arguments], timeout_s=200)

    def traces(self):
        find = ["find", "/etc", "/usr", "/var/lib", "-xdev", *OURS, "-prune", "-print"]
        return set(self.host.run(find).split())

    def command(self, *words, stdin=""):
        return self.host.run(["cinder-engine", *words], input=stdin)

    def health(self):
        """What /health answers, by a client that trusts the engine's authority and no other."""
        pem = self.host.path("/var/lib/cinder-engine/pki/clients-ca.pem").read_text()
        context = ssl.create_default_context(cadata=pem)
        with (
            socket.create_connection((self.host.address, 443), 10) as plain,
            context.wrap_socket(plain, server_hostname=NAME) as secured,
        ):
            secured.sendall(f"GET /health HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(secured)
            answer.begin()
            return json.loads(answer.read())

    @property
    def pid(self):
        return int(self.host.show(SERVICE, "MainPID"))


@pytest.fixture(scope="module")
def engine(lab):
    host = boot(lab, MACHINE)
    try:
        engine = Installed(host)
        engine.make("install-engine")
        drop_in = host.path(f"/etc/systemd/system/{SERVICE}.d/lab.conf")
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text(DROP_IN)
        config = host.path("/etc/cinder-engine/cinder-engine.yaml")
        config.write_text(config.read_text().replace("names: []", f"names: [{NAME}]"))
        engine.command("init", stdin=PASSWORD)
        host.systemctl("enable", "--now", SERVICE)
        yield engine
    finally:
        host.end()


def test_it_is_served_on_the_port_of_the_web_by_a_user_of_its_own(engine):
    assert engine.health()["status"] == "ok"
    assert engine.host.show(SERVICE, "StatusText") == "Serving on port 443"
    status = engine.host.path(f"/proc/{engine.pid}/status").read_text()
    user = engine.host.run(["id", "--user", "cinder-engine"]).strip()
    assert f"\nUid:\t{user}\t{user}\t{user}\t{user}\n" in status
    # Ports below 1024, and nothing else.
    assert "\nCapEff:\t0000000000000400\n" in status


def test_what_root_s_commands_make_is_the_engine_s(engine):
    engine.command("user", "add", "jo", stdin=PASSWORD)
    find = ["find", "/var/lib/cinder-engine", "!", "-user", "cinder-engine"]
    assert engine.host.run(find) == ""
    assert "jo@internal" in engine.command("user", "list")


def test_the_doctor_finds_nothing_wrong(engine):
    found = engine.command("doctor")
    assert [line for line in found.splitlines() if not line.startswith("ok ")] == []


def test_it_comes_back_when_it_was_killed(engine):
    before = engine.pid
    engine.host.systemctl("kill", "--signal=SIGKILL", SERVICE)
    wait_until(lambda: engine.pid not in (0, before), "the engine to start anew", 30)
    wait_until(lambda: engine.host.show(SERVICE, "ActiveState") == "active", "it to be ready", 30)
    assert engine.health()["status"] == "ok"


def test_it_is_reloaded(engine):
    before = engine.pid
    engine.host.systemctl("reload", SERVICE)
    (told,) = engine.host.journal(f"--unit={SERVICE}", "--grep=were read again")
    assert told["SYSLOG_IDENTIFIER"] == "cinder-engine"
    assert engine.pid == before


def test_it_is_confined(engine):
    told = engine.host.run(["systemd-analyze", "security", "--no-pager", SERVICE])
    score = float(told.partition(f"exposure level for {SERVICE}: ")[2].split()[0])
    assert score <= SCORE, told


def test_a_wrong_configuration_is_not_tried_again(engine):
    config = engine.host.path("/etc/cinder-engine/cinder-engine.yaml")
    good = config.read_text()
    config.write_text(good.replace("port: 443", "prot: 443"))
    try:
        with pytest.raises(LabError):
            engine.host.systemctl("restart", SERVICE)
        assert engine.host.show(SERVICE, "ActiveState") == "failed"
        (*_, said) = engine.host.journal(f"--unit={SERVICE}", "--grep=did you mean port")
        assert "unknown option prot" in said["MESSAGE"]
    finally:
        config.write_text(good)
    engine.host.systemctl("reset-failed", SERVICE)
    engine.host.systemctl("restart", SERVICE)


def test_it_ends_in_time_and_goes_without_what_it_keeps(engine):
    engine.host.systemctl("stop", SERVICE)
    assert engine.host.show(SERVICE, "Result") == "success"
    engine.make("uninstall-engine")
    left = engine.traces() - engine.before
    assert left == {
        "/etc/cinder-engine",
        f"/etc/systemd/system/{SERVICE}.d",
        "/var/lib/cinder-engine",
    }
