"""The SQLite file: one append-only log of object revisions, side-table rows, and a few facts about the store.

A row of ``log`` is one revision of one object (``data`` NULL: deleted); the newest row of a key is its state, older
ones stay until compaction so that watches survive a restart.  Values are stored once.  Used from one thread at a time:
the opener while loading, the writer afterwards.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from isoplane.objects.errors import ApiError, InsufficientStorage, Unavailable
from isoplane.store.errors import StoreCorrupt, StoreNewer, StoreUnwritable

FORMAT = 2
"""Raised when the layout below changes; a newer file is refused, an older one brought up to date once all of it was read.

1: side rows by key. 2: side rows by place."""

_READABLE = tuple(str(number) for number in range(1, FORMAT + 1))
_SCHEMA = """
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (
    revision INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, data BLOB);
CREATE TABLE IF NOT EXISTS side (place INTEGER PRIMARY KEY, tbl TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL);
"""
_FROM_FORMAT_1 = """
BEGIN IMMEDIATE;
ALTER TABLE side RENAME TO side_1;
CREATE TABLE side (place INTEGER PRIMARY KEY, tbl TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL);
INSERT INTO side (tbl, key, data) SELECT tbl, key, data FROM side_1;
DROP TABLE side_1;
UPDATE fact SET value = '2' WHERE name = 'format';
COMMIT;
"""
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


class Database:
    """An open, checked database file in ``directory``; the caller holds the directory's lock."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "isoplane.db"
        existed = self.path.exists() and self.path.stat().st_size > 0
        if existed:
            self._check()
        try:
            # Made here with its mode: SQLite gives the WAL the mode of the main file.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreUnwritable(f"cannot open {self.path} for writing: {error.strerror}") from error
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=32)
            # Exclusive locking keeps the WAL index in our memory: no shared-memory file, no lock calls per commit.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            self._db.execute("PRAGMA cache_size=-4096")
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO fact VALUES ('format', ?)", (str(FORMAT),))
            if self.facts()["format"] == "1":
                self._db.executescript(_FROM_FORMAT_1)
        except sqlite3.OperationalError as error:
            raise StoreUnwritable(
                f"cannot open {self.path} for writing: {error}; check its permissions and the free space"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._corrupt(str(error)) from error
        self._wal = Path(str(self.path) + "-wal")

    def _corrupt(self, why: str) -> StoreCorrupt:
        return StoreCorrupt(
            f"{self.path} is damaged: {why}; nothing was changed. "
            "Restore it from a backup, or move it away to start empty"
        )

    def _check(self) -> None:
        """Look before touching: a read-only connection neither checkpoints nor repairs what it finds."""
        try:
            if not os.access(self.path, os.W_OK):
                raise StoreUnwritable(f"{self.path} is not writable; check its permissions and the mount")
            db = sqlite3.connect(f"file:{_quote(self.path)}?mode=ro", uri=True, isolation_level=None)
            try:
                answer = db.execute("PRAGMA quick_check(1)").fetchone()[0]
                if answer != "ok":
                    raise self._corrupt(str(answer))
                tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                if tables and not {"fact", "log", "side"} <= tables:
                    raise self._corrupt("it is a SQLite file, but not an isoplane store")
                if tables:
                    found = db.execute("SELECT value FROM fact WHERE name = 'format'").fetchone()
                    if found is not None and found[0] not in _READABLE:
                        raise StoreNewer(
                            f"{self.path} has format {found[0]}, this version reads formats up to {FORMAT}; nothing was "
                            "changed. Run the version that wrote it, or restore a backup made before it did"
                        )
                    if found is not None and found[0] != str(FORMAT):
                        self._read_all(db)
            finally:
                db.close()
        except sqlite3.OperationalError as error:
            raise StoreUnwritable(f"cannot read {self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._corrupt(str(error)) from error

    def _read_all(self, db: sqlite3.Connection) -> None:
        """Before a file is converted: every row of it can be read."""
        for revision, data in db.execute("SELECT revision, data FROM log WHERE data IS NOT NULL"):
            try:
                orjson.loads(data)
            except ValueError as error:
                raise self.unreadable(revision, repr(error)) from error

    # loading

    def facts(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT name, value FROM fact"))

    def log(self) -> Iterator[LogRow]:
        """Every kept revision, oldest first. Raises StoreCorrupt when the file cannot be read on."""
        try:
            yield from self._db.execute("SELECT revision, resource, namespace, name, data FROM log ORDER BY revision")
        except sqlite3.DatabaseError as error:
            raise self._corrupt(str(error)) from error

    def side_rows(self) -> Iterable[tuple[int, str, str, bytes]]:
        return self._db.execute("SELECT place, tbl, key, data FROM side")

    def unreadable(self, revision: int, why: str) -> StoreCorrupt:
        return self._corrupt(f"revision {revision} cannot be decoded: {why}")

    # writing

    def commit(self, write: Write) -> None:
        """Make ``write`` durable, wholly or not at all. Raises an ApiError that says why not."""
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

    def close(self) -> None:
        self._db.close()


def _quote(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
