"""Reading a container's log: conmon's file format, across rotated files, from any point, with or without following.

Each line of a file is ``TIME STREAM F|P CONTENT``; F ends a line of output, P is a piece of a longer one.  Rotated files are
``log.1`` (the youngest) to ``log.N``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

_BLOCK = 1 << 16
_POLL = 0.1
_UNKNOWN = -1
_TIME = re.compile(r"([0-9-]{10}T[0-9:]{8})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
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
    match = _TIME.fullmatch(text)
    if match is None:
        return 0.0
    try:
        whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
    return whole + (float(f"0.{match[2]}") if match[2] else 0.0)


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


def tail_start(file: int, lines: int) -> tuple[int, int]:
    """(offset, missing): where the last ``lines`` lines of output begin in a file, and how many it is short of."""
    position = os.lseek(file, 0, os.SEEK_END)
    data = b""
    step = _BLOCK
    while True:
        step = min(step, position)
        position -= step
        data = os.pread(file, step, position) + data
        begins = _line_begins(data, complete=position == 0)[-lines:] if lines else []
        if len(begins) == lines and _UNKNOWN not in begins:
            return position + min(begins, default=len(data)), 0
        if position == 0:
            return 0, lines - len(begins)
        step = len(data)


def _line_begins(data: bytes, *, complete: bool) -> list[int]:
    """Where each line of output begins, in the order in which lines end; those without an end come last.

    Pieces of a long line (P) belong to the next whole one (F) of their stream.  Without ``complete`` each stream may begin in
    the middle of a line, whose beginning is then unknown.
    """
    begins: list[int] = []
    offset = 0
    current: dict[bytes, int] = {} if complete else {b"stdout": _UNKNOWN, b"stderr": _UNKNOWN}
    for number, line in enumerate(data.split(b"\n")[:-1]):
        parts = line.split(b" ", 3)
        cut = number == 0 and not complete
        if not cut and len(parts) >= 3 and parts[1] in (b"stdout", b"stderr"):
            begin = current.setdefault(parts[1], offset)
            if parts[2].startswith(b"F"):
                begins.append(begin)
                del current[parts[1]]
        offset += len(line) + 1
    return [*begins, *(begin for begin in current.values() if begin != _UNKNOWN)]


def last_lines(log: Path, lines: int, limit: int) -> str:
    """The end of a log as text: at most so many lines and characters."""
    try:
        with log.open("rb") as file:
            offset, _ = tail_start(file.fileno(), lines)
            decoder = Decoder()
            output = b"".join(decoder.feed(os.pread(file.fileno(), 1 << 20, offset))) + b"".join(decoder.finish())
    except OSError:
        return ""
    return output.decode(errors="replace")[-limit:]


def _open_all(log: Path) -> list[int]:
    """All files of a log, opened, the oldest first: a rotation meanwhile renames them, and takes none away from us."""
    opened: list[int] = []
    for path in rotated(log):
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if opened and os.path.samestat(os.fstat(fd), os.fstat(opened[-1])):
                os.close(fd)
            else:
                opened.append(fd)
    return opened


def _skip_to_tail(files: list[int], tail: int) -> None:
    """Move each file's position so that the last ``tail`` lines of all are left to read."""
    for fd in reversed(files):
        offset, tail = tail_start(fd, tail) if tail > 0 else (os.lseek(fd, 0, os.SEEK_END), 0)
        os.lseek(fd, offset, os.SEEK_SET)


async def read(
    log: Path, *, follow: bool, tail: int | None, decoder: Decoder, ended: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Lines of a log; with ``follow`` until ``ended()`` says that nothing more will be written."""
    files = await asyncio.to_thread(_open_all, log)
    try:
        if tail is not None:
            await asyncio.to_thread(_skip_to_tail, files, tail)
        while True:
            # Ask before reading: what is written until the end is then surely read.
            done = not follow or await asyncio.to_thread(ended)
            held = deque[bytes](maxlen=tail)  # of a tail it is known only at the end what belongs to it
            for number, fd in enumerate(files):
                if number:
                    decoder.new_file()
                async for line in _drain(fd, decoder):
                    if tail is None:
                        yield line
                    else:
                        held.append(line)
            younger = await asyncio.to_thread(_younger, log, files[-1:]) if follow else []
            if younger and files:
                # conmon wrote to the last file until it was told of the rotation.
                async for line in _drain(files[-1], decoder):
                    held.append(line)
            if done and not younger:
                held.extend(decoder.finish())
            for line in held:
                yield line
            tail = None
            if younger:
                while files:
                    os.close(files.pop())
                files += younger
                decoder.new_file()
                continue
            while len(files) > 1:
                os.close(files.pop(0))
            if done:
                break
            await asyncio.sleep(_POLL)
    finally:
        for fd in files:
            os.close(fd)


def _younger(log: Path, last: list[int]) -> list[int]:
    """The files that came after the one being read, opened; none while it is the present one."""
    opened = _open_all(log)
    if not last:
        return opened
    mine = os.fstat(last[0])
    position = next((n for n, fd in enumerate(opened) if os.path.samestat(os.fstat(fd), mine)), -1)
    for fd in opened[: position + 1]:
        os.close(fd)
    return opened[position + 1 :]


async def _drain(fd: int, decoder: Decoder) -> AsyncIterator[bytes]:
    while data := await asyncio.to_thread(os.read, fd, _BLOCK):
        for line in decoder.feed(data):
            yield line


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
