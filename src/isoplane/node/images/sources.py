"""Where an image can come from, and how skopeo is told so.

``recognise`` turns what a person wrote (a path, a transport, a registry reference) into a Source; ``skopeo`` runs one
skopeo command.  Keeping what comes out is the store's affair.
"""

from __future__ import annotations

import asyncio
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from isoplane.node.images import reference as names
from isoplane.node.images.model import ImageError, ImageInputError
from isoplane.node.programs import which

_OCI_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
TRANSPORTS = ("docker", "oci", "oci-archive", "docker-archive")


@dataclass(frozen=True, slots=True)
class Source:
    """One image somewhere. ``name`` is what the source itself calls it ('' when it does not); ``size`` in bytes, 0 unknown."""

    transport: str
    location: str
    """What follows ``transport:`` for skopeo."""
    name: str = ""
    size: int = 0
    plain_http: bool = False

    @property
    def url(self) -> str:
        return f"{self.transport}:{self.location}"


def registry(reference: names.Reference, insecure: Sequence[str] = ()) -> Source:
    """An image in a registry; registries on loopback and those listed in ``insecure`` are asked over plain HTTP."""
    # skopeo takes a tag or a digest, not both; the digest decides.
    location = reference.repository + (f"@{reference.digest}" if reference.digest else f":{reference.tag}")
    plain = reference.loopback or reference.domain in insecure
    return Source("docker", f"//{location}", reference.canonical, plain_http=plain)


def recognise(text: str, insecure: Sequence[str] = ()) -> Source:
    """Read a source. Raises ImageInputError when nothing can be found there, saying what was looked for.

    Accepted: ``docker://NAME``; ``oci:DIR[:NAME]``, ``oci-archive:FILE[:NAME]``, ``docker-archive:FILE[:NAME]``; the bare
    path of a directory or file; else an image name to be asked of its registry.
    """
    transport, colon, rest = text.partition(":")
    if colon and transport == "docker" and rest.startswith("//"):
        return registry(_parse(rest[2:]), insecure)
    if colon and transport in TRANSPORTS:
        path, name = _split(rest)
        return _local(path, name, transport)
    path, name = _split(text)
    if path.exists():
        return _local(path, name, "")
    if text.startswith(("/", ".", "~")):
        raise ImageInputError(f"{text}: no such file or directory")
    return registry(_parse(text), insecure)


def _parse(text: str) -> names.Reference:
    try:
        reference = names.parse(text)
    except ValueError as error:
        raise ImageInputError(str(error)) from None
    if reference.local:
        raise ImageInputError(
            f"{reference.canonical}: images under {names.LOCAL_DOMAIN}/ are built on this machine and never fetched; "
            "give the path of an OCI layout or archive, or run `isoplane image build-demo`"
        )
    return reference


def _split(text: str) -> tuple[Path, str]:
    """PATH[:NAME]; an existing path that has a colon in its own name wins."""
    whole = Path(text).expanduser()
    if whole.exists() or ":" not in text:
        return whole, ""
    path, _, name = text.partition(":")
    return Path(path).expanduser(), name


def _local(path: Path, name: str, transport: str) -> Source:
    if not path.exists():
        raise ImageInputError(f"{path}: no such file or directory")
    if path.is_dir():
        if transport not in ("", "oci") or not (path / "oci-layout").is_file():
            raise ImageInputError(f"{path} is a directory without an oci-layout file: not an OCI image layout")
        index = _read_json((path / "index.json").read_bytes, path)
        return _from_index(index, "oci", path, name, _tree_size(path / "blobs"))
    members = _archive_members(path)
    kind = transport
    if not kind:
        kind = "docker-archive" if "manifest.json" in members else "oci-archive" if "oci-layout" in members else ""
    size = path.stat().st_size
    if kind == "oci-archive" and "index.json" in members:
        return _from_index(_read_json(lambda: members["index.json"], path), kind, path, name, size)
    if kind == "docker-archive" and "manifest.json" in members:
        return _from_docker_manifest(_read_json(lambda: members["manifest.json"], path), path, name, size)
    raise ImageInputError(
        f"{path} is {'not a ' + transport if transport else 'neither an OCI nor a docker archive'}: "
        "expected a tar file with index.json or manifest.json, as written by `skopeo copy` or `docker save`"
    )


def _read_json(read: Callable[[], bytes], path: Path) -> object:
    try:
        return json.loads(read())
    except (OSError, ValueError) as error:
        raise ImageInputError(f"{path}: its list of images cannot be read: {error}") from None


def _archive_members(path: Path) -> dict[str, bytes]:
    """The small files that tell what an archive holds."""
    wanted = ("oci-layout", "index.json", "manifest.json")
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if name in wanted and member.isreg() and member.size < 4 << 20:
                    content = archive.extractfile(member)
                    found[name] = content.read() if content else b""
                if len(found) == len(wanted):
                    break
    except (tarfile.TarError, OSError, EOFError) as error:
        if not found:
            raise ImageInputError(f"{path} cannot be read as an image archive: {error}") from None
    return found


def _from_index(index: object, transport: str, path: Path, wanted: str, size: int) -> Source:
    manifests = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(manifests, list) or not manifests:
        raise ImageInputError(f"{path} holds no image")
    annotations = [dict(m.get("annotations") or {}) for m in manifests if isinstance(m, dict)]
    tags = [a[_OCI_NAME] for a in annotations if _OCI_NAME in a]
    if wanted and wanted not in tags:
        raise ImageInputError(
            f"{path} holds no image named {wanted!r}, but {', '.join(sorted(tags)) or 'one without a name'}"
        )
    if not wanted and len(set(tags)) > 1:
        listed = ", ".join(sorted(set(tags)))
        raise ImageInputError(f"{path} holds several images ({listed}): name one, as in {transport}:{path}:{tags[0]}")
    tag = wanted or (tags[0] if tags else "")
    chosen = next((a for a in annotations if a.get(_OCI_NAME, "") == tag), {})
    full = chosen.get(_CONTAINERD_NAME) or (tag if "/" in tag else "")
    location = f"{path}:{tag}" if tag else str(path)
    return Source(transport, location, full, size)


def _from_docker_manifest(manifest: object, path: Path, wanted: str, size: int) -> Source:
    entries = [e for e in manifest if isinstance(e, dict)] if isinstance(manifest, list) else []
    tags = [str(tag) for entry in entries for tag in entry.get("RepoTags") or ()]
    if not entries:
        raise ImageInputError(f"{path} holds no image")
    if wanted:
        canonical = _parse_any(wanted)
        match = next((tag for tag in tags if _parse_any(tag) == canonical), "")
        if not match:
            raise ImageInputError(
                f"{path} holds no image named {wanted!r}, but {', '.join(tags) or 'one without a name'}"
            )
        return Source("docker-archive", f"{path}:{match}", match, size)
    if len(entries) > 1:
        raise ImageInputError(
            f"{path} holds several images ({', '.join(tags)}): name one, as in docker-archive:{path}:NAME"
        )
    return Source("docker-archive", str(path), tags[0] if tags else "", size)


def _parse_any(text: str) -> str:
    try:
        return names.parse(text).canonical
    except ValueError as error:
        raise ImageInputError(str(error)) from None


def _tree_size(path: Path) -> int:
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


async def run(tool: str, *arguments: str, timeout: float) -> bytes:
    """Run skopeo or umoci and give back what it printed. Raises ImageError with the last thing it said."""
    path = which(tool)
    if path is None:
        raise ImageError(f"{tool} is not installed: on Debian, `apt-get install {tool}`")
    process = await asyncio.create_subprocess_exec(
        path,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    try:
        async with asyncio.timeout(timeout):
            output, errors = await process.communicate()
    except BaseException as error:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if isinstance(error, TimeoutError):
            raise ImageError(f"{tool} gave no result within {timeout:.0f} s") from None
        raise
    if process.returncode != 0:
        raise ImageError(_last_words(errors.decode(errors="replace"), tool))
    return output


def _last_words(text: str, tool: str) -> str:
    """The message of a Go tool's last log line: ``time="…" level=fatal msg="…"``."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return f"{tool} failed without saying why"
    last = lines[-1].strip()
    _, marker, message = last.partition('msg="')
    if marker:
        return message.rstrip('"').replace('\\"', '"').replace("\\n", " ")
    return last
