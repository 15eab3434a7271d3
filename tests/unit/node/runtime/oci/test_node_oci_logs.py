"""Log files: decoding, tails, rotation, against a plain model of lines."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.node.runtime.oci import logs

STAMP = "2026-05-01T10:00:00.123456789+00:00"
texts = st.text(st.characters(blacklist_characters="\n", blacklist_categories=("Cs",)), max_size=12)
entries = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.lists(texts, min_size=1, max_size=3)), max_size=20
)


def encode(lines: list[tuple[str, list[str]]]) -> bytes:
    """Lines of output, each in pieces, as conmon writes them."""
    out = b""
    for stream, pieces in lines:
        for number, piece in enumerate(pieces):
            tag = "F" if number == len(pieces) - 1 else "P"
            out += f"{STAMP} {stream} {tag} {piece}\n".encode()
    return out


def plain(lines: list[tuple[str, list[str]]]) -> list[bytes]:
    return [("".join(pieces) + "\n").encode() for _, pieces in lines]


def collect(log: Path, tail: int | None = None) -> list[bytes]:
    async def run() -> list[bytes]:
        stream = logs.read(log, follow=False, tail=tail, decoder=logs.Decoder(), ended=lambda: True)
        return [line async for line in stream]

    return asyncio.run(run())


@given(entries, st.integers(1, 40))
def test_lines_come_whole_however_they_are_cut(lines: list[tuple[str, list[str]]], size: int) -> None:
    data = encode(lines)
    decoder = logs.Decoder()
    found = [line for at in range(0, len(data), size) for line in decoder.feed(data[at : at + size])]
    assert found + list(decoder.finish()) == plain(lines)


@given(entries, entries, st.integers(0, 45))
def test_a_tail_spans_rotated_files(
    old: list[tuple[str, list[str]]], new: list[tuple[str, list[str]]], tail: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        log.with_name("log.1").write_bytes(encode(old))
        log.write_bytes(encode(new))
        everything = plain(old) + plain(new)
        assert collect(log) == everything
        assert collect(log, tail) == (everything[-tail:] if tail else [])


def test_a_tail_of_a_large_file(tmp_path: Path) -> None:
    lines = [("stdout", [f"line {number} " + "x" * (number % 300)]) for number in range(5000)]
    (tmp_path / "log").write_bytes(encode(lines))
    for tail in (1, 2, 777, 4999, 5000, 6000):
        assert collect(tmp_path / "log", tail) == plain(lines)[-tail:]


def test_output_without_an_end_is_told_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"{STAMP} stdout F one\n{STAMP} stdout P tw\n{STAMP} stdout P o\n")
    assert collect(tmp_path / "log") == [b"one\n", b"two\n"]
    assert collect(tmp_path / "log", 1) == [b"two\n"]


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        log.write_bytes(data)
        collect(log)
        collect(log, 3)


def test_since_and_timestamps() -> None:
    data = b"2026-05-01T10:00:00.5+00:00 stdout F old\n2026-05-01T10:00:01.5+00:00 stdout F new\n"
    since = logs.parse_time("2026-05-01T10:00:01Z")
    assert list(logs.Decoder(since=since).feed(data)) == [b"new\n"]
    assert next(iter(logs.Decoder(timestamps=True).feed(data))) == b"2026-05-01T10:00:00.5Z old\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01.25Z", 1.25),
        ("1970-01-01T00:00:02Z", 2),
        ("1970-01-01T01:00:00+01:00", 0),
        ("nonsense", 0),
        ("", 0),
        (STAMP, 1777629600.123456789),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert logs.parse_time(text) == pytest.approx(seconds)


def test_rotation_keeps_the_youngest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ctl")
    reader = os.open(tmp_path / "ctl", os.O_RDONLY | os.O_NONBLOCK)
    log = tmp_path / "log"
    for number in range(8):
        log.write_text(f"{STAMP} stdout F {number}\n")
        assert logs.rotate(tmp_path, log, 1, 3)
    os.close(reader)
    log.write_text(f"{STAMP} stdout F last\n")
    assert [path.name for path in logs.rotated(log)] == ["log.2", "log.1", "log"]
    assert collect(log) == [b"6\n", b"7\n", b"last\n"]


def test_a_small_log_and_one_that_nobody_writes_are_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert not logs.rotate(tmp_path, log, 1, 3)
    log.write_text("x" * 10)
    assert not logs.rotate(tmp_path, log, 100, 3)
    assert not logs.rotate(tmp_path, log, 1, 3)
    assert log.exists()


def test_a_tail_keeps_a_long_line_whole_that_others_interrupt(tmp_path: Path) -> None:
    pieces = "".join(f"{STAMP} stdout P {'x' * 1000}\n" for _ in range(100))
    (tmp_path / "log").write_text(f"{STAMP} stdout F old\n{pieces}{STAMP} stderr F oops\n{STAMP} stdout F end\n")
    long = b"x" * 100_000 + b"end\n"
    assert collect(tmp_path / "log") == [b"old\n", b"oops\n", long]
    assert collect(tmp_path / "log", 1) == [long]
    assert collect(tmp_path / "log", 2) == [b"oops\n", long]
