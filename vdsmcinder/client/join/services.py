# SPDX-License-Identifier: GPL-2.0-or-later
"""Have libvirt and the daemon take the certificates that are in place, now and at each boot."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from vdsmcinder.client import system
from vdsmcinder.client.exit_codes import CommandFailed

DAEMON = "vdsm-cinderd"
SYSTEMD = Path("/run/systemd/system")
TIMEOUT_S = 120
# libvirt's port for other hosts; a daemon for all drivers opens it only while it does not run.
Commands = tuple[tuple[str, ...], ...]
_MODULAR: Commands = (
    ("enable", "--now", "virtproxyd-tls.socket"),
    ("try-restart", "virtproxyd.service"),
)
_MONOLITHIC: Commands = (
    ("stop", f"{DAEMON}.service", "libvirtd.service"),
    ("enable", "--now", "libvirtd-tls.socket"),
    ("start", "libvirtd.service"),
)
_MONOLITHIC_AGAIN: Commands = (("restart", "libvirtd.service"),)
_DAEMON: Commands = (("enable", f"{DAEMON}.service"), ("restart", f"{DAEMON}.service"))


def start(root: Path) -> Sequence[str]:
    """Start or restart what needs it; what was done, in sentences. No VM notices.

    root: only with / is this machine meant. Raises CommandFailed.
    """
    if root != Path("/") or not SYSTEMD.is_dir():
        return [
            f"Start libvirt and {DAEMON} anew: systemd does not run here, so it is left to you."
        ]
    libvirt = _MODULAR
    if system.libvirt_units() == "libvirtd":
        listens = _run("is-active", "--quiet", "libvirtd-tls.socket").returncode == 0
        libvirt = _MONOLITHIC_AGAIN if listens else _MONOLITHIC
    for words in (*libvirt, *_DAEMON):
        done = _run(*words)
        if done.returncode:
            raise CommandFailed(_half_way(words, " ".join(done.stderr.split())))
    return [
        "libvirt takes other hosts' virtual machines at its TLS port.",
        f"{DAEMON} runs with the new certificates, and starts with the host.",
    ]


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    """What systemctl came to. Raises CommandFailed if it cannot be run to its end."""
    try:
        return subprocess.run(
            ("systemctl", *words), text=True, stderr=subprocess.PIPE, check=False, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise CommandFailed(_half_way(words, str(e))) from e


def _half_way(words: Sequence[str], why: str) -> str:
    return (
        "this host has joined and its certificates are in place, but systemctl "
        f"{' '.join(words)} failed ({why}); mend that, then: systemctl restart {DAEMON}"
    )
