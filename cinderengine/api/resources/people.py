# SPDX-License-Identifier: GPL-2.0-or-later
"""Users, who are managed by the command, and what oVirt's clients look up beside them."""

from __future__ import annotations

from collections.abc import Sequence

from cinderengine.api.resources.empty import PERMISSIONS, TAGS, empty, fixed
from cinderengine.api.resources.table import Call, Collection
from cinderengine.api.types import entity as made
from cinderengine.api.types.entity import Entity, entity
from cinderengine.model.users import INTERNAL, User
from cinderengine.store.entities import users

# Ids that every oVirt engine has for them.
SUPER_USER = "00000000-0000-0000-0000-000000000001"
_DOMAIN = "696e7465-726e-616c-0000-000000000000"


async def _rows(call: Call) -> Sequence[User]:
    return await call.parts.store.read(users.all)


async def _row(call: Call) -> User | None:
    return await call.parts.store.read(users.get, call.id("users"))


def _show(call: Call, user: User) -> Entity:
    return entity(
        "user",
        id=user.id,
        href=made.below("/users", user.id),
        name=user.name,
        user_name=f"{user.principal}-authz",
        principal=user.name,
        namespace="*",
        domain=made.reference("domain", _DOMAIN, "/domains", name=f"{user.profile}-authz"),
    )


USERS = Collection(
    "users",
    "user",
    rows=_rows,
    row=_row,
    show=_show,
    fields={
        "name": lambda user: user.name,
        "usrname": lambda user: user.principal,
        "id": lambda user: user.id,
    },
    under=(PERMISSIONS, TAGS, empty("roles", "role")),
)
ROLES = fixed(
    "roles",
    "role",
    entity(
        "role",
        id=SUPER_USER,
        href=made.below("/roles", SUPER_USER),
        name="SuperUser",
        description="May do everything",
        administrative=True,
        mutable=False,
    ),
    under=(empty("permits", "permit"),),
)
DOMAINS = fixed(
    "domains",
    "domain",
    entity("domain", id=_DOMAIN, href=made.below("/domains", _DOMAIN), name=f"{INTERNAL}-authz"),
    under=(empty("users", "user"), empty("groups", "group")),
)
