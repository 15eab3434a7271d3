"""Disk images, config disks, paths inside images, cloud-init seeds: what is written, and what is refused."""

from __future__ import annotations

import base64
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.node.runtime.protocol import NetworkInterface, RuntimeFailure
from isoplane.node.runtime.qemu import cloudinit, iso, qcow2
from isoplane.node.runtime.qemu.disks import resolve_inside
from isoplane.node.runtime.qemu.volumes import CloudInit


@given(sectors=st.integers(1, 2**33), backed=st.booleans())
def test_an_overlay_says_of_itself_what_it_was_made_with(
    tmp_path_factory: pytest.TempPathFactory, sectors: int, backed: bool
) -> None:
    path = tmp_path_factory.mktemp("q") / "overlay"
    qcow2.create(path, sectors * 512, backing=Path("/base,img") if backed else None, backing_format="raw")
    head = path.read_bytes()[:65536]
    assert struct.unpack_from(">4sI", head) == (b"QFI\xfb", 3)
    assert struct.unpack_from(">Q", head, 24)[0] == sectors * 512
    offset, length = struct.unpack_from(">QI", head, 8)
    assert head[offset : offset + length] == (b"/base,img" if backed else b"")
    assert path.stat().st_blocks * 512 < 300_000
    if backed:
        with pytest.raises(qcow2.BadImage, match="backing file"):
            qcow2.inspect(path)
    else:
        assert qcow2.inspect(path) == qcow2.ImageInfo("qcow2", sectors * 512)


def _header(version: int = 3, backing: int = 0, features: int = 0) -> bytes:
    head = struct.pack(">4sIQIIQ", b"QFI\xfb", version, backing, 0, 16, 1 << 20)
    return head.ljust(72, b"\0") + struct.pack(">Q", features) + bytes(24)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (_header(backing=100), "backing file"),
        (_header(version=2, backing=100), "backing file"),
        (_header(features=4), "external file"),
        (_header(version=9), "version 9"),
        (b"QFI\xfb" + b"\0" * 10, "cut short"),
        (b"KDMV" + bytes(600), "vmdk image"),
        (b"conectix" + bytes(600), "vhd image"),
        (b"tiny", "no disk"),
        (b"", "no disk"),
    ],
)
def test_images_that_are_refused(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(qcow2.BadImage, match=why):
        qcow2.inspect(tmp_path / "image")


def test_images_that_are_taken(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(1000))
    assert qcow2.inspect(tmp_path / "raw") == qcow2.ImageInfo("raw", 512)
    (tmp_path / "v2").write_bytes(_header(version=2))
    assert qcow2.inspect(tmp_path / "v2") == qcow2.ImageInfo("qcow2", 1 << 20)


def read_joliet(image: bytes) -> dict[str, bytes]:
    """The files of an image, by its Joliet tree: an independent, naive reader."""
    assert image[17 * 2048 : 17 * 2048 + 6] == b"\x02CD001"
    root, size = struct.unpack_from("<I4xI", image, 17 * 2048 + 156 + 2)
    found, at = {}, root * 2048
    while at < root * 2048 + size:
        length = image[at]
        if length == 0:
            at = (at // 2048 + 1) * 2048
            continue
        extent, data_size = struct.unpack_from("<I4xI", image, at + 2)
        name = image[at + 33 : at + 33 + image[at + 32]]
        if len(name) > 1:
            found[name.decode("utf-16-be")] = image[extent * 2048 : extent * 2048 + data_size]
        at += length
    return found


LETTERS = st.characters(blacklist_characters="/;*:?\\\0", blacklist_categories=("Cs",), max_codepoint=0xFFFF)
NAMES = st.text(LETTERS, min_size=1, max_size=64)


@given(st.dictionaries(NAMES, st.binary(max_size=5000), max_size=60))
def test_a_config_disk_holds_its_files(files: dict[str, bytes]) -> None:
    image = iso.build(files, "cfgdata")
    assert len(image) % 2048 == 0
    assert read_joliet(image) == files
    assert image[16 * 2048 + 40 : 16 * 2048 + 72].decode().strip() == "cfgdata"


@pytest.mark.parametrize(("name", "label"), [("a/b", "l"), ("x" * 65, "l"), ("", "l"), ("a", "l" * 17), ("a", "")])
def test_config_disks_that_cannot_be(name: str, label: str) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        iso.build({name: b""}, label)


PARTS = st.sampled_from(["a", "b", "link", "out", "up", "..", ".", "file", "missing"])


@given(st.lists(PARTS, min_size=1, max_size=6))
def test_no_path_leads_out_of_an_image(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.mktemp("root") / "rootfs"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_text("")
    (root.parent / "file").write_text("secret")
    for where, target in (
        ("link", "/a/b"),
        ("a/out", "/../../file"),
        ("a/up", "../../.."),
        ("out", "/etc"),
        ("up", ".."),
    ):
        os.symlink(target, root / where)
    try:
        found = resolve_inside(root, "/".join(parts))
    except OSError:
        return
    assert found.is_relative_to(root)
    assert not found.is_symlink()
    assert found.resolve().is_relative_to(root)


NET = NetworkInterface(mac="52:54:00:AB:00:01", address="10.0.0.2", prefix_length=24, gateway="10.0.0.1", mtu=1400)


def seed(source: CloudInit, network: NetworkInterface = NET, **objects: object) -> dict[str, bytes]:
    return cloudinit.seed(source, instance_id="i", hostname="h", network=network, objects=objects)  # type: ignore[arg-type]


def test_a_seed_configures_the_network_unless_the_user_did() -> None:
    files = seed(CloudInit(user_data="#cloud-config\n"))
    assert json.loads(files["meta-data"]) == {"instance-id": "i", "local-hostname": "h"}
    assert files["user-data"] == b"#cloud-config\n"
    assert json.loads(files["network-config"])["ethernets"]["pod"] == {
        "match": {"macaddress": "52:54:00:ab:00:01"},
        "addresses": ["10.0.0.2/24"],
        "mtu": 1400,
        "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}],
    }
    six = replace(NET, address6="fd00::9", gateway6="fe80::1")
    assert json.loads(seed(CloudInit(), six)["network-config"])["ethernets"]["pod"] == {
        "match": {"macaddress": "52:54:00:ab:00:01"},
        "addresses": ["10.0.0.2/24", "fd00::9/128"],
        "mtu": 1400,
        "routes": [{"to": "0.0.0.0/0", "via": "10.0.0.1"}, {"to": "::/0", "via": "fe80::1"}],
    }
    assert seed(CloudInit(network_data="mine"))["network-config"] == b"mine"
    assert "network-config" not in seed(CloudInit(), NetworkInterface())


def test_a_seed_may_come_from_secrets() -> None:
    data = {"userdata": base64.b64encode(b"u").decode(), "networkdata": base64.b64encode(b"n").decode()}
    files = seed(CloudInit(user_secret="s", network_secret="s"), **{"secrets/s": {"data": data}})
    assert (files["user-data"], files["network-config"]) == (b"u", b"n")
    with pytest.raises(RuntimeFailure, match='secret "s" has no key'):
        seed(CloudInit(user_secret="s"), **{"secrets/s": {"data": {}}})
    with pytest.raises(RuntimeFailure, match="not base64"):
        seed(CloudInit(user_data_base64="!"))
