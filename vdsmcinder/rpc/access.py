# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may call which verbs: callers' names, as their certificates hold them, and their roles.

The rules may be replaced while the daemon runs.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterable, Mapping

from vdsmcinder import config

# Kinds of names. Each name is 'kind:value', so that none can pass for one of another kind.
SUBJECT, COMMON_NAME, UID = "subject", "CN", "uid"
# The kinds of alternative names that count (RFC 5280, section 4.2.1.6), as the ssl module has them.
ALTERNATIVE_NAMES = ("DNS", "URI", "email")

_KINDS = {kind.lower(): kind for kind in (COMMON_NAME, UID, *ALTERNATIVE_NAMES)}
_KIND = re.compile(rf"({'|'.join(_KINDS)}):", re.IGNORECASE)
_SEPARATOR = re.compile(r"(?<!\\)\s*([,+])\s*")
_ATTRIBUTE = re.compile(r"(?<!\\)(^|[,+])([A-Za-z]+)\s*=\s*")


class Role(enum.Enum):
    """What a caller may do: admin everything, monitor what changes nothing."""

    ADMIN = "admin"
    MONITOR = "monitor"


class Access:
    """The roles in force.

    The first of a caller's names that has a role decides: the certificate's subject, then its
    common name, then its alternative names. Over the unix socket, root and the daemon's own user
    are admin.
    """

    def __init__(self, options: config.Access) -> None:
        self.load(options)

    def load(self, options: config.Access) -> None:
        """Put other roles in force, for clients that are connected too."""
        local = {name(UID, str(uid)): Role.ADMIN for uid in (0, os.geteuid())}
        given = {_normal(key): Role(role) for key, role in options.roles.items()}
        self._roles: Mapping[str, Role] = {**given, **local}
        self._default = Role(options.default_role)

    def role(self, names: Iterable[str]) -> Role:
        """The role of a caller that has these names, made by name()."""
        local = False
        for one in names:
            if one in self._roles:
                return self._roles[one]
            local = one.startswith(f"{UID}:")
        # Whoever root lets connect to the unix socket may look; more takes an entry.
        return Role.MONITOR if local else self._default


def name(kind: str, value: str) -> str:
    """A name of a kind, in the form in which names are compared; DNS names in any case are one."""
    return f"{kind}:{value.lower() if kind == 'DNS' else value}"


def _normal(key: str) -> str:
    """A name as the configuration writes it: kind:value, a subject (it holds '='), or a CN."""
    kind = _KIND.match(key)
    if kind is not None:
        return name(_KINDS[kind[1].lower()], key[kind.end() :].strip())
    if "=" not in key:
        return name(COMMON_NAME, key.strip())
    # RFC 4514 knows no blanks around separators, and people write them.
    tight = _SEPARATOR.sub(r"\1", key.strip())
    return name(SUBJECT, _ATTRIBUTE.sub(lambda m: f"{m[1]}{m[2].upper()}=", tight))
