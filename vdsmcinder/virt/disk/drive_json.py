# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk described in JSON, by an engine or by Cinder, as the XML that libvirt gets for it.

So that an operator sees what a description comes to before a VM has the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsmcinder.ceph import connection_info
from vdsmcinder.errors import InvalidParameter
from vdsmcinder.fields import kind_of
from vdsmcinder.hypervisor.xmldoc import to_text
from vdsmcinder.virt.disk.drive import Drive


def drive_xml(description: Any, default_secret: str | None = None) -> str:
    """The <disk> element of what described() takes, indented.

    default_secret: what an answer of Cinder's without secret_uuid means. Raises what Drive raises.
    """
    return to_text(Drive.from_params(described(description), (), default_secret).getXML())


def described(description: Any) -> Mapping[str, Any]:
    """The device description that parsed JSON holds: one of an engine's, or a connection info of
    Cinder's, bare or in the `connection_info` and the `attachment` that its API wraps it in.

    Raises InvalidParameter for what is no object.
    """
    if not isinstance(description, dict):
        raise InvalidParameter(
            f"disk description: it is {kind_of(description)}; expected a JSON object",
            field="description",
        )
    if connection_info.is_answer(description):
        return {"connectionInfo": description}
    return description
