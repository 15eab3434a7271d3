"""The demo guest's build, without a download: load order of modules, the ramdisk's archive, what goes wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from isoplane.node.images.build import Entry
from isoplane.node.images.guest import cpio, load_order, read_kernel_package
from isoplane.node.images.model import ImageError
from support import require


def module(depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0retpoline=Y\0"


def test_modules_come_after_what_they_need() -> None:
    modules = {
        "virtio": module(""),
        "virtio_ring": module("virtio"),
        "net_failover": module("failover"),
        "failover": module(""),
        "virtio_net": module("virtio-ring,net_failover"),
    }
    assert load_order(["virtio_net", "virtio"], modules) == [
        "virtio", "virtio_ring", "failover", "net_failover", "virtio_net",
    ]  # fmt: skip
    with pytest.raises(ImageError, match="no module e1000"):
        load_order(["e1000"], modules)


def test_the_ramdisk_is_an_archive_that_cpio_reads(tmp_path: Path) -> None:
    require("cpio")
    archive = cpio(
        [Entry("bin"), Entry("bin/tool", 0o755, b"abc"), Entry("bin/link", link="tool"), Entry("x", 0o600, b"")]
    )
    listed = subprocess.run(["cpio", "-tv", "--quiet"], input=archive, capture_output=True, check=True).stdout.decode()
    rows = [
        (line.split()[0], line.split(maxsplit=8)[8] if "," not in line else "dev/console")
        for line in listed.splitlines()
    ]
    assert rows == [
        ("drwxr-xr-x", "bin"), ("-rwxr-xr-x", "bin/tool"), ("lrwxrwxrwx", "bin/link -> tool"), ("-rw-------", "x"),
        ("crw-------", "dev/console"),
    ]  # fmt: skip


def test_a_package_that_is_none(tmp_path: Path) -> None:
    require("dpkg-deb")
    (tmp_path / "x.deb").write_bytes(b"nothing")
    with pytest.raises(ImageError, match="cannot be unpacked"):
        read_kernel_package(tmp_path / "x.deb")
    (tmp_path / "p/DEBIAN").mkdir(parents=True)
    (tmp_path / "p/DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    )
    subprocess.run(["dpkg-deb", "-b", str(tmp_path / "p"), str(tmp_path / "y.deb")], check=True, capture_output=True)
    with pytest.raises(ImageError, match="not a kernel package"):
        read_kernel_package(tmp_path / "y.deb")
