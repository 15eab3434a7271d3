"""What can go wrong with the data directory itself, before any request is served.

    StoreError
    ├── StoreLocked       another process holds the directory
    ├── StoreUnwritable   the directory or the file cannot be created or written
    ├── StoreNewer        a newer version wrote the file
    ├── StoreCorrupt      the file is not a healthy database of ours; it is left as it was found
    ├── StoreOccupied     a restore would replace what a directory holds
    ├── KeyRefused        the encryption key is missing, damaged or open to others
    └── BackupFailed      a backup was not made, or is none

Failures of single writes are ``objects.errors`` instead (InsufficientStorage, Unavailable): clients see them.
"""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be opened. The message says what, where and what to do."""


class StoreLocked(StoreError):
    """Another process works on this data directory; ``pid`` is its process id when known."""

    def __init__(self, message: str, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class StoreUnwritable(StoreError):
    """The data directory or a file in it cannot be written."""


class StoreNewer(StoreError):
    """A newer version wrote the database; it is left as it was found."""


class StoreCorrupt(StoreError):
    """The database is damaged or was written by something else."""


class StoreOccupied(StoreError):
    """The directory holds something that a restore would replace."""


class BackupFailed(StoreError):
    """A backup was not made, or what was given is none; nothing is left half-made."""


class KeyRefused(StoreError):
    """The file of encryption keys is missing, damaged or open to others; nothing was changed."""
