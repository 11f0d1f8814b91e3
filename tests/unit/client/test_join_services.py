# SPDX-License-Identifier: GPL-2.0-or-later
"""What vdsm-cinder join starts: of either libvirt, and what it says if that fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from vdsmcinder.client import system
from vdsmcinder.client.exit_codes import CommandFailed
from vdsmcinder.client.join import services

ROOT = Path("/")
DAEMON = ["enable vdsm-cinderd.service", "restart vdsm-cinderd.service"]
SYSTEMCTL = """\
#!/bin/sh
echo "$*" >> {log}
[ "$*" != "{failing}" ] || {{ echo "Job for it failed." >&2; exit 1; }}
"""


class Systemctl:
    """A program that writes down what it is told. failing: the words with which it fails."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._log = directory, directory / "log"
        self.fails("nothing")

    def fails(self, words: str) -> None:
        program = self._directory / "systemctl"
        program.write_text(SYSTEMCTL.format(log=self._log, failing=words))
        program.chmod(0o755)

    @property
    def told(self) -> list[str]:
        return self._log.read_text().splitlines()


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    monkeypatch.setattr(services, "SYSTEMD", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return Systemctl(tmp_path)


def test_of_a_libvirt_of_many_daemons_the_one_that_listens_is_restarted(
    systemctl, monkeypatch
) -> None:
    monkeypatch.setattr(system, "libvirt_units", lambda: "virtqemud virtsecretd")
    said = services.start(ROOT)
    modular = ["enable --now virtproxyd-tls.socket", "try-restart virtproxyd.service"]
    assert systemctl.told == modular + DAEMON
    assert said[-1] == "vdsm-cinderd runs with the new certificates, and starts with the host."


def test_a_libvirt_of_one_daemon_stops_while_its_port_is_opened(systemctl, monkeypatch) -> None:
    monkeypatch.setattr(system, "libvirt_units", lambda: "libvirtd")
    listens = "is-active --quiet libvirtd-tls.socket"
    systemctl.fails(listens)
    services.start(ROOT)
    assert systemctl.told == [
        listens,
        "stop vdsm-cinderd.service libvirtd.service",
        "enable --now libvirtd-tls.socket",
        "start libvirtd.service",
        *DAEMON,
    ]


def test_a_libvirt_that_listens_already_is_restarted(systemctl, monkeypatch) -> None:
    monkeypatch.setattr(system, "libvirt_units", lambda: "libvirtd")
    services.start(ROOT)
    assert systemctl.told[1:] == ["restart libvirtd.service", *DAEMON]


def test_what_fails_is_told_with_what_is_done_already(systemctl, monkeypatch) -> None:
    monkeypatch.setattr(system, "libvirt_units", lambda: "virtqemud")
    systemctl.fails("restart vdsm-cinderd.service")
    with pytest.raises(CommandFailed) as caught:
        services.start(ROOT)
    assert str(caught.value) == (
        "this host has joined and its certificates are in place, but systemctl restart "
        "vdsm-cinderd.service failed (Job for it failed.); mend that, then: systemctl restart "
        "vdsm-cinderd"
    )


@pytest.mark.parametrize("root", [ROOT, Path("/elsewhere")])
def test_without_systemd_nothing_is_started_and_that_is_said(
    systemctl, monkeypatch, tmp_path, root
) -> None:
    if root == ROOT:
        monkeypatch.setattr(services, "SYSTEMD", tmp_path / "none")
    (said,) = services.start(root)
    assert "is left to you" in said
    assert not (tmp_path / "log").exists()
