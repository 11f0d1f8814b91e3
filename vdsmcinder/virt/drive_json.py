# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk described in JSON, by an engine or by Cinder, as the XML that libvirt gets for it.

`vdsm-cinder drive-xml` prints it, so that an operator sees what a description comes to.
"""

from __future__ import annotations

from typing import Any

from vdsmcinder.errors import InvalidParameter
from vdsmcinder.virt.drive import Drive
from vdsmcinder.virt.xmldoc import to_text


def drive_xml(description: Any, default_secret: str | None = None) -> str:
    """The <disk> element, indented.

    description: parsed JSON; an engine's device description, or a connection info of Cinder's,
    bare or in the `connection_info` that its API wraps it in. default_secret: what an answer of
    Cinder's without secret_uuid means. Raises what Drive raises.
    """
    if not isinstance(description, dict):
        raise InvalidParameter(
            f"disk description: it is {description!r:.80}; expected a JSON object",
            field="description",
        )
    if "driver_volume_type" in description or "connection_info" in description:
        description = {"connectionInfo": description}
    return to_text(Drive.from_params(description, (), default_secret).getXML())
