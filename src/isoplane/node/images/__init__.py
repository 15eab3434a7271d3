"""The local image store: container images by name, unpacked once, shared by every runtime.

``reference`` reads names, ``sources`` knows where an image can come from, ``store`` keeps what was loaded, ``build``
writes small images from local files.  Which image a unit needs, and when, is the runtimes' affair.
"""

from __future__ import annotations

from isoplane.node.images.model import (
    Image,
    ImageConfig,
    ImageError,
    ImageInputError,
    Progress,
    ProgressCallback,
    StoredImage,
)
from isoplane.node.images.store import ImageStore

__all__ = [
    "Image",
    "ImageConfig",
    "ImageError",
    "ImageInputError",
    "ImageStore",
    "Progress",
    "ProgressCallback",
    "StoredImage",
]
