"""A machine's serial console as a log: read, followed, bounded, with the time of every line.

QEMU itself appends the console to the log, whether a plane runs or not.  While one runs it ticks every log about once a
second: growth is noted as a pair (time, size), from which a line's time is found, and a log past its limit is copied aside
and cut, as logrotate's copytruncate does (QEMU appends, so it goes on at the new end).  Lines written while no plane
runs get the time of the first tick after it.
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
            size = os.stat(self.path).st_size
        except OSError:
            return
        if size == self._size:
            return
        with self._times.open("ab") as file:
            file.write(_ENTRY.pack(time.time() if now is None else now, size))
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
        for path, stop in ((_older(self.path), None), (self.path, end)):
            kept.extend(entry for entry in self._read(path, 0, stop) if since is None or entry[0] >= since)
        return list(kept)

    def _read(self, path: Path, start: int, stop: int | None = None) -> Iterator[tuple[float, bytes]]:
        times = _Times(path.with_suffix(".times") if path == self.path else _older(self._times))
        try:
            file = path.open("rb")
        except OSError:
            return
        with file:
            offset = file.seek(start)
            for line in file:
                offset += len(line)
                if stop is not None and offset > stop:
                    return
                yield times.at(offset), line.rstrip(b"\r\n") + b"\n" if line.endswith(b"\n") else line

    async def follow(
        self, ended: Callable[[], bool], *, tail: int | None = None, since: float | None = None
    ) -> AsyncIterator[tuple[float, bytes]]:
        """``lines``, then new ones as they come, until ``ended`` says so and all is read. A last unfinished line included."""
        offset = self._whole_lines_end()
        for entry in self.lines(tail=tail, since=since, end=offset):
            yield entry
        while True:
            finished = ended()
            try:
                size = os.stat(self.path).st_size
            except OSError:
                size = 0
            if size < offset:
                offset = 0
            self.tick()
            for when, line in self._read(self.path, offset) if size > offset else ():
                if line.endswith(b"\n") or finished:
                    yield when, line
            if finished:
                return
            offset = self._whole_lines_end(offset)
            await asyncio.sleep(_FOLLOW_PERIOD)

    def _whole_lines_end(self, start: int = 0) -> int:
        """The offset after the last newline."""
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return start + file.read().rfind(b"\n") + 1
        except OSError:
            return 0


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
