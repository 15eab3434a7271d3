"""A file that only takes up room beside the store: given up piece by piece when the disk is full, so that deletions work.

While some of it is missing, writes that take more of the disk are refused and those that free some go on.  The decisions
are functions; the class does what they say, in the thread that uses the database.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from isoplane.store.transaction import Change

SIZE = 32 << 20
"""Bytes a plane keeps (four times what the WAL grows to), at most a sixteenth of the file system."""
_SHARE = 16
_LEAST = 1 << 20
"""Below it a reserve would not hold one write: a file system that small gets none."""
_PIECES = 16
SMALL = 16 << 10
"""Bytes of an update that goes on while the disk is short: a status, a lease."""

_log = logging.getLogger(__name__)


def size_for(total: int, wanted: int) -> int:
    """Bytes to keep on a file system of ``total`` bytes; 0 for none."""
    size = min(wanted, total // _SHARE)
    return size if size >= _LEAST else 0


def may_fill(size: int, held: int, free: int) -> bool:
    """Whether it may be made whole: as much again stays free, else the next write would take it apart at once."""
    return free - max(size - held, 0) >= size


def needs_room(free: int) -> bool:
    """Whether a store cannot even be opened: SQLite needs a little for the index of its log."""
    return free < _LEAST


def piece(size: int) -> int:
    """Bytes given up at a time: others who write to the disk get at most this much before the store had its turn."""
    return size // _PIECES


def goes_on(changes: Iterable[Change]) -> bool:
    """Whether a transaction may be written while the disk is short: it ends something, or changes only a little."""
    told = list(changes)
    if any(change.type == "ADDED" for change in told):
        return False
    if any(change.type == "DELETED" or change.record.deleting for change in told):
        return True
    return all(len(change.record.data) <= SMALL for change in told)


class Reserve:
    """The file ``path``, ``wanted`` bytes where there is room; ``wanted`` 0 for none."""

    def __init__(self, path: Path, wanted: int) -> None:
        self._path = path
        self._wanted = wanted
        self.short = False
        """Whether some of it is missing. Read by other threads."""
        self.make()
        if self._wanted and needs_room(self._free()):
            self.give_up()

    def _free(self) -> int:
        room = os.statvfs(self._path.parent)
        return room.f_bavail * room.f_frsize

    def _held(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def make(self) -> None:
        """Make it whole if there is room again; nothing happens when it is."""
        if not self._wanted:
            return
        try:
            room = os.statvfs(self._path.parent)
            size, held = size_for(room.f_blocks * room.f_frsize, self._wanted), self._held()
            if held < size:
                if not may_fill(size, held, self._free()):
                    self._tell(True)
                    return
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    os.posix_fallocate(descriptor, 0, size)
                finally:
                    os.close(descriptor)
            self._tell(False)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full:
                _log.warning("no reserve of disk is kept in %s: %s", self._path.parent, error.strerror)
                self._wanted = 0
            self._tell(full)

    def give_up(self) -> int:
        """Give a piece back to the disk; returns its bytes, 0 when nothing is left."""
        try:
            held = self._held()
            if not self._wanted or not held:
                return 0
            room = os.statvfs(self._path.parent)
            given = min(held, max(piece(size_for(room.f_blocks * room.f_frsize, self._wanted)), 1))
            os.truncate(self._path, held - given)
        except OSError as error:
            _log.error("the reserve %s cannot be given up: %s", self._path, error.strerror)
            return 0
        self._tell(True)
        return given

    def _tell(self, short: bool) -> None:
        if short and not self.short:
            _log.error("the disk of %s is full: only what frees some of it is written", self._path.parent)
        elif self.short and not short:
            _log.info("the disk of %s has room again", self._path.parent)
        self.short = short
