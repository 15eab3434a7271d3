"""Which places of a container nothing may be mounted on: the kernel's own file systems, through which it guards itself.

A runtime sets a container's security attributes through /proc and hides parts of /proc and /sys after the volumes are in
place: a volume there would take the writes and show what should be hidden.  It is asked twice.  ``check`` reads the image's
links while a container is described.  But a volume may hold a link too, on the way to where another one is mounted, and
another container may put it there at any moment; runtimes follow it (within the container).  So ``verify`` looks at the
mounts of the container that was created, which nobody changes any more, before it is started.  What a mount's source is, is
the concern of ``volumes``.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isoplane.node import mounting
from isoplane.node.runtime.oci.environment import missing
from isoplane.node.runtime.oci.spec import MASKED, Mount

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


def identities(mounts: Iterable[Mount]) -> dict[str, Any]:
    """What :func:`verify` has to know, as JSON: which directories and files are mounted. Raises OSError.

    Asked where the mounts' sources are: those of subPaths exist in one mount namespace only.
    """
    found = []
    for mount in mounts:
        if _parts(mount.source)[:1] in ([name] for name in _KERNEL):
            continue  # the host's own, which in the host's namespaces cannot be told from the container's
        info = os.stat(mount.source)
        found.append([info.st_dev, info.st_ino, mount.target])
    return {"mounted": found}


def verify(pid: int, known: Mapping[str, Any]) -> None:
    """Raises RuntimeFailure (CreateContainerConfigError) when something of ``known`` is mounted over the kernel's places.

    ``pid`` is the first process of a container that was created and not started.
    """
    volumes = {(dev, inode): target for dev, inode, target in known.get("mounted") or ()}
    for name in _KERNEL:
        for point in mounting.mounts_below(Path("/", name), pid):
            if point in MASKED:
                continue  # what lies there last is the mask
            try:
                info = os.lstat(f"/proc/{pid}/root{point}")
            except OSError:
                continue  # below another mount: nobody sees it
            if (target := volumes.get((info.st_dev, info.st_ino))) is not None:
                raise missing(
                    f"{target!r} leads to {point}, by a link in another volume: that is the kernel's, and nothing can be mounted "
                    "there; remove the link or choose another path"
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
