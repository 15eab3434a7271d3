"""Copy-on-write disk images: write an empty one, and read what another one says of itself.

An empty overlay is four clusters of 64 KiB with fixed contents, so writing it here takes a fraction of a millisecond and
spares both the qemu-img process and its package.  The header is read to know a disk's size and to refuse images that would
make QEMU open further files of the host's.  Source: docs/interop/qcow2.txt of QEMU.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"QFI\xfb"
_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_L1_COVERS = _CLUSTER * (_CLUSTER // 8)
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_BACKING_FORMAT = 0xE2792ACA
_EXTERNAL_DATA = 1 << 2
_OTHER_FORMATS = {b"KDMV": "vmdk", b"COWD": "vmdk", b"conectix": "vhd", b"vhdxfile": "vhdx", b"QED\0": "qed"}


class BadImage(ValueError):
    """A disk image that cannot or must not be used; the message says why."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """``format`` is ``raw`` or ``qcow2``; ``size`` is what the guest sees, in bytes."""

    format: str
    size: int


def inspect(path: Path) -> ImageInfo:
    """What a disk image is. Raises BadImage when it refers to other files or has another format, OSError when unreadable."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    for magic, name in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise BadImage(f"it is a {name} image: convert it with `qemu-img convert -O qcow2`")
    if not head.startswith(MAGIC):
        if size < 512:
            raise BadImage(f"{size} bytes are no disk")
        return ImageInfo("raw", size - size % 512)
    if len(head) < 72:
        raise BadImage("its qcow2 header is cut short")
    version, backing, _, _, virtual = struct.unpack_from(">IQIIQ", head, 4)
    if version not in (2, 3):
        raise BadImage(f"qcow2 version {version} is not known")
    if backing:
        raise BadImage("it needs a backing file: flatten it with `qemu-img convert -O qcow2`")
    if version == 3 and len(head) >= 80 and struct.unpack_from(">Q", head, 72)[0] & _EXTERNAL_DATA:
        raise BadImage("it keeps its data in an external file: flatten it with `qemu-img convert -O qcow2`")
    return ImageInfo("qcow2", virtual)


def create(path: Path, size: int, *, backing: Path | None = None, backing_format: str = "") -> None:
    """Write an image of ``size`` bytes (a multiple of 512) without data, on top of ``backing`` if given. Atomic."""
    entries = -(-size // _L1_COVERS)
    l1_clusters = max(1, -(-entries * 8 // _CLUSTER))
    used = 3 + l1_clusters
    if used > _CLUSTER // 2:
        raise BadImage(f"{size} bytes are more than a disk can have")
    name = os.fsencode(backing) if backing else b""
    extension = b""
    if backing:
        label = backing_format.encode()
        extension = struct.pack(">II", _BACKING_FORMAT, len(label)) + label.ljust(-(-len(label) // 8) * 8, b"\0")
    extension += struct.pack(">II", 0, 0)
    header = _HEADER.pack(
        MAGIC, 3, _HEADER.size + len(extension) if name else 0, len(name), _CLUSTER_BITS, size, 0, entries, 3 * _CLUSTER,
        _CLUSTER, 1, 0, 0, 0, 0, 0, 4, _HEADER.size,
    )  # fmt: skip
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(header + extension + name)
        file.seek(_CLUSTER)
        file.write(struct.pack(">Q", 2 * _CLUSTER))
        file.seek(2 * _CLUSTER)
        file.write(struct.pack(">H", 1) * used)
        file.truncate(used * _CLUSTER)
    temporary.rename(path)
