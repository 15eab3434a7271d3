"""Removing what somebody else filled: directory trees of any depth, from images and from workloads."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

_READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Remove a directory with all in it, however deeply it is nested; what cannot be removed is left without a word.

    ``shutil.rmtree`` descends with a stack frame and a descriptor for each level: a container that nests a thousand
    directories ends it with a RecursionError.  Here every subdirectory is first moved up beneath ``path``, so that two
    descriptors do.  Links are removed, not followed.  Nobody else may write there any more.
    """
    try:
        top = os.open(path, _READ)
    except OSError:
        return
    # A name that nothing in the tree can have guessed.
    fresh = (f"{secrets.token_hex(8)}.{number}" for number in count())
    try:
        while directories := [name for name in os.listdir(top) if not _unlinked(name, top)]:
            for name in directories:
                _opened_up(name, top)
            if not sum(_flattened(top, name, fresh) for name in directories):
                break  # the rest cannot be removed
    finally:
        os.close(top)
    with suppress(OSError):
        os.rmdir(path)


def _flattened(top: int, name: str, fresh: Iterator[str]) -> int:
    """Move the directories in ``name`` up into ``top`` and remove it; returns how much was moved or removed."""
    done = 0
    with suppress(OSError):
        fd = os.open(name, _READ, dir_fd=top)
        try:
            for inner in os.listdir(fd):
                if not _unlinked(inner, fd):
                    _opened_up(inner, fd)
                    os.rename(inner, next(fresh), src_dir_fd=fd, dst_dir_fd=top)
                    done += 1
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=top)
        done += 1
    return done


def _unlinked(name: str, directory: int) -> bool:
    """Remove anything that is no directory; True when it is gone."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _opened_up(name: str, directory: int) -> None:
    """Let oneself into a directory, whatever mode an image gave it; root needs no leave."""
    if os.geteuid() != 0:
        with suppress(OSError):
            os.chmod(name, 0o700, dir_fd=directory)
