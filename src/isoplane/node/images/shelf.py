"""The image store's files: what is where, what replaces what atomically, what may be deleted. Blocking.

    names/<hash of name>       which image a name means: a small JSON file, replaced atomically
    images/<hex>/              one image: rootfs/, image.json, and a lock that its users hold shared
    tmp/<random>/              what is being loaded or deleted; left-overs of a crash are swept at the next load

An image appears by one rename, complete or not at all, so processes need no common lock to read; a second load of the same
content finds it there and throws its own copy away.  Removing waits for nobody: an image that a container still uses is
refused by the lock its processes hold.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isoplane.node.formats import IMAGE_NAME, RecordsRefused
from isoplane.node.images import reference as names
from isoplane.node.images.model import Image, ImageConfig, ImageError, ImageInputError, StoredImage
from isoplane.node.trees import remove_tree


class Shelf:
    """Images and their names below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prune(self) -> tuple[str, ...]:
        """Remove images without a name that nobody uses, and left-overs of crashed loads."""
        self._sweep()
        named = {record["image"] for record in self.records()}
        loose = [path.name for path in self._directory("images").iterdir() if path.name not in named]
        return tuple(f"sha256:{hex_}" for hex_ in loose if self._discard(hex_))

    def list(self) -> list[StoredImage]:
        """Every image, with all its names, by name."""
        by_hex: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        for record in self.records():
            by_hex.setdefault(record["image"], []).append((record["name"], record))
        found = []
        for hex_, entries in by_hex.items():
            entries.sort(key=lambda entry: entry[0])
            name, record = entries[0]
            image = self.image(name, record)
            if image is None:
                continue
            loaded_at = max(float(r.get("loadedAt") or 0) for _, r in entries)
            created = str(self._document(hex_).get("created") or "")
            found.append(StoredImage(tuple(n for n, _ in entries), image, created, loaded_at, self._in_use(hex_)))
        return sorted(found, key=lambda stored: stored.names)

    def _directory(self, kind: str) -> Path:
        path = self.root / kind
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def _name_path(self, canonical: str) -> Path:
        # A name may be longer than a file's name can be.
        return self._directory("names") / hashlib.sha256(canonical.encode()).hexdigest()[:40]

    def records(self) -> Iterator[dict[str, Any]]:
        """Every name's record: name, image (hex), digest, loadedAt."""
        for path in self._directory("names").iterdir():
            if (record := _read_record(path)) is not None:
                yield record

    def record(self, canonical: str) -> dict[str, Any] | None:
        """What a name means, or None."""
        return _read_record(self._name_path(canonical))

    def by_digest(self, wanted: names.Reference) -> dict[str, Any] | None:
        """``repository@digest`` means whatever name of that repository has this digest."""
        for record in self.records():
            repository = names.parse(record["name"]).repository
            if record.get("digest") == wanted.digest and repository == wanted.repository:
                return record
        return None

    def has(self, hex_: str) -> bool:
        """Whether an image's content is there."""
        return (self.root / "images" / hex_ / "image.json").exists()

    def pin(self, hex_: str) -> int:
        """A descriptor that keeps an image's content while it has no name yet. Raises ImageError when it is gone."""
        return _pinned(self.root / "images" / hex_ / "lock", hex_)

    def _document(self, hex_: str) -> dict[str, Any]:
        try:
            document = json.loads((self.root / "images" / hex_ / "image.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def image(self, canonical: str, record: dict[str, Any]) -> Image | None:
        hex_ = str(record["image"])
        document = self._document(hex_)
        if not document:
            return None
        rootfs = self.root / "images" / hex_ / "rootfs"
        size = int(document.get("isoplaneSize") or 0)
        return Image(canonical, str(record["digest"]), rootfs, ImageConfig.of(document), size)

    def name(self, canonical: str, hex_: str, digest: str) -> Image:
        before = self.record(canonical)
        record = {"name": canonical, "image": hex_, "digest": digest, "loadedAt": time.time()}
        path = self._name_path(canonical)
        fd, temporary = tempfile.mkstemp(dir=self._directory("tmp"))
        with os.fdopen(fd, "w") as file:
            json.dump(IMAGE_NAME.stamp(record), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if before is not None and before["image"] != hex_:
            self._collect(before["image"])
        return present(self.image(canonical, record), canonical)

    def keep(self, scratch: Path, hex_: str, document: dict[str, Any]) -> None:
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

    def remove(self, reference: str, force: bool) -> tuple[str, ...]:
        try:
            canonical = names.parse(reference).canonical
        except ValueError as error:
            raise ImageInputError(str(error)) from None
        record = self.record(canonical)
        if record is None:
            raise ImageError(f"image {canonical} is not in the local image store: `isoplane image list` shows what is")
        others = [r for r in self.records() if r["name"] != canonical and r["image"] == record["image"]]
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
        if not any(record["image"] == hex_ for record in self.records()):
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
            remove_tree(grave)
        finally:
            os.close(fd)
        return True

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory for one load, locked while this process lives, so that a crash's left-overs can be told apart."""
        self._sweep()
        path = Path(tempfile.mkdtemp(dir=self._directory("tmp")))
        fd = os.open(path / "lock", os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            remove_tree(path)
            os.close(fd)

    def _sweep(self) -> None:
        for path in self._directory("tmp").iterdir():
            if time.time() - path.stat(follow_symlinks=False).st_mtime < 2.0:
                continue  # it may be a moment before its owner locks it
            if path.is_dir():
                fd = _try_lock(path / "lock")
                if fd is not None:
                    remove_tree(path)
                    os.close(fd)
            else:
                path.unlink(missing_ok=True)


def _read_record(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        record = None
    if not isinstance(record, dict) or not {"name", "image", "digest"} <= record.keys():
        raise ImageError(f"{path} is damaged: delete the file, and load the image again that is then missing")
    try:
        return IMAGE_NAME.read(record)
    except RecordsRefused as refused:
        raise ImageError(f"{path}: {refused}; use that version, or another --images") from None


def _pinned(path: Path, hex_: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ImageError(f"image {hex_[:12]} was removed while it was being loaded: load it again") from None
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def present(image: Image | None, canonical: str) -> Image:
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


def _sync_filesystem(path: Path) -> None:
    """Put on the disk what an image consists of before anything points at it: one call, as thousands of files may be new."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), f"syncfs: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(fd)
