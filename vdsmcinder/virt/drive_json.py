# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk described in JSON, by an engine or by Cinder, as the XML that libvirt gets for it.

`vdsm-cinder drive-xml` prints it, so that an operator sees what a description comes to.
"""

from __future__ import annotations

from typing import Any

from vdsmcinder.errors import InvalidParameter
from vdsmcinder.virt.drive import Drive
from vdsmcinder.virt.xmldoc import to_text


def drive_xml(description: Any) -> str:
    """The <disk> element, indented.

    description: parsed JSON; an engine's device description, or a connection info of Cinder's,
    bare or in the `connection_info` that its API wraps it in. Raises what Drive raises.
    """
    if not isinstance(description, dict):
        raise InvalidParameter(
            f"disk description: it is {description!r:.80}; expected a JSON object",
            field="description",
        )
    info = description.get("connection_info", description)
    if isinstance(info, dict) and "driver_volume_type" in info:
        return to_text(Drive.from_connection_info(info).getXML())
    return to_text(Drive.from_params(description).getXML())
