# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may call which verbs: callers' names, as their certificates hold them, and their roles.

The rules may be replaced while the daemon runs.
"""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from typing import Callable

from vdsmcinder import config
from vdsmcinder.rpc import distinguished_names

# Kinds of names. Each name is 'kind:value', so that none can pass for one of another kind.
SUBJECT, COMMON_NAME, UID = "subject", "CN", "uid"
# The kinds of alternative names that count (RFC 5280, section 4.2.1.6), as the ssl module has them.
ALTERNATIVE_NAMES = ("DNS", "URI", "email", "IP Address")

_KINDS: Mapping[str, str] = {
    **{kind.lower(): kind for kind in (SUBJECT, COMMON_NAME, UID, *ALTERNATIVE_NAMES)},
    "ip": "IP Address",
}
_KIND = re.compile(r"([A-Za-z ]+):")
_URI_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(//[^/?#]*)?")


class Role(enum.Enum):
    """What a caller may do, each more than the one before.

    none: nothing, its connections are refused. monitor: what changes nothing, but for what may show
    secrets; viewer: that too. admin: everything.
    """

    NONE = "none"
    MONITOR = "monitor"
    VIEWER = "viewer"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether this role may do all that the other may."""
        return _ORDER.index(self) >= _ORDER.index(other)


_ORDER = tuple(Role)


class Access:
    """The roles in force.

    The first of a caller's names that has a role decides: the certificate's subject, then its
    common name, then its alternative names. Over the unix socket, root and the daemon's own user
    are admin.
    """

    def __init__(self, options: config.Access) -> None:
        """Raises ConfigError for an entry that no client can match."""
        self.load(options)

    def load(self, options: config.Access) -> None:
        """Put other roles in force, for clients that are connected too.

        Raises ConfigError for an entry that no client can match, and leaves all as it was.
        """
        local = {name(UID, str(uid)): Role.ADMIN for uid in (0, os.geteuid())}
        given: dict[str, Role] = {}
        written: dict[str, str] = {}
        for key, value in options.roles.items():
            one, role = _read(key), Role(value)
            if one in local and role is not Role.ADMIN:
                raise _useless(key, "root and the daemon's own user are admin")
            if given.get(one, role) is not role:
                raise _useless(key, f"{written[one]!r} is the same name with another role")
            given[one], written[one] = role, key
        self._roles: Mapping[str, Role] = {**given, **local}
        self._default = Role(options.default_role)

    def role(self, names: Iterable[str]) -> Role:
        """The role of a caller that has these names, made by name() and subject()."""
        local = False
        for one in names:
            if one in self._roles:
                return self._roles[one]
            local = one.startswith(f"{UID}:")
        # Whoever root lets connect to the unix socket may look; more takes an entry.
        return Role.MONITOR if local else self._default


def name(kind: str, value: str) -> str:
    """A name of a kind, in the form in which names of that kind are compared.

    In any case, but for what follows the host in a URI; addresses are those that they mean.
    """
    return f"{kind}:{_COMPARED[kind](value)}"


def _host_name(value: str) -> str:
    return value.casefold().rstrip(".")


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip()))
    except ValueError:
        return value.casefold()


def _uri(value: str) -> str:
    """RFC 3986, section 6.2.2.1: scheme and host are in any case."""
    return _URI_HOST.sub(lambda found: found[0].casefold(), value, count=1)


_COMPARED: Mapping[str, Callable[[str], str]] = {
    COMMON_NAME: distinguished_names.folded,
    UID: str,
    "DNS": _host_name,
    "URI": _uri,
    "email": str.casefold,
    "IP Address": _address,
}


def _is_address(value: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(value))
    return False


# What a name of each kind looks like in certificates (RFC 5280, section 4.2.1.6), and in words.
_FORMS: Mapping[str, tuple[Callable[[str], object], str]] = {
    "DNS": (
        re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", re.ASCII).fullmatch,
        "a host name, with other letters as xn-- has them",
    ),
    "URI": (
        re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+", re.ASCII).fullmatch,
        "a URI with its scheme, in ASCII and without blanks",
    ),
    "email": (
        re.compile(r"[!-?A-~]+@[!-?A-~]+", re.ASCII).fullmatch,
        "an address with one @, in ASCII and without blanks",
    ),
    "IP Address": (_is_address, "an IP address"),
}


def subject(attributes: Iterable[tuple[str, str]]) -> str:
    """The name that a subject is, in the form in which names are compared.

    attributes: its OIDs and values, in any order.
    """
    return f"{SUBJECT}:{distinguished_names.canonical(attributes)}"


def _read(key: str) -> str:
    """A name as the configuration writes it: kind:value, a subject (it holds '='), or a CN.

    Raises ConfigError if nobody can have that name.
    """
    kind = _KIND.match(key)
    if kind is not None and "=" not in key[: kind.end()]:
        known = _KINDS.get(kind[1].strip().lower())
        value = key[kind.end() :].strip()
        if known is None:
            kinds = ", ".join(f"{kind}:" for kind in _KINDS.values())
            raise _useless(key, f"of names there are {kinds}; write CN:{key} if that is a CN")
        if known != SUBJECT:
            return _of_kind(known, value, key)
        return _of_subject(value, key)
    return _of_subject(key, key) if "=" in key else _of_kind(COMMON_NAME, key.strip(), key)


def _of_kind(kind: str, value: str, key: str) -> str:
    if not value:
        raise _useless(key, "it is empty")
    form, expected = _FORMS.get(kind, (bool, ""))
    if not form(value):
        raise _useless(key, f"certificates hold {expected}")
    if kind == UID and not re.fullmatch("0|[1-9][0-9]{0,9}", value):
        raise _useless(key, "a local user is given by number, as id -u prints it")
    return name(kind, value)


def _of_subject(text: str, key: str) -> str:
    try:
        return subject(distinguished_names.parse(text))
    except (ValueError, IndexError) as e:
        raise _useless(key, str(e)) from None


def _useless(key: str, why: str) -> config.ConfigError:
    return config.ConfigError(
        f"access.roles: no client can match {key!r}: {why}; correct the entry or remove it"
    )
