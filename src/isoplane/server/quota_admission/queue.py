"""The place of a waiting workload in its tenant's queue, for whoever reads: by bisection, on the line that the writers keep.

Nothing is decided by it.  A line that writers have changed and that is not durable yet counts as it will be.
"""

from __future__ import annotations

from isoplane.quota.accounts import Book
from isoplane.quota.line import WaitingLine
from isoplane.server.quota_admission import rows
from isoplane.server.quota_admission.accounts import Lines, read_line
from isoplane.store.view import ReadView

_NO_BOOK = Book()


class Queue:
    """Reads places. A line that no writer has kept since the start is read once, and again when it changed."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._read: dict[str, tuple[int, WaitingLine]] = {}

    def place(self, view: ReadView, tenant: str, uid: str) -> int:
        """1 for whoever is released next; 0 for who does not wait, or has its room reserved."""
        version = (view.decoded(rows.BOOK, tenant, rows.decode_book) or _NO_BOOK).line
        kept = self._lines.kept.get(tenant)
        if kept is not None and kept[0] >= version:
            self._read.pop(tenant, None)
            return kept[1].place(uid)
        known = self._read.get(tenant)
        if known is None or known[0] != version:
            known = self._read[tenant] = (version, read_line(view, tenant))
        return known[1].place(uid)
