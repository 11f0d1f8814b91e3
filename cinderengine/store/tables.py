# SPDX-License-Identifier: GPL-2.0-or-later
"""The database's tables: a column for each field of the entities in model/."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

from cinderengine.model.disks import DiskStatus
from cinderengine.model.domains import DomainStatus
from cinderengine.model.events import Severity
from cinderengine.model.hosts import HostStatus
from cinderengine.model.jobs import JobStatus, StepStatus

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Word(TypeDecorator[StrEnum]):
    """A value of a StrEnum, kept as its text."""

    impl = String(40)
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self.kind(value)


def _id() -> Column[str]:
    return Column("id", String(64), primary_key=True)


def _to(table: str, name: str, *, needed: bool = True, **more: Any) -> Column[str]:
    """A column with the id of a row of another table."""
    key = ForeignKey(f"{table}.id", **more)
    return Column(name, String(64), key, nullable=not needed, index=True)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, default="")


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


def _number(name: str, *, needed: bool = True) -> Column[int]:
    return Column(name, BigInteger, nullable=not needed)


def _json(name: str) -> Column[Any]:
    return Column(name, JSON, nullable=False)


def _status(kind: type[StrEnum]) -> Column[StrEnum]:
    return Column("status", Word(kind), nullable=False)


def _named() -> list[Column[str]]:
    """Of what users give a name that is unique among its kind."""
    return [
        _id(),
        Column("name", String(255), nullable=False, unique=True),
        _text("description"),
        _text("comment"),
    ]


data_centers = Table("data_centers", metadata, *_named())

clusters = Table(
    "clusters",
    metadata,
    *_named(),
    _to("data_centers", "data_center_id"),
    _text("cpu_architecture"),
    _text("cpu_type"),
)

hosts = Table(
    "hosts",
    metadata,
    *_named(),
    Column("address", String(255), nullable=False, index=True),
    Column("port", Integer, nullable=False),
    _to("clusters", "cluster_id"),
    _status(HostStatus),
    _text("reason"),
    _flag("wanted"),
    _text("hardware_id"),
    _text("fingerprint"),
    _text("token_digest"),
    _number("token_expires_ms"),
    _number("created_ms"),
)

providers = Table(
    "providers",
    metadata,
    *_named(),
    Column("url", String(1024), nullable=False, unique=True),
    _to("data_centers", "data_center_id", needed=False),
    _flag("requires_authentication"),
    _text("authentication_url"),
    _text("username"),
    _text("sealed_password"),
    _text("project"),
    _text("user_domain"),
    _text("project_domain"),
    _text("region"),
)

authentication_keys = Table(
    "authentication_keys",
    metadata,
    _id(),
    _to("providers", "provider_id", ondelete="CASCADE"),
    Column("uuid", String(36), nullable=False, unique=True),
    _text("sealed_value"),
    _text("description"),
    _text("usage_type"),
    _number("created_ms"),
    Column("revision", Integer, nullable=False),
)

storage_domains = Table(
    "storage_domains",
    metadata,
    *_named(),
    _to("providers", "provider_id", ondelete="CASCADE"),
    _to("data_centers", "data_center_id", needed=False),
    _status(DomainStatus),
    _text("reason"),
    _number("used_bytes", needed=False),
    _number("available_bytes", needed=False),
    _number("checked_ms"),
)

disks = Table(
    "disks",
    metadata,
    _id(),
    Column("alias", String(255), nullable=False, index=True),
    _text("description"),
    _to("storage_domains", "domain_id"),
    _number("size_bytes"),
    Column("image_id", String(64), nullable=False, index=True),
    _status(DiskStatus),
    _text("reason"),
    _text("volume_type"),
    _flag("shareable"),
    _flag("wipe_after_delete"),
    _flag("propagate_errors"),
    _number("created_ms"),
)

users = Table(
    "users",
    metadata,
    _id(),
    Column("name", String(255), nullable=False),
    Column("profile", String(255), nullable=False),
    _text("password_hash"),
    _flag("enabled"),
    _flag("administrator"),
    _number("created_ms"),
    UniqueConstraint("name", "profile"),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    _to("users", "user_id", ondelete="CASCADE"),
    _text("scope"),
    _number("created_ms"),
    _number("used_ms"),
    Column("expires_ms", BigInteger, nullable=False, index=True),
)

jobs = Table(
    "jobs",
    metadata,
    _id(),
    Column("flow", String(100), nullable=False),
    _text("description"),
    _json("params"),
    Column("status", Word(JobStatus), nullable=False, index=True),
    _text("reason"),
    _flag("undoing"),
    Column("user_id", String(64)),
    _text("correlation_id"),
    Column("owner", String(100), nullable=False),
    Column("fence", Integer, nullable=False),
    _number("lease_until_ms"),
    Column("started_ms", BigInteger, nullable=False, index=True),
    _number("ended_ms", needed=False),
)

steps = Table(
    "steps",
    metadata,
    Column("id", String(80), primary_key=True),
    _to("jobs", "job_id", ondelete="CASCADE"),
    Column("number", Integer, nullable=False),
    Column("action", String(100), nullable=False),
    _text("description"),
    _json("params"),
    _status(StepStatus),
    Column("attempts", Integer, nullable=False),
    _text("reason"),
    _json("result"),
    _number("started_ms", needed=False),
    _number("ended_ms", needed=False),
    UniqueConstraint("job_id", "number"),
)

# No foreign keys: what an event tells of may be gone.
events = Table(
    "events",
    metadata,
    # SQLite counts up in an INTEGER alone; gone ids are never given again.
    Column(
        "id",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("code", Integer, nullable=False),
    Column("severity", Word(Severity), nullable=False),
    _text("description"),
    Column("time_ms", BigInteger, nullable=False, index=True),
    Column("correlation_id", String(255), nullable=False, index=True),
    *(
        Column(f"{kind}_id", String(64))
        for kind in ("user", "data_center", "cluster", "host", "domain", "disk", "job")
    ),
    sqlite_autoincrement=True,
)

Index("ix_disks_domain_id_image_id", disks.c.domain_id, disks.c.image_id)
