# SPDX-License-Identifier: GPL-2.0-or-later
"""What alembic runs: the migrations, in the transaction that store.schema is called with."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context

from cinderengine.store.tables import Word, metadata


def _render(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """A migration has no word of today's enums."""
    return "sa.String(40)" if kind == "type" and isinstance(item, Word) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
    render_item=_render,
)
context.run_migrations()
