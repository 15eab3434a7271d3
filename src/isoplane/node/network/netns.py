"""Network namespaces without starting a process: made by a worker thread that leaves its own for a moment.

They are kept alive by a mount below /run/netns, as ``ip netns`` does it, with shared propagation: other mount namespaces
(of container runtimes) see them come and go, and none holds on to one that was removed.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED, MNT_DETACH = 4096, 16384, 1 << 20, 2
_LIBC = ctypes.CDLL(None, use_errno=True)
_OWN = "/proc/thread-self/ns/net"
T = TypeVar("T")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, flags: int) -> None:
    _check(_LIBC.mount(source.encode(), target.encode(), b"none", flags, None), f"mount {target}")


def prepare(directory: Path) -> None:
    """Make the directory a shared mount, once per boot of the host."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        _mount("", str(directory), MS_SHARED | MS_REC)
    except OSError:
        _mount(str(directory), str(directory), MS_BIND | MS_REC)
        _mount("", str(directory), MS_SHARED | MS_REC)


def create(path: Path, inside: Callable[[int], T]) -> T:
    """A new namespace at ``path``, which must not exist; run ``inside(descriptor)`` within it and give back its result.

    The namespace is removed again when ``inside`` fails. OSError says which step was refused.
    """
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    made = -1
    touched = mounted = False
    try:
        _check(_LIBC.unshare(CLONE_NEWNET), "new network namespace")
        try:
            made = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
            touched = True
            _mount(f"/proc/self/fd/{made}", str(path), MS_BIND)
            mounted = True
            return inside(made)
        finally:
            _check(_LIBC.setns(own, CLONE_NEWNET), "return to the host's network namespace")
    except BaseException:
        if mounted:
            delete(path)
        elif touched:
            path.unlink(missing_ok=True)
        raise
    finally:
        os.close(own)
        if made >= 0:
            os.close(made)


def enter(path: Path, inside: Callable[[], T]) -> T:
    """Run ``inside`` on this thread within the namespace at ``path``."""
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_LIBC.setns(target, CLONE_NEWNET), f"enter {path}")
            try:
                return inside()
            finally:
                _check(_LIBC.setns(own, CLONE_NEWNET), "return to the host's network namespace")
        finally:
            os.close(target)
    finally:
        os.close(own)


def is_namespace(path: Path) -> bool:
    """Whether a namespace is mounted there; a bare file is what a crash between two steps leaves behind."""
    try:
        return os.stat(path).st_dev != os.stat(path.parent).st_dev
    except FileNotFoundError:
        return False


def delete(path: Path) -> None:
    """Let go of the namespace; it ends with its last process. Fine when there is none."""
    while _LIBC.umount2(str(path).encode(), MNT_DETACH) == 0:
        pass
    path.unlink(missing_ok=True)
