# SPDX-License-Identifier: GPL-2.0-or-later
"""Where certificates and keys lie, and how they get there: whole, and readable by the right ones.

A file appears under its name when it is complete, with its owner and its mode.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vdsmcinder import config
from vdsmcinder.client.exit_codes import InputRefused
from vdsmcinder.config import Config, ConfigError, Listen

# The daemon's, which systemd/vdsm-cinder.sysusers makes.
USER = "vdsm-cinder"

CERTIFICATE_MODE, KEY_MODE, DIRECTORY_MODE = 0o644, 0o600, 0o755


@dataclass(frozen=True)
class Pair:
    """A certificate's file, and that of its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Layout:
    """The files of a host. Those of the CA's key and of the client stand beside the host's own."""

    ca: Pair
    host: Pair
    client: Pair

    @classmethod
    def below(cls, directory: Path) -> Layout:
        """As on an oVirt host, but below another directory than /etc/pki/vdsm."""
        certs, keys = directory / "certs", directory / "keys"
        return cls.beside(certs / "cacert.pem", Pair(certs / "vdsmcert.pem", keys / "vdsmkey.pem"))

    @classmethod
    def beside(cls, ca: Path, host: Pair) -> Layout:
        """With the files that the daemon reads at these paths."""
        certs, keys = host.certificate.parent, host.key.parent
        client = Pair(certs / "clientcert.pem", keys / "clientkey.pem")
        return cls(Pair(ca, keys / "cakey.pem"), host, client)

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        pairs = (self.ca, self.host, self.client)
        return tuple(path for pair in pairs for path in (pair.certificate, pair.key))


@dataclass(frozen=True)
class HostLayout:
    """The files of the hosts' authority on one host. ca's key is only where it signs."""

    ca: Pair
    daemon: Pair
    libvirt: Pair
    qemu: Pair

    @classmethod
    def below(cls, directory: Path) -> HostLayout:
        """In DIR/certs and DIR/keys."""
        certs, keys = directory / "certs", directory / "keys"
        pairs = (
            Pair(certs / f"{name}cert.pem", keys / f"{name}key.pem")
            for name in ("hostsca", "host", "libvirt", "qemu")
        )
        return cls(*pairs)

    @property
    def signed(self) -> tuple[Pair, ...]:
        """What the authority signs."""
        return (self.daemon, self.libvirt, self.qemu)


def layout(directory: Path | None, config_file: Path | None) -> Layout:
    """The files below a directory, or else those that the daemon's configuration names."""
    return _configured(config_file) if directory is None else Layout.below(directory)


def _configured(path: Path | None) -> Layout:
    """The files that the daemon's configuration names: of that file, or of the default one.

    Raises InputRefused for one that cannot be used.
    """
    try:
        if path is None and not config.DEFAULT_PATH.exists():
            listen: Listen = Config().listen
        else:
            listen = config.load(path or config.DEFAULT_PATH).listen
    except ConfigError as e:
        raise InputRefused(f"{e}; or name another directory with --dir") from e
    return Layout.beside(Path(listen.ca), Pair(Path(listen.certificate), Path(listen.key)))


def ids_of(user: str) -> tuple[int, int] | None:
    """The ids of a user of this machine and of its group, None if it has none of that name."""
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        return None
    return found.pw_uid, found.pw_gid


def read(path: Path) -> bytes:
    """What a file holds. Raises InputRefused."""
    try:
        return path.read_bytes()
    except OSError as e:
        raise unreadable(path, e) from e


def unreadable(path: Path, e: OSError) -> InputRefused:
    """Why a file cannot be read, and what to do."""
    if isinstance(e, FileNotFoundError):
        remedy = "make it with vdsm-cinder pki init, or name the right directory with --dir"
    elif isinstance(e, PermissionError):
        remedy = "run this as root"
    else:
        remedy = "mend it"
    return InputRefused(f"{path} cannot be read: {e.strerror}; {remedy}")


@dataclass(frozen=True)
class Draft:
    """A file that is to be written. uid, gid: its owner and group, -1 for whoever runs this."""

    path: Path
    content: bytes
    mode: int
    uid: int = -1
    gid: int = -1

    @classmethod
    def in_place_of(cls, path: Path, content: bytes) -> Draft:
        """New content for a file that is there, which keeps its owner, group and mode."""
        old = path.stat()
        return cls(path, content, stat.S_IMODE(old.st_mode), old.st_uid, old.st_gid)


def write(drafts: Sequence[Draft], *, replace: bool) -> None:
    """Write all files, each of them whole or not at all; they come into their places at the end.

    replace: one that is there already is replaced, else it stays and InputRefused is raised.
    Raises InputRefused for what cannot be written; then nothing is left of it.
    """
    staged: list[tuple[Path, Draft]] = []
    try:
        for draft in drafts:
            _make_directory(draft.path.parent)
            staged.append((_stage(draft), draft))
        for temporary, draft in staged:
            if replace:
                os.replace(temporary, draft.path)
            else:
                # Unlike a rename it fails where somebody else was quicker.
                os.link(temporary, draft.path)
    except OSError as e:
        where = e.filename2 or e.filename or drafts[0].path.parent
        remedy = "run this as root" if isinstance(e, PermissionError) else "look after that"
        raise InputRefused(f"{where} cannot be written: {e.strerror}; {remedy}") from e
    finally:
        for temporary, _ in staged:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    for directory in {draft.path.parent for draft in drafts}:
        _sync(directory)


def _make_directory(path: Path) -> None:
    """Make it and those above it, for everyone to enter whatever the umask is."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir()
    path.chmod(DIRECTORY_MODE)


def _stage(draft: Draft) -> Path:
    """The draft as a complete file with a name of its own, beside its place."""
    temporary = draft.path.with_name(f".{draft.path.name}.{secrets.token_hex(4)}")
    # Nobody else may open it before it has its owner.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as file:
            os.fchown(handle, draft.uid, draft.gid)
            os.fchmod(handle, draft.mode)
            file.write(draft.content)
            file.flush()
            os.fsync(handle)
    except BaseException:
        temporary.unlink()
        raise
    return temporary


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
