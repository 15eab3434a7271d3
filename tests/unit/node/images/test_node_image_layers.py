"""What an image may unpack to is counted from its headers, and trees of any depth are removed with it."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from isoplane.node.images import layers
from isoplane.node.images.model import ImageError
from isoplane.node.images.shelf import Shelf

GZIP, PLAIN = "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar"


def layer(path: Path, *files: tuple[str, int], form: int = tarfile.PAX_FORMAT, packed: bool = True) -> Path:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for name, size in files:
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "x" * 300
        tar.addfile(link)
    path.write_bytes(gzip.compress(made.getvalue()) if packed else made.getvalue())
    return path


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_files_and_bytes_are_counted_over_all_layers(tmp_path: Path, form: int) -> None:
    one = layer(tmp_path / "1", ("a" * 200, 1000), ("b", 0), form=form)
    two = layer(tmp_path / "2", ("c", 513), form=form, packed=False)
    tally = layers.check([({"mediaType": GZIP}, one), ({"mediaType": PLAIN}, two)])
    assert 1513 <= tally.bytes <= 1513 + 2000
    assert 5 <= tally.entries <= 10


def test_small_layers_that_become_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = layer(tmp_path / "1", ("zeros", 5_000_000))
    assert big.stat().st_size < 20_000
    monkeypatch.setattr(layers, "MAX_BYTES", 8_000_000)
    layers.check([({"mediaType": GZIP}, big)])
    with pytest.raises(ImageError, match="unpacks to more than"):
        layers.check([({"mediaType": GZIP}, big)] * 2)
    many = layer(tmp_path / "2", *((f"f{number}", 0) for number in range(200)))
    monkeypatch.setattr(layers, "MAX_ENTRIES", 100)
    with pytest.raises(ImageError, match="more than 100 files"):
        layers.check([({"mediaType": GZIP}, many)])


def test_a_sparse_file_counts_as_what_it_becomes(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("sparse")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 50)}
        tar.addfile(info)
    (tmp_path / "pax").write_bytes(made.getvalue())
    old = bytearray(512)
    old[156:157], old[124:136], old[483:495] = b"S", b"00000000000\0", b"\x80" + (1 << 50).to_bytes(11, "big")
    (tmp_path / "gnu").write_bytes(bytes(old))
    for name in ("pax", "gnu"):
        with pytest.raises(ImageError, match="unpacks to more than"):
            layers.check([({"mediaType": PLAIN}, tmp_path / name)])


@pytest.mark.parametrize(
    "body",
    [b"x" * 600, gzip.compress(b"x" * 600, mtime=0)[:-4], gzip.compress(b"y" * 512, mtime=0), b""],
    ids=["no archive", "cut off", "compressed noise", "empty"],
)
def test_damaged_and_unknown_layers_are_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "1").write_bytes(body)
    if body:
        with pytest.raises(ImageError, match="cannot be read"):
            layers.check([({"mediaType": GZIP}, tmp_path / "1")])
    with pytest.raises(ImageError, match="only tar"):
        layers.check([({"mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"}, tmp_path / "1")])


def test_an_image_of_any_depth_is_removed(tmp_path: Path) -> None:
    deep = tmp_path / "images" / "a1"
    (deep / "rootfs").mkdir(parents=True)
    fd = os.open(deep / "rootfs", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert Shelf(tmp_path).prune() == ("sha256:a1",)
    assert not deep.exists()
    assert list((tmp_path / "tmp").iterdir()) == []
