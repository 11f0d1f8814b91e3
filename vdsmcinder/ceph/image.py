# SPDX-License-Identifier: GPL-2.0-or-later
"""The name of an RBD image as the rbd command and Cinder write it: pool/image@snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vdsmcinder.fields import TEXT, Kind


@dataclass(frozen=True)
class ImageName:
    """path: pool/image or pool/namespace/image. snapshot: None for the image itself."""

    path: str
    snapshot: str | None = None


def is_image_path(path: str) -> bool:
    """Whether this is pool/image or pool/namespace/image."""
    parts = path.split("/")
    return len(parts) in (2, 3) and all(parts)


def _image(value: Any) -> ImageName:
    # Neither an image nor a snapshot may have '@' in its name, which is why it divides them.
    path, at, snapshot = TEXT.convert(value).partition("@")
    if not is_image_path(path) or (at and (not snapshot or "@" in snapshot or "/" in snapshot)):
        raise ValueError
    return ImageName(path, snapshot or None)


IMAGE = Kind(_image, "pool/image or pool/namespace/image, perhaps with @snapshot")
