"""The SQLite file: one append-only log of object revisions, side-table rows, and a few facts about the store.

A row of ``log`` is one revision of one object (``data`` NULL: deleted); the newest row of a key is its state, older
ones stay until compaction so that watches survive a restart.  Values are stored once.  Used from one thread at a time:
the opener while loading, the writer afterwards.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from isoplane.objects.errors import ApiError, InsufficientStorage, Unavailable
from isoplane.store.backup import copy, finish_restore
from isoplane.store.errors import StoreCorrupt, StoreUnwritable
from isoplane.store.layout import (
    DATABASE,
    FORMAT,
    FROM_FORMAT_1,
    RESERVE,
    SCHEMA,
    check_writable,
    corrupt,
    examine,
    unreadable,
)
from isoplane.store.reserve import Reserve
from isoplane.store.sealing import KEYS, RESOURCES, open_keys

CHECKPOINT_PAGES = 2048
"""WAL pages (4 KiB each) after which a commit also checkpoints: 8 MiB keeps the pause short and the WAL small."""

LogRow = tuple[int, str, str, str, bytes | None]


@dataclass(slots=True)
class Write:
    """What one SQLite transaction makes durable."""

    log: list[LogRow] = field(default_factory=list)
    put_rows: list[tuple[int, str, str, bytes]] = field(default_factory=list)
    """(place, table, key, data). New rows take the next place: appending touches one page, a random key its own."""
    moved_rows: list[tuple[int, bytes, int]] = field(default_factory=list)
    """(new place, data, old place)."""
    deleted_rows: list[tuple[int]] = field(default_factory=list)
    dead: list[int] = field(default_factory=list)
    """Revisions that compaction drops."""
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of what it writes, keys aside."""
        values = (*(row[-1] or b"" for row in self.log), *(row[-1] for row in self.put_rows))
        return sum(map(len, values)) + sum(len(data) for _, data, _ in self.moved_rows)


class Database:
    """An open, checked database file in ``directory``; the caller holds the directory's lock.

    Everything in it that is to be sealed is sealed by the first key of ``key_file`` once it is open.  ``reserve``: bytes of
    the disk to keep for what frees some of it.
    """

    def __init__(self, directory: Path, key_file: Path | None = None, reserve: int = 0) -> None:
        self.path = directory / DATABASE
        self._reserve = Reserve(directory / RESERVE, reserve)
        finish_restore(directory)
        needed = ""
        if self.path.exists() and self.path.stat().st_size > 0:
            check_writable(self.path)
            needed = examine(self.path).key
        self.keys = open_keys(key_file or directory / KEYS, needed)
        try:
            # Made here with its mode: SQLite gives the WAL the mode of the main file.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreUnwritable(f"cannot open {self.path} for writing: {error.strerror}") from error
        self._wal = Path(str(self.path) + "-wal")
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=32)
            try:
                self._set_up()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.OperationalError as error:
            raise StoreUnwritable(
                f"cannot open {self.path} for writing: {error}; check its permissions and the free space"
            ) from error
        except sqlite3.DatabaseError as error:
            raise corrupt(self.path, str(error)) from error

    def _set_up(self) -> None:
        # Exclusive locking keeps the WAL index in our memory: no shared-memory file, no lock calls per commit.
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        self._db.execute("PRAGMA cache_size=-4096")
        self._db.executescript(SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO fact VALUES ('format', ?)", (str(FORMAT),))
        if self.facts()["format"] == "1":
            self._db.executescript(FROM_FORMAT_1)
        self._seal_all()
        if "scrub" in self.facts():
            self._scrub()

    # sealing

    def _unsealed(self) -> list[int]:
        """Revisions that are to be sealed and are not, or not by the key that writes."""
        places = ", ".join("?" * len(RESOURCES))
        rows = self._db.execute(
            f"SELECT revision, CAST(substr(data, 1, 64) AS BLOB) FROM log WHERE data IS NOT NULL AND resource IN ({places})",
            sorted(RESOURCES),
        )
        return [revision for revision, start in rows if not self.keys.is_current(start)]

    def _seal_all(self) -> None:
        """One transaction: all of it by the key that writes, or none. What it replaces is scrubbed after it."""
        revisions = self._unsealed()
        facts = self.facts()
        if not revisions and facts.get("encryption") == self.keys.current and facts["format"] == str(FORMAT):
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for revision in revisions:
                found = self._db.execute(
                    "SELECT resource, namespace, name, CAST(data AS BLOB) FROM log WHERE revision = ?", (revision,)
                ).fetchone()
                self._db.execute(
                    "UPDATE log SET data = ? WHERE revision = ?", (self._sealed(revision, *found), revision)
                )
            now = {"format": str(FORMAT), "encryption": self.keys.current}
            if facts["format"] != str(FORMAT) or "encryption" in facts:
                now["scrub"] = "1"  # without revisions too: deleted ones may lie in pages that are free
            self._db.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", now.items())
            self._db.execute("COMMIT")
        except BaseException:
            self._rollback()
            raise

    def _sealed(self, revision: int, resource: str, namespace: str, name: str, data: bytes) -> bytes:
        try:
            plain = self.keys.unseal(resource, namespace, name, data)
            uid = orjson.loads(plain)["metadata"].get("uid") or ""
            return self.keys.seal(resource, namespace, name, uid, plain)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self.unreadable(revision, repr(error)) from error

    def _scrub(self) -> None:
        """Nothing of what was replaced or deleted is left in the file or its log. Cut off, the next start does it again."""
        self._db.execute("VACUUM")
        busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreUnwritable(f"the log of {self.path} cannot be emptied: another process reads the file")
        self._db.execute("DELETE FROM fact WHERE name = 'scrub'")

    def check_seals(self) -> None:
        """That no value needs another key than the one that writes. Raises StoreCorrupt."""
        if left := self._unsealed():
            raise self.unreadable(left[0], f"it is not sealed with key {self.keys.current}")

    # loading

    def facts(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT name, value FROM fact"))

    def log(self) -> Iterator[LogRow]:
        """Every kept revision, oldest first. Raises StoreCorrupt when the file cannot be read on."""
        try:
            yield from self._db.execute("SELECT revision, resource, namespace, name, data FROM log ORDER BY revision")
        except sqlite3.DatabaseError as error:
            raise corrupt(self.path, str(error)) from error

    def side_rows(self) -> Iterable[tuple[int, str, str, bytes]]:
        return self._db.execute("SELECT place, tbl, key, data FROM side")

    def unreadable(self, revision: int, why: str) -> StoreCorrupt:
        return unreadable(self.path, revision, why)

    # writing

    @property
    def short(self) -> bool:
        """Whether the disk is full and the reserve is being used: only what frees some of it is to be written."""
        return self._reserve.short

    def commit(self, write: Write) -> None:
        """Make ``write`` durable, wholly or not at all. Raises an ApiError that says why not.

        What meets a full disk is tried again with a piece of the reserve, if it needs less than half of that.
        """
        while True:
            try:
                self._commit(write)
                return
            except InsufficientStorage:
                if 2 * write.size >= self._reserve.give_up():
                    raise
                self.checkpoint()  # What lies in the WAL gives its place to the next write.

    def _commit(self, write: Write) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            if write.log:
                self._db.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?)", write.log)
            if write.put_rows:
                self._db.executemany("INSERT OR REPLACE INTO side VALUES (?, ?, ?, ?)", write.put_rows)
            if write.moved_rows:
                self._db.executemany("UPDATE side SET place = ?, data = ? WHERE place = ?", write.moved_rows)
            if write.deleted_rows:
                self._db.executemany("DELETE FROM side WHERE place = ?", write.deleted_rows)
            if write.dead:
                self._db.executemany("DELETE FROM log WHERE revision = ?", [(revision,) for revision in write.dead])
            if write.facts:
                self._db.executemany("INSERT OR REPLACE INTO fact VALUES (?, ?)", write.facts.items())
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            raise self._explain(error) from error

    def _rollback(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # SQLite has rolled back by itself; the original error is the one to report.

    def _explain(self, error: sqlite3.Error) -> ApiError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._disk_is_full()):
            return InsufficientStorage(
                f"the disk of {self.path.parent} is full; nothing was written. Free some space and try again"
            )
        return Unavailable(f"the store cannot write {self.path}: {error}; nothing was written")

    def _disk_is_full(self) -> bool:
        try:
            stat = os.statvfs(self.path.parent)
        except OSError:
            return False
        return stat.f_bavail * stat.f_frsize < 1 << 20

    def checkpoint(self) -> None:
        """Move the WAL into the main file while nobody waits. A full disk only postpones it."""
        try:
            if self._wal.exists() and self._wal.stat().st_size > 0:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except (sqlite3.Error, OSError):
            pass  # The WAL keeps everything; the next commit or checkpoint reports a lasting fault.

    def maintain(self) -> None:
        """What is done while nobody waits: a checkpoint, and the reserve made whole again."""
        self.checkpoint()
        if self._reserve.short:
            self._reserve.make()

    def copy(self, target: Path, between: Callable[[], None]) -> None:
        """Copy the file while it is used; ``between`` may commit. Raises an ApiError; then nothing is left of the copy."""
        try:
            copy(self._db, target, between)
        except (sqlite3.Error, OSError) as error:
            target.unlink(missing_ok=True)
            raise Unavailable(f"the backup {target} cannot be written: {error}") from error

    def close(self) -> None:
        self._db.close()
