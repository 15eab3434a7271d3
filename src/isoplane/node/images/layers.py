"""What an image's layers hold, counted before anything of them is written to the disk.

A layer of some kilobytes can unpack to terabytes or to millions of files.  The tar headers say how much it will be; they are
read here as they come out of the decompressor, in bounded memory, and ``umoci`` unpacks only what was found small enough.
Sparse files count as what they become: they are written out in full.  Blocking.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from isoplane.node.images.model import ImageError

MAX_BYTES = 32 << 30
"""Bytes of all files of an image together."""
MAX_ENTRIES = 1_000_000
"""Files, directories and links of all layers together."""
_MAX_EXTENSION = 1 << 20
"""Bytes of an extended header: longer ones are refused by Go's tar reader too."""
_BLOCK = 512
_PIECE = 1 << 20
_WITHOUT_CONTENT = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
"""Links, devices, directories and pipes."""
_SIZES = (b"size", b"GNU.sparse.size", b"GNU.sparse.realsize")


class Tally:
    """The budget of one image."""

    def __init__(self) -> None:
        self.bytes = 0
        self.entries = 0

    def add(self, size: int) -> None:
        self.bytes += size
        self.entries += 1
        if self.bytes > MAX_BYTES:
            raise ImageError(f"the image unpacks to more than {MAX_BYTES >> 20} MiB")
        if self.entries > MAX_ENTRIES:
            raise ImageError(f"the image has more than {MAX_ENTRIES} files")


def check(blobs: Iterable[tuple[Mapping[str, Any], Path]]) -> Tally:
    """Count the layers (each with its entry of the manifest). Raises ImageError: too much, damaged, of an unknown form."""
    tally = Tally()
    for layer, path in blobs:
        form = str(layer.get("mediaType") or "").rpartition(".")[2]
        try:
            with path.open("rb") as raw:
                if form.endswith("gzip"):
                    with gzip.open(raw) as stream:
                        _count(stream, tally)  # type: ignore[arg-type]
                elif form == "tar":
                    _count(raw, tally)
                else:
                    raise ImageError(f"layers of the form {form!r} cannot be unpacked here, only tar and tar+gzip")
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise ImageError(f"a layer of the image cannot be read: {type(error).__name__}: {error}") from None
    return tally


def _count(stream: BinaryIO, tally: Tally) -> None:
    """Walk the headers of one tar stream."""
    told: dict[bytes, int] = {}
    """What an extended header said of the next file."""
    while len(header := stream.read(_BLOCK)) == _BLOCK and any(header):
        kind, size = header[156:157], _number(header[124:136])
        if kind in (b"x", b"g"):
            tally.add(0)
            if size > _MAX_EXTENSION:
                raise ImageError(f"the image has an extended header of {size} bytes")
            found = _sizes(_exactly(stream, size))
            _skip(stream, -size % _BLOCK)
            told = found if kind == b"x" else told
            continue
        held = 0 if kind in _WITHOUT_CONTENT else told.get(b"size", size)
        becomes = _number(header[483:495]) if kind == b"S" else max(told.values(), default=0)
        tally.add(max(held, becomes))
        if kind == b"S" and header[482]:
            while _exactly(stream, _BLOCK)[504]:
                tally.add(0)
        _skip(stream, held + -held % _BLOCK)
        told = {}


def _number(field: bytes) -> int:
    """Octal text, or (with the first bit set) a number of base 256. Raises ValueError."""
    if field[0] & 0x80:
        return int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _sizes(records: bytes) -> dict[bytes, int]:
    """The sizes that a pax header names: ``LENGTH KEY=VALUE``, line by line."""
    found: dict[bytes, int] = {}
    for line in records.split(b"\n"):
        key, _, value = line.partition(b" ")[2].partition(b"=")
        if key in _SIZES and value.isdigit() and len(value) < 20:
            found[key] = int(value)
    return found


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError("it ends in the middle")
    return data


def _skip(stream: BinaryIO, size: int) -> None:
    while size > 0:
        size -= len(_exactly(stream, min(size, _PIECE)))
