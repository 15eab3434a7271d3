"""Backup and restore of the store: one SQLite file out of a running or stopped plane, and back into a data directory.

A backup is a state that the store was in while it was made, and counts as made only once it was read back whole.  It
holds objects, quota ledger and watch log; certificates, encryption keys and images are no part of it.

A restore is decided by one rename: before it nothing has changed, after it :func:`finish_restore` carries the rest
through, at the next start at the latest.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from isoplane.store.errors import BackupFailed, StoreError, StoreOccupied
from isoplane.store.layout import DATABASE, RESERVE, Contents, examine, quote
from isoplane.store.lock import DirectoryLock
from isoplane.store.sealing import KEYS

PAGES = 256
"""Copied at a time (1 MiB): between two helpings a running plane commits what waits."""

REVISION_GAP = 1_000_000_000
"""Added to the revision by a restore, so that what was handed out after the backup is never handed out again: a watch
that goes on from there is told to list again."""

_BESIDE = ("lock", "pki", "kubeconfig", KEYS, RESERVE)
"""What may lie in a data directory that counts as empty: it was put there to go with the backup."""

_COPYING, _DECIDED = f"{DATABASE}.copying", f"{DATABASE}.restored"


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made and read back."""

    path: str
    size: int
    revision: int
    objects: int
    key: str
    """The id of the encryption key that its Secrets need; '' for one of before there were any."""

    def to_json(self) -> dict[str, str | int]:
        return asdict(self)


def copy(source: sqlite3.Connection, target: Path, between: Callable[[], None] = lambda: None) -> None:
    """Write a copy of ``source`` to the new file ``target``, mode 0600; ``between`` runs between two helpings.

    Writes that ``between`` makes on the same connection are in the copy. Raises sqlite3.Error or OSError.
    """
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as db:
        source.backup(db, pages=PAGES, progress=lambda status, remaining, total: between())
        # One file that needs no other beside it.
        db.execute("PRAGMA journal_mode=DELETE")
        if db.execute("DELETE FROM fact WHERE name = 'scrub'").rowcount:
            db.execute("VACUUM")  # free pages may hold what was there before it was sealed


def partial_of(target: Path) -> Path:
    """Where a backup lies until it is known to be good. Raises BackupFailed when ``target`` cannot be a new file."""
    if target.exists():
        raise BackupFailed(f"{target} exists already: choose another name, or remove it first")
    if not target.parent.is_dir():
        raise BackupFailed(f"{target.parent} is no directory")
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    return partial


def finish(partial: Path, target: Path) -> Backup:
    """Read the copy back, make it durable and give it its name. Raises BackupFailed; then nothing is left of it."""
    try:
        contents = examine(partial, thorough=True)
        _sync(partial)
        os.link(partial, target)
        partial.unlink()
        _sync(target.parent)
        return Backup(str(target), target.stat().st_size, contents.revision, contents.objects, contents.key)
    except (StoreError, OSError) as error:
        partial.unlink(missing_ok=True)
        raise BackupFailed(f"the backup {target} was not made: {error}") from error


def back_up_stopped(directory: Path, target: Path) -> Backup:
    """Back up a data directory that no plane runs on. Raises StoreLocked when one does, or another StoreError."""
    database = directory / DATABASE
    if not database.is_file():
        raise BackupFailed(f"{directory} holds no store: {database} does not exist")
    partial = partial_of(target)
    lock = DirectoryLock(directory)
    try:
        finish_restore(directory)
        examine(database)
        try:
            with contextlib.closing(sqlite3.connect(f"file:{quote(database)}?mode=rw", uri=True)) as source:
                copy(source, partial)
        except (sqlite3.Error, OSError) as error:
            partial.unlink(missing_ok=True)
            raise BackupFailed(f"the backup {target} was not made: {error}") from error
        return finish(partial, target)
    finally:
        lock.release()


def restore(backup: Path, directory: Path, *, force: bool = False) -> tuple[Contents, Path | None]:
    """Put a backup in the place of the store in ``directory``; returns what it holds and where the replaced one lies.

    Raises StoreLocked when a plane runs there, StoreOccupied without ``force`` when it holds something, or another
    StoreError that tells what is wrong with the backup.  Nothing was changed then.
    """
    contents = examine(backup, thorough=True)
    if not contents.format:
        raise BackupFailed(f"{backup} is empty: it is no backup of a store")
    lock = DirectoryLock(directory)
    try:
        finish_restore(directory)
        held = sorted(entry.name for entry in directory.iterdir() if entry.name not in _BESIDE)
        if held and not force:
            raise StoreOccupied(
                f"{directory} is not empty (it holds {', '.join(held[:5])}); "
                "--force replaces its store and keeps the replaced one beside it"
            )
        copying = directory / _COPYING
        copying.unlink(missing_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(f"file:{quote(backup)}?mode=ro", uri=True)) as source:
                copy(source, copying)
            with contextlib.closing(sqlite3.connect(copying)) as db, db:
                revision = str(contents.revision + REVISION_GAP)
                db.executemany(
                    "INSERT OR REPLACE INTO fact VALUES (?, ?)", [("revision", revision), ("compacted", revision)]
                )
            _sync(copying)
            copying.rename(directory / _DECIDED)
            _sync(directory)
            return contents, finish_restore(directory)
        except (sqlite3.Error, OSError) as error:
            raise BackupFailed(f"cannot restore {backup} into {directory}: {error}") from error
    finally:
        lock.release()


def finish_restore(directory: Path) -> Path | None:
    """Carry a decided restore through, however far it came; returns where the replaced store lies, None without one.

    The caller holds the directory's lock.
    """
    decided = directory / _DECIDED
    if not decided.exists():
        return None
    seconds, nanoseconds = divmod(decided.stat().st_mtime_ns, 1_000_000_000)
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
    kept = directory / f"replaced-{moment}.{nanoseconds:09}Z"
    for name in (f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal", DATABASE):
        if (directory / name).exists():
            kept.mkdir(mode=0o700, exist_ok=True)
            (directory / name).rename(kept / name)
    if kept.exists():
        _sync(kept)
    _sync(directory)
    decided.rename(directory / DATABASE)
    _sync(directory)
    return kept if kept.exists() else None


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
