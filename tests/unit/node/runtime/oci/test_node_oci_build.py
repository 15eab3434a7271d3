"""Small images from local files: the same input gives the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

from isoplane.node.images.build import Entry, write_layout
from isoplane.node.images.demo import web_entries

ENTRIES = [Entry("d"), Entry("d/f", 0o640, b"content"), Entry("l", link="/d/f"), Entry("t", 0o1777)]


def test_the_same_input_gives_the_same_digest(tmp_path: Path) -> None:
    first = write_layout(tmp_path / "a", ENTRIES, {"Cmd": ["x"]})
    assert write_layout(tmp_path / "b", ENTRIES, {"Cmd": ["x"]}) == first
    assert write_layout(tmp_path / "c", ENTRIES, {"Cmd": ["y"]}) != first


def test_the_layer_holds_what_was_given(tmp_path: Path) -> None:
    digest = write_layout(tmp_path, ENTRIES, {}, tag="v1")
    index = json.loads((tmp_path / "index.json").read_bytes())
    assert index["manifests"][0]["digest"] == digest
    assert index["manifests"][0]["annotations"] == {"org.opencontainers.image.ref.name": "v1"}
    blobs = tmp_path / "blobs" / "sha256"
    manifest = json.loads((blobs / digest[7:]).read_bytes())
    layer = gzip.decompress((blobs / manifest["layers"][0]["digest"][7:]).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        members = {m.name: m for m in archive.getmembers()}
        assert members["d"].isdir()
        assert (members["d/f"].mode, members["d/f"].size) == (0o640, 7)
        assert (members["l"].issym(), members["l"].linkname) == (True, "/d/f")
        assert members["t"].mode == 0o1777


def test_the_demo_serves_with_a_shell_that_hears_sigterm(tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_text("#!/bin/sh\nprintf 'bin/sh\\nusr/bin/wget\\nlinuxrc\\n'\n")
    busybox.chmod(0o755)
    entries = {entry.path: entry for entry in web_entries(busybox)}
    assert entries["bin/sh"].link == "/bin/busybox"
    assert b"trap" in (entries["bin/serve"].content or b"")
    assert b"<h1>" in (entries["www/index.html"].content or b"")
