# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets as they are kept: sealed with a key that is in a file and never in the database.

Fernet of `cryptography`: AES-128 in CBC mode and HMAC-SHA256, so that what was changed is refused.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from cinderengine.errors import EngineError
from cinderengine.model.secret import Secret

KEY_MODE = 0o400


class NotSealed(EngineError):
    """What is to be opened was sealed with another key, or the key cannot be used."""

    status = 500


class Sealer:
    """Seals and opens with one key."""

    def __init__(self, key: Secret, where: str) -> None:
        """where: the key's place, for errors. Raises NotSealed for what is no key."""
        self._where = where
        try:
            self._fernet = Fernet(key.reveal().strip())
        except ValueError:
            raise NotSealed(f"{where} holds no sealing key; restore it from a backup") from None

    @classmethod
    def opened(cls, path: Path) -> Sealer:
        """With the key of a file. Raises NotSealed."""
        try:
            return cls(Secret(path.read_text(encoding="ascii")), str(path))
        except FileNotFoundError:
            raise NotSealed(
                f"{path} does not exist; make it with cinder-engine init, or restore it from a "
                "backup: without it the passwords and keys in the database cannot be read"
            ) from None
        except (OSError, UnicodeDecodeError) as e:
            reason = e.strerror if isinstance(e, OSError) else "it is not text"
            raise NotSealed(
                f"{path} cannot be read: {reason}; let the engine's user read it"
            ) from None

    @staticmethod
    def make(path: Path) -> bool:
        """Make a key in a file of its own; False, and nothing done, where one is."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, KEY_MODE)
            with open(handle, "wb") as file:
                file.write(Fernet.generate_key() + b"\n")
                file.flush()
                os.fsync(handle)
            # Complete or not at all; and never in place of one that things are sealed with.
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as e:
            raise NotSealed(f"{path} cannot be written: {e.strerror}; look after that") from e
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def seal(self, secret: Secret) -> str:
        """What may be kept."""
        return self._fernet.encrypt(secret.reveal().encode()).decode("ascii")

    def open(self, sealed: str) -> Secret:
        """The secret again. Raises NotSealed."""
        try:
            return Secret(self._fernet.decrypt(sealed.encode()).decode())
        except InvalidToken:
            raise NotSealed(
                f"a secret in the database was not sealed with the key in {self._where}; restore "
                "the key that it was sealed with, or give the secret anew"
            ) from None
