"""The serial log: times of lines, tails, rotation, following."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from isoplane.node.runtime.qemu.serial import SerialLog, stamp


def append(log: SerialLog, text: str, when: float) -> None:
    with log.path.open("a") as file:
        file.write(text)
    log.tick(when)


def test_lines_have_the_time_of_the_tick_that_saw_them(tmp_path: Path) -> None:
    log = SerialLog(tmp_path / "serial-0.log")
    log.tick(1.0)
    assert log.lines() == []
    append(log, "one\r\ntwo\r\n", 100.0)
    append(log, "three\n", 200.0)
    log.tick(250.0)
    append(log, "unfinished", 300.0)
    assert log.lines() == [(100.0, b"one\n"), (100.0, b"two\n"), (200.0, b"three\n"), (300.0, b"unfinished\n")]
    assert log.lines(tail=1) == [(300.0, b"unfinished\n")]
    assert log.lines(tail=0) == []
    assert [line for _, line in log.lines(since=200.0)] == [b"three\n", b"unfinished\n"]
    # Another plane, later, reads the same.
    assert SerialLog(log.path).lines(tail=2)[0] == (200.0, b"three\n")


def test_a_long_log_is_cut_and_one_older_piece_is_kept(tmp_path: Path) -> None:
    log = SerialLog(tmp_path / "serial-0.log", limit=1000)
    for number in range(100):
        append(log, f"line {number:03d} {'x' * 30}\n", float(number))
    assert log.path.stat().st_size <= 1040
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 5000
    lines = log.lines()
    assert lines[-1][1].startswith(b"line 099")
    numbers = [int(line.split()[1]) for _, line in lines]
    assert numbers == list(range(numbers[0], 100))
    assert [when for when, _ in lines] == [float(n) for n in numbers]


async def test_following_loses_nothing_not_even_across_a_rotation(tmp_path: Path) -> None:
    log = SerialLog(tmp_path / "serial-0.log", limit=400)
    append(log, "before\n", 1.0)
    over = False
    seen: list[bytes] = []

    async def read() -> None:
        async for _, line in log.follow(lambda: over):
            seen.append(line)

    reader = asyncio.create_task(read())
    for number in range(30):
        append(log, f"line {number} {'y' * 20}", time.time())
        await asyncio.sleep(0.03)
        append(log, "\n", time.time())
    append(log, "last words", time.time())
    over = True
    await asyncio.wait_for(reader, 5)
    assert [line.split()[0] for line in seen] == [b"before", *[b"line"] * 30, b"last"]
    assert [int(line.split()[1]) for line in seen[1:-1]] == list(range(30))


def test_stamps_are_rfc_3339() -> None:
    assert stamp(0.25, b"x\n") == b"1970-01-01T00:00:00.250000000Z x\n"
