"""A machine's serial console as a log: read, followed, bounded, with the time of every line.

QEMU itself appends the console to the log, whether a plane runs or not.  While one runs it ticks every log about once a
second: growth is noted as a pair (time, size), from which a line's time is found, and a log past its limit is copied aside
and cut, as logrotate's copytruncate does (QEMU appends, so it goes on at the new end).  Lines written while no plane
runs get the time of the last of them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import time
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

MOST_BYTES = 10 * 2**20
"""A log is rotated when it has grown past this; one older piece is kept."""
_ENTRY = struct.Struct("<dQ")
_FOLLOW_PERIOD = 0.2


class SerialLog:
    """The log of one start of one machine. Files: ``path`` (QEMU's), ``.times`` and, after rotation, ``.1`` of both."""

    def __init__(self, path: Path, limit: int = MOST_BYTES) -> None:
        self.path = path
        self._times = path.with_suffix(".times")
        self._limit = limit
        self._size = -1

    def tick(self, now: float | None = None) -> None:
        """Note growth, rotate when too long. Cheap when nothing was written. A missing log is no error."""
        try:
            found = os.stat(self.path)
        except OSError:
            return
        size = found.st_size
        if size in (self._size, 0):
            return
        with self._times.open("ab") as file:
            file.write(_ENTRY.pack(found.st_mtime if now is None else now, size))
        self._size = size
        if size > self._limit:
            self._rotate()

    def _rotate(self) -> None:
        shutil.copyfile(self.path, _older(self.path))
        os.truncate(self.path, 0)
        self._times.replace(_older(self._times))
        self._size = 0

    def lines(
        self, *, tail: int | None = None, since: float | None = None, end: int | None = None
    ) -> list[tuple[float, bytes]]:
        """(POSIX seconds, line with its newline) of everything kept, oldest first, up to offset ``end``."""
        kept: deque[tuple[float, bytes]] = deque(maxlen=tail)
        older, text = _read(_older(self.path), 0), _read(self.path, 0, end)
        whole = older.rfind(b"\n") + 1
        for path, part in ((_older(self.path), older[:whole]), (self.path, older[whole:] + text)):
            found = self._dated(path, part, whole if path != self.path else len(text))
            kept.extend(entry for entry in found if since is None or entry[0] >= since)
        return list(kept)

    async def follow(
        self, ended: Callable[[], bool], *, tail: int | None = None, since: float | None = None
    ) -> AsyncIterator[tuple[float, bytes]]:
        """``lines``, then new ones as they come, until ``ended`` says so and all is read, an unfinished last one too."""
        offset = _read(self.path, 0).rfind(b"\n") + 1
        for entry in self.lines(tail=tail, since=since, end=offset):
            yield entry
        carried = b""
        while True:
            finished = ended()
            if _size(self.path) < offset:
                # Rotated: what was written before it is in the older piece now, perhaps with half a line at its end.
                older = _older(self.path)
                text = _read(older, offset)
                whole, carried = _halve(carried + text)
                for entry in self._dated(older, whole, offset + len(text) - len(carried)):
                    yield entry
                offset = 0
            text = carried + _read(self.path, offset)
            whole = text if finished else _halve(text)[0]
            self.tick()
            if whole:
                offset += len(whole) - len(carried)
                carried = b""
            for entry in self._dated(self.path, whole, offset):
                yield entry
            if finished:
                return
            await asyncio.sleep(_FOLLOW_PERIOD)

    def _dated(self, path: Path, text: bytes, end: int) -> Iterator[tuple[float, bytes]]:
        """The lines of ``text``, which ends at offset ``end`` of a piece, with their times and plain line ends."""
        if not text:
            return
        times = _Times(self._times if path == self.path else _older(self._times))
        offset = end - len(text)
        for line in text.removesuffix(b"\n").split(b"\n"):
            offset += len(line) + 1
            yield times.at(min(offset, end)), line.rstrip(b"\r\n") + b"\n"


def _halve(text: bytes) -> tuple[bytes, bytes]:
    """Whole lines, and what follows the last of them."""
    whole = text.rfind(b"\n") + 1
    return text[:whole], text[whole:]


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _read(path: Path, start: int, stop: int | None = None) -> bytes:
    """A part of a file; nothing when it is missing."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read() if stop is None else file.read(max(0, stop - start))
    except OSError:
        return b""


class _Times:
    """When the byte at an offset had been written, as the ticks saw it."""

    def __init__(self, path: Path) -> None:
        try:
            entries = list(_ENTRY.iter_unpack(path.read_bytes()[: path.stat().st_size // _ENTRY.size * _ENTRY.size]))
        except OSError:
            entries = []
        self._when = [when for when, _ in entries]
        self._sizes = [size for _, size in entries]

    def at(self, offset: int) -> float:
        index = bisect_left(self._sizes, offset)
        return self._when[index] if index < len(self._when) else time.time()


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def stamp(when: float, line: bytes) -> bytes:
    """A line with its time in front, as ``kubectl logs --timestamps`` shows it (RFC 3339, nanoseconds)."""
    moment = datetime.fromtimestamp(when, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}000Z ".encode() + line
