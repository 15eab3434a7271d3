"""The image store: names on one side, unpacked images by content on the other.

    names/<quoted name>        which image a name means: a small JSON file, replaced atomically
    images/<hex>/              one image: rootfs/, image.json, and a lock that its users hold shared
    tmp/<random>/              what is being loaded or deleted; left-overs of a crash are swept at the next load

An image appears by one rename, complete or not at all, so processes need no common lock to read; a second load of the same
content finds it there and throws its own copy away.  Removing waits for nobody: an image that a container still uses is
refused by the lock its processes hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from isoplane.node.images import reference as names
from isoplane.node.images import sources
from isoplane.node.images.model import (
    Image,
    ImageConfig,
    ImageError,
    ImageInputError,
    Progress,
    ProgressCallback,
    StoredImage,
)
from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}
_INSPECT_TIMEOUT = 60.0
_COPY_TIMEOUT = 3600.0
_PROGRESS_PERIOD = 0.1


def _silent(progress: Progress) -> None:
    """A progress callback for callers who do not watch."""


class ImageStore:
    """Images below ``root``. Any number of processes may use one store at a time."""

    def __init__(self, root: Path, *, insecure_registries: Sequence[str] = ()) -> None:
        self.root = root
        self._insecure = tuple(insecure_registries)
        self._pulls: dict[str, asyncio.Task[Image]] = {}

    # -- reading ------------------------------------------------------------------------------------------------------

    def lookup(self, reference: str) -> Image | None:
        """The image a name means in this store, or None. Raises ValueError when it is not a name."""
        wanted = names.parse(reference)
        record = self._record(wanted.canonical)
        if record is None and wanted.digest:
            record = self._by_digest(wanted)
        return self._image(wanted.canonical, record) if record else None

    async def resolve(self, reference: str, policy: str = "IfNotPresent") -> Image:
        """The image of a unit, pulled where its imagePullPolicy asks for that ('' means the Kubernetes default).

        Raises RuntimeFailure with InvalidImageName, ErrImageNeverPull or ErrImagePull.
        """
        try:
            wanted = names.parse(reference)
        except ValueError as error:
            raise RuntimeFailure(RuntimeReason.INVALID_IMAGE_NAME, str(error)) from None
        policy = policy or names.default_pull_policy(reference)
        found = await asyncio.to_thread(self.lookup, reference)
        if found is not None and (policy != "Always" or wanted.local or wanted.digest):
            return found
        if policy == "Never":
            raise RuntimeFailure(
                RuntimeReason.IMAGE_NEVER_PULL,
                f"image {wanted.canonical} is not in the local image store and imagePullPolicy is Never: "
                "load it with `isoplane image load`",
            )
        try:
            return await self._pull_once(wanted)
        except ImageError as error:
            raise RuntimeFailure(
                RuntimeReason.ERR_IMAGE_PULL,
                f"image {wanted.canonical} is not in the local image store and could not be pulled: {error}. "
                "Load it with `isoplane image load SOURCE --name NAME`, from an OCI layout, an archive or a registry"
                if found is None
                else f"image {wanted.canonical} could not be pulled again, as imagePullPolicy Always asks: {error}. "
                "With imagePullPolicy IfNotPresent the copy in the local image store is used",
            ) from None

    def list(self) -> list[StoredImage]:
        """Every image, with all its names, by name."""
        by_hex: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for path in self._directory("names").iterdir():
            name = unquote(path.name)
            if (record := self._record(name)) is not None:
                by_hex.setdefault(record["image"], []).append((name, record))
        found = []
        for hex_, entries in by_hex.items():
            entries.sort()
            name, record = entries[0]
            image = self._image(name, record)
            if image is None:
                continue
            loaded_at = max(float(r.get("loadedAt") or 0) for _, r in entries)
            created = str(self._document(hex_).get("created") or "")
            found.append(StoredImage(tuple(n for n, _ in entries), image, created, loaded_at, self._in_use(hex_)))
        return sorted(found, key=lambda stored: stored.names)

    # -- writing ------------------------------------------------------------------------------------------------------

    async def load(self, source: str, name: str | None = None, progress: ProgressCallback | None = None) -> Image:
        """Load one image and name it (``name``, else what the source calls it). Raises ImageError."""
        found = await asyncio.to_thread(sources.recognise, source, self._insecure)
        text = name or found.name
        if not text:
            raise ImageInputError(
                f"{source} does not say what its image is called: give it a name, `--name example/app:1`"
            )
        try:
            wanted = names.parse(text)
        except ValueError as error:
            raise ImageInputError(str(error)) from None
        if wanted.digest and found.transport != "docker":
            raise ImageInputError(f"{text}: a digest cannot be chosen for a loaded image: name it with a tag")
        return await self._load(found, wanted, progress or _silent)

    async def remove(self, reference: str, *, force: bool = False) -> tuple[str, ...]:
        """Forget a name, and its image with the last one. Returns what was removed. Raises ImageError.

        ``force`` removes the name even though a container uses the image, whose content then stays until it is gone.
        """
        return await asyncio.to_thread(self._remove, reference, force)

    def prune(self) -> tuple[str, ...]:
        """Remove images without a name that nobody uses, and left-overs of crashed loads."""
        self._sweep()
        named = {r["image"] for p in self._directory("names").iterdir() if (r := self._record(unquote(p.name)))}
        loose = [path.name for path in self._directory("images").iterdir() if path.name not in named]
        return tuple(f"sha256:{hex_}" for hex_ in loose if self._discard(hex_))

    # -- pulling ------------------------------------------------------------------------------------------------------

    async def _pull_once(self, wanted: names.Reference) -> Image:
        """Pull; those who ask for the same name meanwhile share the work."""
        task = self._pulls.get(wanted.canonical)
        if task is None:
            task = asyncio.ensure_future(self._pull(wanted))
            self._pulls[wanted.canonical] = task
            task.add_done_callback(lambda _: self._pulls.pop(wanted.canonical, None))
        return await asyncio.shield(task)

    async def _pull(self, wanted: names.Reference) -> Image:
        if wanted.local:
            raise ImageError(
                f"images under {names.LOCAL_DOMAIN}/ are built on this machine (`isoplane image build-demo`)"
            )
        return await self._load(sources.registry(wanted, self._insecure), wanted, _silent)

    async def _load(self, source: sources.Source, wanted: names.Reference, progress: ProgressCallback) -> Image:
        flags = ("--src-tls-verify=false",) if source.plain_http else ()
        digest, total = "", source.size
        if source.transport == "docker":
            progress(Progress("asking the registry"))
            digest, total = await _remote_manifest(source)
            record = await asyncio.to_thread(self._record, wanted.canonical)
            if record is not None and record.get("digest") == digest:
                return _present(self._image(wanted.canonical, record), wanted.canonical)
        with self._scratch() as scratch:
            layout = scratch / "layout"
            copy = sources.run("skopeo", "copy", *flags, source.url, f"oci:{layout}:image", timeout=_COPY_TIMEOUT)
            await _watched(copy, layout, total, progress)
            manifest_digest, manifest, document = await asyncio.to_thread(_read_layout, layout)
            _check_platform(wanted.canonical, document)
            hex_ = manifest_digest.removeprefix("sha256:")
            rootless = () if os.geteuid() == 0 else ("--rootless",)
            if not (self._directory("images") / hex_).exists():
                progress(Progress("unpacking", total, total))
                await sources.run(
                    "umoci", "raw", "unpack", *rootless, "--image", f"{layout}:image", str(scratch / "rootfs"), timeout=_COPY_TIMEOUT
                )  # fmt: skip
                size = sum(int(layer.get("size") or 0) for layer in manifest.get("layers") or ())
                await asyncio.to_thread(self._keep, scratch, hex_, {**document, "isoplaneSize": size})
            image = await asyncio.to_thread(self._name, wanted.canonical, hex_, digest or manifest_digest)
        progress(Progress("done", total, total))
        return image

    # -- files --------------------------------------------------------------------------------------------------------

    def _directory(self, kind: str) -> Path:
        path = self.root / kind
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def _name_path(self, canonical: str) -> Path:
        return self._directory("names") / quote(canonical, safe="")

    def _record(self, canonical: str) -> dict[str, Any] | None:
        path = self._name_path(canonical)
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            raise ImageError(f"{path} is damaged: delete the file and load {canonical} again") from None
        return record if isinstance(record, dict) and "image" in record else None

    def _by_digest(self, wanted: names.Reference) -> dict[str, Any] | None:
        """``repository@digest`` means whatever name of that repository has this digest."""
        for path in self._directory("names").iterdir():
            name = unquote(path.name)
            record = self._record(name)
            if record and record.get("digest") == wanted.digest and names.parse(name).repository == wanted.repository:
                return record
        return None

    def _document(self, hex_: str) -> dict[str, Any]:
        try:
            document = json.loads((self.root / "images" / hex_ / "image.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def _image(self, canonical: str, record: dict[str, Any]) -> Image | None:
        hex_ = str(record["image"])
        document = self._document(hex_)
        if not document:
            return None
        rootfs = self.root / "images" / hex_ / "rootfs"
        size = int(document.get("isoplaneSize") or 0)
        return Image(canonical, str(record["digest"]), rootfs, ImageConfig.of(document), size)

    def _name(self, canonical: str, hex_: str, digest: str) -> Image:
        before = self._record(canonical)
        record = {"image": hex_, "digest": digest, "loadedAt": time.time()}
        path = self._name_path(canonical)
        fd, temporary = tempfile.mkstemp(dir=self._directory("tmp"))
        with os.fdopen(fd, "w") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if before is not None and before["image"] != hex_:
            self._collect(before["image"])
        return _present(self._image(canonical, record), canonical)

    def _keep(self, scratch: Path, hex_: str, document: dict[str, Any]) -> None:
        """Move an unpacked image to its place, complete, on the disk before its name is."""
        new = scratch / "image"
        new.mkdir(mode=0o755)
        os.rename(scratch / "rootfs", new / "rootfs")
        (new / "image.json").write_text(json.dumps(document))
        (new / "lock").touch()
        _sync_filesystem(new)
        with contextlib.suppress(FileExistsError, OSError):
            os.rename(new, self._directory("images") / hex_)
        if not (self.root / "images" / hex_ / "image.json").exists():
            raise ImageError(
                f"{self.root / 'images' / hex_} cannot be written: is the data directory full or read-only?"
            )

    def _remove(self, reference: str, force: bool) -> tuple[str, ...]:
        try:
            canonical = names.parse(reference).canonical
        except ValueError as error:
            raise ImageInputError(str(error)) from None
        record = self._record(canonical)
        if record is None:
            raise ImageError(f"image {canonical} is not in the local image store: `isoplane image list` shows what is")
        others = [
            name
            for path in self._directory("names").iterdir()
            if (name := unquote(path.name)) != canonical
            and (other := self._record(name)) is not None
            and other["image"] == record["image"]
        ]
        if not others and not force and self._in_use(record["image"]):
            raise ImageError(
                f"image {canonical} is in use: delete what runs from it first, or `--force` to drop the name"
            )
        self._name_path(canonical).unlink(missing_ok=True)
        removed = [canonical]
        if not others and self._discard(record["image"]):
            removed.append(f"sha256:{record['image']}")
        return tuple(removed)

    def _collect(self, hex_: str) -> None:
        """Discard an image that lost a name, unless it has another."""
        if not any(
            (r := self._record(unquote(p.name))) and r["image"] == hex_ for p in self._directory("names").iterdir()
        ):
            self._discard(hex_)

    def _in_use(self, hex_: str) -> bool:
        fd = _try_lock(self.root / "images" / hex_ / "lock")
        if fd is None:
            return True
        os.close(fd)
        return False

    def _discard(self, hex_: str) -> bool:
        """Delete an image's content unless somebody uses it."""
        path = self.root / "images" / hex_
        fd = _try_lock(path / "lock")
        if fd is None:
            return False
        try:
            grave = Path(tempfile.mkdtemp(dir=self._directory("tmp")))
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, grave / "image")
            _delete_tree(grave)
        finally:
            os.close(fd)
        return True

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A directory for one load, locked while this process lives, so that a crash's left-overs can be told apart."""
        self._sweep()
        path = Path(tempfile.mkdtemp(dir=self._directory("tmp")))
        fd = os.open(path / "lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            _delete_tree(path)
            os.close(fd)

    def _sweep(self) -> None:
        for path in self._directory("tmp").iterdir():
            if time.time() - path.stat(follow_symlinks=False).st_mtime < 2.0:
                continue  # it may be a moment before its owner locks it
            if path.is_dir():
                fd = _try_lock(path / "lock")
                if fd is not None:
                    _delete_tree(path)
                    os.close(fd)
            else:
                path.unlink(missing_ok=True)


def _present(image: Image | None, canonical: str) -> Image:
    if image is None:
        raise ImageError(f"image {canonical} vanished from the store while it was being loaded: load it again")
    return image


def _try_lock(path: Path) -> int | None:
    """An exclusive lock taken at once, or None when somebody holds it. A missing file is nobody's: -1 would mislead."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _delete_tree(path: Path) -> None:
    """Delete, whatever modes the image gave its directories (root may; others first open them up)."""
    if os.geteuid() != 0:
        for directory, _, _ in os.walk(path):
            with contextlib.suppress(OSError):
                os.chmod(directory, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def _sync_filesystem(path: Path) -> None:
    """Put on the disk what an image consists of before anything points at it. A load is rare, and a whole sync is plain."""
    for file in path.glob("image.json"):
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    os.sync()


def _read_layout(layout: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """(manifest digest, manifest, image configuration) of the one image in a layout that skopeo wrote."""
    try:
        index = json.loads((layout / "index.json").read_bytes())
        digest = str(index["manifests"][0]["digest"])
        manifest = json.loads(_blob(layout, digest))
        document = json.loads(_blob(layout, str(manifest["config"]["digest"])))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ImageError(f"the image's manifest cannot be read: {type(error).__name__}: {error}") from None
    return digest, manifest, document


def _blob(layout: Path, digest: str) -> bytes:
    algorithm, _, hex_ = digest.partition(":")
    return (layout / "blobs" / algorithm / hex_).read_bytes()


def _check_platform(name: str, document: dict[str, Any]) -> None:
    system, architecture = document.get("os") or "linux", document.get("architecture") or ""
    here = _MACHINES.get(platform.machine(), platform.machine())
    if system != "linux" or (architecture and architecture != here):
        raise ImageError(f"{name} is an image for {system}/{architecture or '?'}; this machine is linux/{here}")


async def _remote_manifest(source: sources.Source) -> tuple[str, int]:
    """(digest of what the registry serves under the name, bytes to download for this platform; 0 unknown)."""
    flags = ("--tls-verify=false",) if source.plain_http else ()
    raw = await sources.run("skopeo", "inspect", "--raw", *flags, source.url, timeout=_INSPECT_TIMEOUT)
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    try:
        layers = json.loads(raw).get("layers") or ()
        return digest, sum(int(layer.get("size") or 0) for layer in layers)
    except (ValueError, AttributeError, TypeError):
        raise ImageError(f"{source.url}: the registry answered with something that is not a manifest") from None


async def _watched(work: Awaitable[bytes], layout: Path, total: int, progress: ProgressCallback) -> None:
    """Await a copy and tell how many bytes have arrived."""
    task = asyncio.ensure_future(work)
    if progress is _silent:
        await task
        return

    def measure() -> int:
        return sum(entry.stat().st_size for entry in layout.rglob("*") if entry.is_file())

    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_PROGRESS_PERIOD)
            with contextlib.suppress(OSError):
                done = await asyncio.to_thread(measure)
                progress(Progress("copying", min(done, total) if total else done, total))
        await task
    finally:
        task.cancel()
