# SPDX-License-Identifier: GPL-2.0-or-later
"""drive_xml: what is no description at all; test_drive.py has the documents."""

from __future__ import annotations

from typing import Any

import pytest

from vdsmcinder.errors import InvalidParameter, MissingParameter, VdsmCinderError
from vdsmcinder.virt.disk.drive_json import drive_xml


@pytest.mark.parametrize(
    ("description", "error"),
    [
        (None, InvalidParameter),
        (["disk"], InvalidParameter),
        ("disk", InvalidParameter),
        ({}, MissingParameter),
        ({"connection_info": {}}, MissingParameter),
        ({"driver_volume_type": "rbd"}, MissingParameter),
    ],
)
def test_refused(description: Any, error: type[VdsmCinderError]) -> None:
    with pytest.raises(error, match="expected"):
        drive_xml(description)
