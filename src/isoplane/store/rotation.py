"""A new encryption key for a store that no plane runs on.

The new key is durable before anything is sealed with it, the old one is dropped after nothing needs it; in between the
store opens with either.  Killed anywhere, the same call carries it through.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isoplane.store.backup import finish_restore
from isoplane.store.database import Database
from isoplane.store.errors import BackupFailed
from isoplane.store.layout import DATABASE, examine
from isoplane.store.lock import DirectoryLock
from isoplane.store.sealing import KEYS, new_key, open_keys, write_keys


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did. ``resumed``: an earlier one had been cut off, and was carried through."""

    path: Path
    current: str
    dropped: tuple[str, ...]
    resumed: bool


def rotate(directory: Path, key_file: Path | None = None) -> Rotation:
    """Seal everything with a new key and forget the others. Raises StoreLocked when a plane runs, or another StoreError."""
    if not (directory / DATABASE).is_file():
        raise BackupFailed(f"{directory} holds no store: {directory / DATABASE} does not exist")
    path = key_file or directory / KEYS
    lock = DirectoryLock(directory)
    try:
        finish_restore(directory)
        keys = open_keys(path, examine(directory / DATABASE).key)
        resumed = len(keys.keys) > 1
        if not resumed:
            write_keys(path, [new_key(), *keys.keys])
        database = Database(directory, path)  # seals what is not sealed by the first key
        try:
            keys = database.keys
            database.check_seals()
        finally:
            database.close()
        write_keys(path, keys.keys[:1])
        return Rotation(path, keys.current, tuple(key.name for key in keys.keys[1:]), resumed)
    finally:
        lock.release()
