"""What the image store hands out: values only."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class ImageError(Exception):
    """An image could not be loaded, found or removed: what, why, and what to do."""


class ImageInputError(ImageError):
    """What was asked for cannot be an image: a malformed name, a path with nothing to load at it."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load has come. ``total`` is 0 while it is unknown; both in bytes."""

    stage: str
    done: int = 0
    total: int = 0


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The image's own defaults for a container made from it. Source: OCI image-spec, config.md."""

    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ImageConfig:
        """Read the ``config`` member of an OCI image configuration; absent and null members are empty."""
        config: Mapping[str, Any] = document.get("config") or {}
        return cls(
            env=tuple(config.get("Env") or ()),
            cmd=tuple(config.get("Cmd") or ()),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            user=str(config.get("User") or ""),
            working_dir=str(config.get("WorkingDir") or ""),
            stop_signal=str(config.get("StopSignal") or ""),
            exposed_ports=tuple(config.get("ExposedPorts") or ()),
            volumes=tuple(config.get("Volumes") or ()),
            labels=dict(config.get("Labels") or {}),
        )


@dataclass(frozen=True, slots=True)
class Image:
    """A loaded image. ``rootfs`` is shared and must never be written to; mount it as an overlay's lower directory."""

    reference: str
    """The canonical name it was asked by."""
    digest: str
    """``sha256:…`` of the manifest as its source served it."""
    rootfs: Path
    config: ImageConfig
    size: int = 0
    """Bytes of its layers as they travel (compressed)."""

    @property
    def image_id(self) -> str:
        """What a container status shows as imageID: repository@digest."""
        repository = self.reference.partition("@")[0]
        head, _, tail = repository.rpartition("/")
        return f"{head}/{tail.partition(':')[0]}@{self.digest}"

    def hold(self) -> int:
        """A file descriptor that keeps the image from being removed for as long as any process has it open.

        Hand it down to the process that uses the root file system (``pass_fds``), then close one's own copy.  Raises
        ImageError when the image was removed in the meantime.
        """
        path = self.rootfs.parent / "lock"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ImageError(f"image {self.reference} was removed while it was being used: load it again") from None
        fcntl.flock(fd, fcntl.LOCK_SH)
        if not path.exists():
            os.close(fd)
            raise ImageError(f"image {self.reference} was removed while it was being used: load it again")
        return fd


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One line of ``isoplane image list``."""

    names: tuple[str, ...]
    image: Image
    created: str
    """When it was built, as its author says (RFC 3339); '' when unknown."""
    loaded_at: float
    in_use: bool
