# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine that an operator's command runs on: its programs, its packages, its units.

Whatever is run has a deadline and ends with whoever waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import subprocess
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, TypeVar

T = TypeVar("T")

OS_RELEASE = Path("/etc/os-release")
USER, GROUP = "vdsm-cinder", "kvm"
_MODULAR = ("virtqemud", "virtsecretd", "virtstoraged", "virtnetworkd", "virtnwfilterd")
_UNITS = tuple(map(Path, ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")))


class Missing(Exception):
    """A program is not installed; the message is its name."""


@dataclass(frozen=True)
class Output:
    """How a program ended."""

    code: int
    out: str
    err: str


async def run(*words: str, stdin: str = "", identity: Identity | None = None) -> Output:
    """Run a program to its end, with nothing of our environment that could lead it astray.

    Raises Missing; if this is cancelled, the program is killed.
    """
    process = _start(words, identity)
    try:
        out, err = await in_thread(lambda: process.communicate(stdin.encode()))
    except asyncio.CancelledError:
        process.kill()
        raise
    return Output(process.returncode, out.decode(errors="replace"), _text(err))


def _start(words: Sequence[str], identity: Identity | None) -> subprocess.Popen[bytes]:
    # Not asyncio's: cancelled while it makes a process, as when all else is done, that may wait
    # for ever (https://github.com/python/cpython/issues/125502).
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
            cwd="/",
            **({} if identity is None else identity.as_popen()),
        )
    except (FileNotFoundError, PermissionError):
        raise Missing(words[0]) from None


def _text(said: bytes) -> str:
    return said.decode(errors="replace").strip()


async def in_thread(work: Callable[[], T]) -> T:
    """What work() gives. In a thread for which nobody waits at the end, should it hang."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(set_it: Callable[[Any], None], value: Any) -> None:
        if not outcome.done():
            set_it(value)

    def tell(set_it: Callable[[Any], None], value: Any) -> None:
        # The loop may have ended.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, set_it, value)

    def run_it() -> None:
        try:
            result = work()
        except Exception as e:
            tell(outcome.set_exception, e)
        else:
            tell(outcome.set_result, result)

    threading.Thread(target=run_it, daemon=True).start()
    return await outcome


@dataclass(frozen=True)
class Identity:
    """A user that a program is run as, with his groups."""

    name: str
    uid: int
    gid: int
    groups: Collection[int]

    def as_popen(self) -> dict[str, Any]:
        """What subprocess.Popen takes."""
        return {"user": self.uid, "group": self.gid, "extra_groups": list(self.groups)}


def daemon_identity() -> Identity | None:
    """The user that the packaged daemon runs as; None where there is none or we are not root."""
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        return None
    if os.geteuid() != 0:
        return None
    groups = set(os.getgrouplist(USER, user.pw_gid))
    with contextlib.suppress(KeyError):
        groups.add(grp.getgrnam(GROUP).gr_gid)
    return Identity(USER, user.pw_uid, user.pw_gid, groups)


def is_debian() -> bool:
    """Whether this is Debian or made of it; else it is taken for an EL system."""
    try:
        lines = OS_RELEASE.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    about = dict(line.split("=", 1) for line in lines if "=" in line)
    ids = f"{about.get('ID', '')} {about.get('ID_LIKE', '')}"
    return "debian" in ids.replace('"', "").split()


def install(el: str, debian: str) -> str:
    """The command that installs packages, which both systems call their own names."""
    return f"apt-get install {debian}" if is_debian() else f"dnf install {el}"


def reinstall() -> str:
    """The command that puts back what a package, or `make install`, had put there."""
    return "make install" if is_debian() else "dnf reinstall vdsm-cinder"


def libvirt_units() -> str:
    """The services of this host's libvirt: those of the modular one, or the monolithic one's."""
    enabled = _UNITS[0] / "sockets.target.wants" / f"{_MODULAR[0]}.socket"
    has_monolithic = any((base / "libvirtd.service").exists() for base in _UNITS)
    return " ".join(_MODULAR) if enabled.exists() or not has_monolithic else "libvirtd"


async def unit(name: str, *properties: str) -> dict[str, str]:
    """Properties of a unit of systemd's; empty where there is no systemd."""
    try:
        asked = ",".join(properties)
        shown = await run("systemctl", "show", f"--property={asked}", name)
    except Missing:
        return {}
    lines = shown.out.splitlines() if shown.code == 0 else []
    return dict(line.split("=", 1) for line in lines if "=" in line)


def command_line(pid: int) -> str:
    """What a process was started with; empty if it is gone or not ours to see."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return words.replace(b"\0", b" ").decode(errors="replace").strip()


def service_of(pid: int) -> str:
    """The unit that a process belongs to, by its control group; empty for none."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    except OSError:
        return ""
    names = [part for line in groups.splitlines() for part in line.split("/")]
    return next((name for name in reversed(names) if name.endswith(".service")), "")
