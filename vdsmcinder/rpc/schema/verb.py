# SPDX-License-Identifier: GPL-2.0-or-later
"""A verb of the contract and its parameters: what a request for it has to hold.

Its values come out in the order of the schema, as handlers take them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vdsmcinder.cephx_keys import misplaced
from vdsmcinder.errors import (
    InvalidParameter,
    InvalidParams,
    NoSuchVM,
    Recovering,
    SecretMalformed,
    Unexpected,
    UnsupportedOperation,
    VdsmCinderError,
    VMExists,
)
from vdsmcinder.rpc.access import Role
from vdsmcinder.rpc.schema.types import Mismatch, Type


@dataclass(frozen=True)
class Param:
    """One parameter of a verb.

    type is what it is in full; checked is what of that a request is checked against here. The
    members of objects are read in rpc/requests/, which names them better.
    A secret parameter's value stands in no log, not even in part.
    """

    name: str
    type: Type
    checked: Type
    optional: bool
    default: Any
    secret: bool
    description: str

    def shown(self, value: Any) -> str:
        """The parameter and its value, as a log may show them."""
        return f"{self.name}={'********' if self.secret else self.checked.shown(value)}"

    def default_text(self) -> str:
        """The default as JSON writes it."""
        return json.dumps(self.default)


@dataclass(frozen=True)
class Verb:
    """One verb; params are in the order in which they go by position.

    changes: it changes something, so it is logged and is not for roles that only watch.
    shows_secrets: what it answers may hold secrets of guests.
    for_hosts: the daemons of other hosts call it.
    needs_vms: it is answered only when the list of VMs is known.
    served: it has a handler here; the others of the contract are answered with code 44.
    ours: an addition of this daemon's, which engines do not know.
    """

    name: str
    description: str
    params: tuple[Param, ...]
    result: Type
    result_description: str
    errors: tuple[int, ...]
    changes: bool
    shows_secrets: bool
    for_hosts: bool
    needs_vms: bool
    served: bool
    ours: bool

    @property
    def role(self) -> Role:
        """The least role that may call it."""
        if self.changes:
            return Role.ADMIN
        return Role.VIEWER if self.shows_secrets else Role.MONITOR

    @property
    def is_about_vm(self) -> bool:
        """Whether the first parameter says which VM is meant."""
        return bool(self.params) and self.params[0].name == "vmID"

    @property
    def codes(self) -> frozenset[int]:
        """All error codes that it can answer: those of its own, and what its kind brings along."""
        codes = {Unexpected.code, *self.errors}
        if self.params:
            codes.add(InvalidParams.code)
        if self.needs_vms:
            codes.add(Recovering.code)
        if self.role is not Role.MONITOR:
            # To callers of other roles.
            codes.add(UnsupportedOperation.code)
        if self.is_about_vm and VMExists.code not in self.errors:
            codes.add(NoSuchVM.code)
        return frozenset(codes)

    @property
    def is_secret(self) -> bool:
        """Whether a request may hold a secret, so that what went wrong is logged with care."""
        return any(p.secret for p in self.params)

    def signature(self) -> str:
        """The verb as a reader writes it down, such as 'Host.ping()'."""
        return f"{self.name}({', '.join(_written(p) for p in self.params)})"

    def values(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """The values for the handler, in the order of params, from those given by name.

        What is absent, or null and optional, gets its default; names that are no parameter's are
        passed over (see unknown()). Raises InvalidParams for what is missing or of a wrong type.
        """
        return tuple([self._value(p, given) for p in self.params])

    def refuse_keys(self, given: Mapping[str, Any]) -> None:
        """Raise an error for a CEPHX key that stands in a parameter which is for something else.

        There it would be stored, logged and told; the code is one that the verb has for values that
        do not fit.
        """
        where = misplaced(given) if self.params else None
        if where is None:
            return
        error = next((e for e in _NO_FIT if e.code in self.errors), InvalidParams)
        raise error(
            f"{self.name}: {where} holds a CEPHX key, which belongs into password of "
            "Host.registerSecrets alone; send the UUID of its secret where a disk needs it",
            field=where,
        )

    def unknown(self, given: Mapping[str, Any]) -> list[str]:
        """Those names in given that are no parameter's."""
        known = [p.name for p in self.params]
        return [name for name in given if name not in known]

    def by_name(self, args: Sequence[Any]) -> dict[str, Any]:
        """Parameters that were given by position, by name; those too many as #3, #4, ..."""
        names = [p.name for p in self.params]
        names += [f"#{i + 1}" for i in range(len(names), len(args))]
        return dict(zip(names, args))

    def _value(self, param: Param, given: Mapping[str, Any]) -> Any:
        value = given.get(param.name)
        if value is None and param.optional:
            return param.default
        if param.name not in given:
            raise InvalidParams(
                f"{self.name}: parameter {param.name} is missing; "
                f"send it as {param.type.label}: {param.description}",
                parameter=param.name,
                expected=param.type.label,
            )
        try:
            return param.checked.read(value, param.name)
        except Mismatch as e:
            raise InvalidParams(
                f"{self.name}: parameter {e}; correct the request",
                parameter=e.where,
                expected=e.expected,
                found=e.found,
            ) from None


# Errors for values that do not fit, in the order in which verbs prefer them.
_NO_FIT: tuple[type[VdsmCinderError], ...] = (InvalidParameter, SecretMalformed)


def _written(param: Param) -> str:
    if not param.optional:
        return param.name
    return f"{param.name}={'…' if param.default is None else param.default_text()}"
