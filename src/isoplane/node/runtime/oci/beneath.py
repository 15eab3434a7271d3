"""Paths inside something that a tenant writes: walked name by name from an open directory, never resolved twice.

A path that is checked as a string and used as a string later is two different files to whoever exchanges a directory for a
link in between (CVE-2017-1002101, CVE-2021-25741).  So each step opens one name relative to the descriptor of the step
before, links are refused, and what comes out is a descriptor: whoever mounts, changes or reads uses that, or its name
under ``/proc/thread-self/fd``, and means the very file that was checked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 8
DEEPEST = 128
"""Levels below a volume that are walked: each holds two descriptors, and the plane has a bounded number of them."""


class LeadsOut(OSError):
    """The path would leave the directory it is beneath, or pass through a link that a tenant may have made."""


def parts_of(path: str) -> list[str]:
    """The names of a relative path. Raises LeadsOut when it is absolute or climbs."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise LeadsOut(f"{path!r} must be a relative path without ..")
    return parts


@contextmanager
def opened(base: Path, path: str = "", *, create: bool = False, links: bool = False) -> Iterator[int]:
    """An O_PATH descriptor of ``path`` beneath ``base``, closed at the end.

    ``create``: directories that are missing are made, with the mode and group of ``base``, as the kubelet makes them.
    ``links``: follow relative links beneath ``base``; only where nobody but the plane writes.
    Raises LeadsOut, and OSError (FileNotFoundError, NotADirectoryError) as open(2) does.
    """
    fd = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        like = os.fstat(fd)
        todo, followed = parts_of(path)[::-1], 0
        while todo:
            name = todo.pop()
            found = _step(fd, name, like if create else None)
            if stat.S_ISLNK(os.fstat(found).st_mode):
                target = os.readlink("", dir_fd=found)
                os.close(found)
                followed += 1
                if not links or followed > _MOST_LINKS:
                    raise LeadsOut(f"{name!r} in {path!r} is a symbolic link")
                todo += parts_of(target)[::-1]
                continue
            os.close(fd)
            fd = found
        yield fd
    finally:
        os.close(fd)


def _step(directory: int, name: str, like: os.stat_result | None) -> int:
    """Open one name, or make it a directory like another one."""
    try:
        return os.open(name, _STEP, dir_fd=directory)
    except FileNotFoundError:
        if like is None:
            raise
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
    except FileExistsError:
        return os.open(name, _STEP, dir_fd=directory)
    made = os.open(name, _STEP | os.O_DIRECTORY, dir_fd=directory)
    try:
        os.chown(proc(made), -1, like.st_gid)
        os.chmod(proc(made), stat.S_IMODE(like.st_mode))
    except BaseException:
        os.close(made)
        raise
    return made


def proc(fd: int) -> str:
    """A name for an open descriptor that system calls taking a path understand: it means this very file."""
    return f"/proc/thread-self/fd/{fd}"


def walk(base: Path) -> Iterator[tuple[int, os.stat_result]]:
    """Every directory and regular file at and beneath ``base``, as O_PATH descriptors that live until the next one.

    Links, devices, sockets and pipes are left out: nobody changes what they lead to.
    """
    top = os.open(base, _READ)
    yield from _walk(top, 0)


def _walk(directory: int, depth: int) -> Iterator[tuple[int, os.stat_result]]:
    try:
        if depth > DEEPEST:
            raise OSError(errno.ENAMETOOLONG, f"directories are nested more than {DEEPEST} deep")
        yield directory, os.fstat(directory)
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            try:
                fd = os.open(name, _STEP, dir_fd=directory)
            except FileNotFoundError:
                continue  # its container removed it meanwhile
            try:
                found = os.fstat(fd)
                if stat.S_ISREG(found.st_mode):
                    yield fd, found
                elif stat.S_ISDIR(found.st_mode):
                    # Opened anew for reading by the descriptor: the name may mean something else by now.
                    yield from _walk(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd), depth + 1)
            finally:
                os.close(fd)
    finally:
        os.close(directory)
