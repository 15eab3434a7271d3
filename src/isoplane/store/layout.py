"""How the SQLite file is laid out: its tables, the number of their format, the way up from older ones, and its check.

Looking at a file changes nothing: whoever opens, restores or backs up one asks :func:`examine` first.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import orjson

from isoplane.store.errors import StoreCorrupt, StoreNewer, StoreUnwritable
from isoplane.store.sealing import MARK

DATABASE = "isoplane.db"
RESERVE = "reserve"
"""A file that holds room on the disk, and nothing else."""
FORMAT = 3
"""Raised when the layout below changes; a newer file is refused, an older one brought up to date once all of it was read.

1: side rows by key. 2: side rows by place. 3: Secrets are sealed, the fact ``encryption`` names the key."""

READABLE = tuple(str(number) for number in range(1, FORMAT + 1))
SCHEMA = """
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (
    revision INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, data BLOB);
CREATE TABLE IF NOT EXISTS side (place INTEGER PRIMARY KEY, tbl TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL);
"""
FROM_FORMAT_1 = """
BEGIN IMMEDIATE;
ALTER TABLE side RENAME TO side_1;
CREATE TABLE side (place INTEGER PRIMARY KEY, tbl TEXT NOT NULL, key TEXT NOT NULL, data BLOB NOT NULL);
INSERT INTO side (tbl, key, data) SELECT tbl, key, data FROM side_1;
DROP TABLE side_1;
UPDATE fact SET value = '2' WHERE name = 'format';
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a healthy file holds."""

    format: str
    """'' for one that nobody has written to yet."""
    revision: int
    objects: int
    key: str
    """The id of the key that its Secrets are sealed with; '' before format 3."""


def corrupt(path: Path, why: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"{path} is damaged: {why}; nothing was changed. Restore it from a backup, or move it away to start empty"
    )


def unreadable(path: Path, revision: int, why: str) -> StoreCorrupt:
    return corrupt(path, f"revision {revision} cannot be decoded: {why}")


def examine(path: Path, *, thorough: bool = False) -> Contents:
    """Look without touching: a read-only connection neither checkpoints nor repairs what it finds.

    ``thorough`` also holds indexes against tables.  Raises StoreCorrupt, StoreNewer, or StoreUnwritable when the file
    cannot be opened.
    """
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, isolation_level=None)) as db:
            answer = db.execute(f"PRAGMA {'integrity_check' if thorough else 'quick_check'}(1)").fetchone()[0]
            if answer != "ok":
                raise corrupt(path, str(answer))
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables:
                return Contents("", 0, 0, "")
            if not {"fact", "log", "side"} <= tables:
                raise corrupt(path, "it is a SQLite file, but not an isoplane store")
            facts = dict(db.execute("SELECT name, value FROM fact"))
            found = facts.get("format", "")
            if found and found not in READABLE:
                raise StoreNewer(
                    f"{path} has format {found}, this version reads formats up to {FORMAT}; nothing was "
                    "changed. Run the version that wrote it, or restore a backup made before it did"
                )
            if thorough or (found and found != str(FORMAT)):
                _read_all(path, db)
            (objects,) = (
                db.execute(
                    "SELECT count(*) FROM log WHERE data IS NOT NULL AND revision IN "
                    "(SELECT max(revision) FROM log GROUP BY resource, namespace, name)"
                ).fetchone()
                if thorough
                else (0,)
            )
            return Contents(found, int(facts.get("revision", "0")), objects, facts.get("encryption", ""))
    except sqlite3.OperationalError as error:
        raise StoreUnwritable(f"cannot read {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise corrupt(path, str(error)) from error


def check_writable(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise StoreUnwritable(f"{path} is not writable; check its permissions and the mount")


def _read_all(path: Path, db: sqlite3.Connection) -> None:
    """Before a file is converted or trusted as a backup: every row of it can be read."""
    for revision, data in db.execute("SELECT revision, CAST(data AS BLOB) FROM log WHERE data IS NOT NULL"):
        if data.startswith(MARK):
            continue  # sealed: whoever has the key reads it
        try:
            orjson.loads(data)
        except ValueError as error:
            raise unreadable(path, revision, repr(error)) from error


def quote(path: Path) -> str:
    """A path as a SQLite URI spells it."""
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
