"""Small images from local files: one layer, written as an OCI image layout that any tool can read.

The same input gives the same bytes, hence the same digest.  What goes into an image is its caller's affair; loading the
layout is the store's.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symbolic link. Exactly one of ``content``, ``link`` is set; neither makes a directory."""

    path: str
    mode: int = 0o755
    content: bytes | None = None
    link: str = ""


def write_layout(target: Path, entries: Sequence[Entry], config: Mapping[str, Any], tag: str = "image") -> str:
    """Write a layout with one image to ``target`` (made if need be) and return the manifest's digest.

    ``config`` is the ``config`` member of the image configuration: Env, Cmd, Entrypoint, WorkingDir, StopSignal…
    """
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    layer = _layer(entries)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=6) as stream:
        stream.write(layer)
    document = {
        "created": _EPOCH,
        "architecture": _MACHINES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        "history": [{"created": _EPOCH, "created_by": "isoplane image build"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(blobs, _json(document), "application/vnd.oci.image.config.v1+json"),
        "layers": [_blob(blobs, packed.getvalue(), "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    described = _blob(blobs, _json(manifest), "application/vnd.oci.image.manifest.v1+json")
    described["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (target / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [described]}))
    (target / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return str(described["digest"])


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _blob(blobs: Path, content: bytes, media_type: str) -> dict[str, Any]:
    hex_ = hashlib.sha256(content).hexdigest()
    (blobs / hex_).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{hex_}", "size": len(content)}


def _layer(entries: Sequence[Entry]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            member = tarfile.TarInfo(entry.path.strip("/"))
            member.mode = entry.mode
            if entry.link:
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.link, 0o777
            elif entry.content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(entry.content)
            archive.addfile(member, io.BytesIO(entry.content) if entry.content is not None else None)
    return buffer.getvalue()
