"""Which places of a container nothing may be mounted on: the kernel's own file systems, through which it guards itself.

A runtime sets a container's security attributes through /proc and hides parts of /proc and /sys after the volumes are in
place: a volume there would take the writes and show what should be hidden.  Called while a container is described; what a
mount's source is, is the concern of ``volumes``.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from pathlib import Path

from isoplane.node.runtime.oci.environment import missing
from isoplane.node.runtime.oci.spec import Mount

_KERNEL = ("proc", "sys")
_MAX_LINKS = 40
"""Links followed in one path: the kernel's own bound."""


def check(mounts: Iterable[Mount], rootfs: Path, *, privileged: bool) -> None:
    """Raises RuntimeFailure (CreateContainerConfigError) for a mount at or below /proc or /sys, the image's links followed.

    A privileged container may have the host's own place there, as upstream's network and storage agents do.
    """
    for mount in mounts:
        place = inside(rootfs, mount.target)
        if not place or place[0] not in _KERNEL:
            continue
        if privileged and not mount.sub_path and _parts(mount.source)[:1] == [place[0]]:
            continue
        raise missing(
            f"{mount.target!r} lies in /{place[0]}, which is the kernel's: nothing can be mounted there; choose another path"
        )


def inside(rootfs: Path, target: str) -> tuple[str, ...]:
    """Where a path leads within a file system that is not entered: every link is read as seen from inside."""
    waiting = list(reversed(_parts(target, normal=False)))
    place: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            place = place[:-1]
            continue
        try:
            text = os.readlink(rootfs.joinpath(*place, part))
        except OSError:
            place.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise missing(f"{target!r}: the image has more than {_MAX_LINKS} links on this path")
        if text.startswith("/"):
            place = []
        waiting.extend(reversed(_parts(text, normal=False)))
    return tuple(place)


def _parts(path: str, *, normal: bool = True) -> list[str]:
    text = posixpath.normpath(path) if normal else path
    return [part for part in text.split("/") if part not in ("", ".")]
