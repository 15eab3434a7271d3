"""Reading a container's log: conmon's file format, across rotated files, from any point, with or without following.

Each line of a file is ``TIME STREAM F|P CONTENT``; F ends a line of output, P is a piece of a longer one.  Rotated files are
``log.1`` (the youngest) to ``log.N``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

_BLOCK = 1 << 16
_POLL = 0.1
_MAX_LINE = 1 << 20
"""A line without an end is handed on in pieces of this many bytes."""


def rotated(log: Path) -> list[Path]:
    """All files of a log, the oldest first."""
    older = []
    number = 1
    while (path := log.with_name(f"{log.name}.{number}")).exists():
        older.append(path)
        number += 1
    return [*reversed(older), log]


def parse_time(text: str) -> float:
    """POSIX seconds of conmon's time stamp (RFC 3339 with nanoseconds); 0 when it is none."""
    head, _, tail = text.partition(".")
    digits = 0
    while digits < len(tail) and tail[digits].isdigit():
        digits += 1
    try:
        zone = tail[digits:].replace("Z", "+00:00") or "+00:00"
        return datetime.fromisoformat(head + zone).timestamp() + (int(tail[:digits]) / 10**digits if digits else 0.0)
    except ValueError:
        return 0.0


@dataclass(slots=True)
class Decoder:
    """Turns pieces of log files into whole lines of output. Keeps what is incomplete until the rest comes."""

    since: float | None = None
    timestamps: bool = False
    _rest: bytes = b""
    _open: dict[bytes, bytearray] = field(default_factory=dict)
    _times: dict[bytes, bytes] = field(default_factory=dict)

    def feed(self, data: bytes) -> Iterator[bytes]:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if (whole := self._entry(line)) is not None:
                yield whole

    def new_file(self) -> None:
        """What a file ends with, without a line end, was cut off by a crash."""
        self._rest = b""

    def finish(self) -> Iterator[bytes]:
        """What is left at the end: output without a final line end."""
        for stream, content in self._open.items():
            if content:
                yield self._line(self._times.get(stream, b""), bytes(content))
        self._open.clear()

    def _entry(self, line: bytes) -> bytes | None:
        parts = line.split(b" ", 3)
        if len(parts) < 3:
            return None
        time, stream, tag = parts[0], parts[1], parts[2]
        content = parts[3] if len(parts) == 4 else b""
        if self.since is not None and parse_time(time.decode(errors="replace")) < self.since:
            return None
        pending = self._open.setdefault(stream, bytearray())
        if not pending:
            self._times[stream] = time
        pending += content
        if tag.startswith(b"P") and len(pending) < _MAX_LINE:
            return None
        whole = self._line(self._times[stream], bytes(pending))
        pending.clear()
        return whole

    def _line(self, time: bytes, content: bytes) -> bytes:
        if self.timestamps:
            return time.replace(b"+00:00", b"Z") + b" " + content + b"\n"
        return content + b"\n"


def tail_start(path: Path, lines: int) -> tuple[int, int]:
    """(offset, missing): where the last ``lines`` lines of output begin in a file, and how many it is short of."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        data = b""
        while True:
            step = min(_BLOCK, position)
            position -= step
            file.seek(position)
            data = file.read(step) + data
            starts = _line_ends(data, complete=position == 0)
            # One end more than asked for: the lines wanted begin after it.
            if len(starts) > lines:
                return position + starts[-lines - 1], 0
            if position == 0:
                return 0, lines - len(starts)


def _line_ends(data: bytes, *, complete: bool) -> list[int]:
    """Offsets just after each entry that ends a line of output. Without ``complete`` the first entry may be cut."""
    ends = []
    offset = 0
    first = True
    for line in data.split(b"\n")[:-1]:
        offset += len(line) + 1
        if not (first and not complete) and line.split(b" ", 3)[2:3] in ([b"F"], [b"F\r"]):
            ends.append(offset)
        first = False
    return ends


def last_lines(log: Path, lines: int, limit: int) -> str:
    """The end of a log as text: at most so many lines and characters."""
    try:
        offset, _ = tail_start(log, lines)
        with log.open("rb") as file:
            file.seek(offset)
            decoder = Decoder()
            output = b"".join(decoder.feed(file.read(1 << 20))) + b"".join(decoder.finish())
    except OSError:
        return ""
    return output.decode(errors="replace")[-limit:]


def _plan(log: Path, tail: int | None) -> list[tuple[Path, int]]:
    """Which files to read, from which offset, for the last ``tail`` lines (None: for all)."""
    files = rotated(log)
    if tail is None:
        return [(path, 0) for path in files]
    chosen: list[tuple[Path, int]] = []
    wanted = tail
    for path in reversed(files):
        try:
            offset, wanted = tail_start(path, wanted) if wanted else (path.stat().st_size, 0)
        except OSError:
            continue
        chosen.insert(0, (path, offset))
        if wanted <= 0:
            break
    return chosen


async def read(
    log: Path, *, follow: bool, tail: int | None, decoder: Decoder, ended: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Lines of a log; with ``follow`` until ``ended()`` says that nothing more will be written."""
    current = -1
    try:
        for path, offset in await asyncio.to_thread(_plan, log, tail):
            if current >= 0:
                os.close(current)
                current = -1
            try:
                current = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            os.lseek(current, offset, os.SEEK_SET)
            decoder.new_file()
            async for line in _drain(current, decoder):
                yield line
        while follow:
            # Ask before reading: what is written until the end is then surely read.
            done = await asyncio.to_thread(ended)
            if current >= 0:
                async for line in _drain(current, decoder):
                    yield line
            successor = _successor(log, current)
            if successor >= 0:
                if current >= 0:
                    async for line in _drain(current, decoder):
                        yield line
                    os.close(current)
                current = successor
                decoder.new_file()
                continue
            if done:
                break
            await asyncio.sleep(_POLL)
        for line in decoder.finish():
            yield line
    finally:
        if current >= 0:
            os.close(current)


async def _drain(fd: int, decoder: Decoder) -> AsyncIterator[bytes]:
    while data := await asyncio.to_thread(os.read, fd, _BLOCK):
        for line in decoder.feed(data):
            yield line


def _successor(log: Path, current: int) -> int:
    """The log's present file, opened, when it is another than the one being read; -1 otherwise."""
    try:
        fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    if current >= 0 and os.path.samestat(os.fstat(fd), os.fstat(current)):
        os.close(fd)
        return -1
    return fd


def rotate(directory: Path, log: Path, size: int, keep: int) -> bool:
    """Rename a log that has grown past ``size`` bytes and let conmon open a new one; at most ``keep`` files remain.

    Renaming first loses nothing: conmon writes on to the renamed file until it is told.
    """
    try:
        if log.stat().st_size < size:
            return False
        control = os.open(directory / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # no log, or nobody who writes to it
    try:
        if log.with_name(f"{log.name}.1").exists():
            for number in range(keep - 1, 0, -1):
                path = log.with_name(f"{log.name}.{number}")
                if number == keep - 1:
                    path.unlink(missing_ok=True)
                elif path.exists():
                    os.replace(path, log.with_name(f"{log.name}.{number + 1}"))
        os.replace(log, log.with_name(f"{log.name}.1"))
        os.write(control, b"2 0 0\n")
    finally:
        os.close(control)
    return True
