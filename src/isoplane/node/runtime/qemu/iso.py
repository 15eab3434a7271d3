"""A small read-only disk of a few files: ISO 9660 with Joliet names, as cloud-init's NoCloud and config disks need it.

Every guest reads it (Linux, BSD, Windows), and a flat directory of files takes little to write, so no tool has to be
installed or started for it.  Sources: ECMA-119 and the Joliet specification.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

_SECTOR = 2048
_FIRST_FREE = 23  # after the system area, three descriptors and four path tables
_LONGEST_NAME = 64
_LONGEST_LABEL = 16
_NO_DATE = bytes(7)
_NO_LONG_DATE = b"0" * 16 + b"\0"


def build(files: Mapping[str, bytes], label: str) -> bytes:
    """The image. Names are at most 64 characters without ``/`` or ``;``, the label 16. Raises ValueError otherwise."""
    for name in files:
        if not name or len(name) > _LONGEST_NAME or set(name) & set("/;*:?\\\0"):
            raise ValueError(f"{name!r} cannot be a file's name on a config disk (64 characters, no /)")
    if not label or len(label) > _LONGEST_LABEL or not label.isascii():
        raise ValueError(f"{label!r} cannot be the label of a config disk (at most 16 ASCII characters)")
    ordered = sorted(files.items())
    short = [f"F{index:07d}.;1".encode() for index in range(len(ordered))]
    joliet = [name.encode("utf-16-be") for name, _ in ordered]
    sizes = [len(data) for _, data in ordered]

    primary_at = _FIRST_FREE
    primary_sectors = _directory_sectors(short)
    joliet_at = primary_at + primary_sectors
    joliet_sectors = _directory_sectors(joliet)
    extents, free = [], joliet_at + joliet_sectors
    for size in sizes:
        extents.append(free)
        free += -(-size // _SECTOR)

    image = bytearray(free * _SECTOR)

    def put(sector: int, data: bytes) -> None:
        image[sector * _SECTOR : sector * _SECTOR + len(data)] = data

    put(16, _descriptor(1, label, free, 19, primary_at, primary_sectors))
    put(17, _descriptor(2, label, free, 21, joliet_at, joliet_sectors))
    put(18, b"\xffCD001\x01")
    put(19, _path_table("<", primary_at))
    put(20, _path_table(">", primary_at))
    put(21, _path_table("<", joliet_at))
    put(22, _path_table(">", joliet_at))
    put(primary_at, _directory(primary_at, primary_sectors, list(zip(short, extents, sizes, strict=True))))
    put(joliet_at, _directory(joliet_at, joliet_sectors, list(zip(joliet, extents, sizes, strict=True))))
    for (_, data), extent in zip(ordered, extents, strict=True):
        put(extent, data)
    return bytes(image)


def _both16(value: int) -> bytes:
    return struct.pack("<H", value) + struct.pack(">H", value)


def _both32(value: int) -> bytes:
    return struct.pack("<I", value) + struct.pack(">I", value)


def _record(name: bytes, extent: int, size: int, directory: bool) -> bytes:
    length = 33 + len(name) + (len(name) + 1) % 2
    head = struct.pack("BB", length, 0) + _both32(extent) + _both32(size) + _NO_DATE
    return (head + struct.pack("BBB", 2 if directory else 0, 0, 0) + _both16(1) + bytes([len(name)]) + name).ljust(
        length, b"\0"
    )


def _pack(records: list[bytes]) -> bytes:
    """Records in a row; none may cross a sector's end."""
    packed = bytearray()
    for record in records:
        left = _SECTOR - len(packed) % _SECTOR
        if len(record) > left:
            packed += bytes(left)
        packed += record
    return bytes(packed)


def _directory(extent: int, sectors: int, entries: list[tuple[bytes, int, int]]) -> bytes:
    own = [_record(name, extent, sectors * _SECTOR, True) for name in (b"\0", b"\1")]
    return _pack(own + [_record(name, at, size, False) for name, at, size in entries])


def _directory_sectors(names: list[bytes]) -> int:
    return -(-len(_directory(0, 0, [(name, 0, 0) for name in names])) // _SECTOR)


def _path_table(order: str, extent: int) -> bytes:
    return struct.pack(f"{order}BBIH", 1, 0, extent, 1) + b"\0\0"


def _descriptor(kind: int, label: str, sectors: int, table: int, root: int, root_sectors: int) -> bytes:
    def text(value: str, length: int) -> bytes:
        if kind == 2:
            return value.encode("utf-16-be").ljust(length, b"\0")
        return value.encode().ljust(length)

    escapes = b"%/E" if kind == 2 else b""
    return b"".join(
        (
            bytes([kind]), b"CD001\x01\0", text("", 32), text(label, 32), bytes(8), _both32(sectors),
            escapes.ljust(32, b"\0"), _both16(1), _both16(1), _both16(_SECTOR), _both32(10),
            struct.pack("<II", table, 0), struct.pack(">II", table + 1, 0),
            _record(b"\0", root, root_sectors * _SECTOR, True),
            text("", 128), text("", 128), text("", 128), text("", 128), text("", 37), text("", 37), text("", 37),
            _NO_LONG_DATE * 4, b"\1\0",
        )
    )  # fmt: skip
