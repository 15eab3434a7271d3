"""The writer thread: takes one batch at a time, commits it, reports back on the event loop.

While it works the store collects the next batch, so a slow disk makes larger batches instead of longer queues.  A copy
of the file is made in helpings, and what was submitted meanwhile is committed between them.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from isoplane.objects.errors import ApiError, Internal
from isoplane.store.database import Write


class Committer(Protocol):
    """What the writer needs of the database; a test puts a failing one here."""

    @property
    def short(self) -> bool: ...

    def commit(self, write: Write) -> None: ...

    def maintain(self) -> None: ...

    def copy(self, target: Path, between: Callable[[], None]) -> None: ...


Report = Callable[[ApiError | None], None]


class Writer:
    """Owns the thread. ``submit`` is called on the loop with at most one write outstanding."""

    def __init__(self, committer: Committer, loop: asyncio.AbstractEventLoop) -> None:
        self._committer = committer
        self._loop = loop
        self._queue: queue.SimpleQueue[tuple[Callable[[], None], Report] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="isoplane-store-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Write, report: Report) -> None:
        """Commit ``write`` and call ``report(None)`` on the loop, or ``report(error)`` when nothing was written."""
        self._queue.put((partial(self._committer.commit, write), report))

    def maintain(self, report: Report) -> None:
        self._queue.put((self._committer.maintain, report))

    def copy(self, target: Path, report: Report) -> None:
        """Copy the file to ``target``; commits go on meanwhile. At most one copy at a time."""
        self._queue.put((partial(self._committer.copy, target, self._serve_waiting), report))

    def close(self) -> None:
        """Finish what was submitted and end the thread. Blocks for the last commit."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            self._serve(*job)

    def _serve_waiting(self) -> None:
        """What was submitted since, without waiting for more."""
        try:
            while (job := self._queue.get_nowait()) is not None:
                self._serve(*job)
            self._queue.put(None)
        except queue.Empty:
            pass

    def _serve(self, work: Callable[[], None], report: Report) -> None:
        error: ApiError | None = None
        try:
            work()
        except ApiError as problem:
            error = problem
        except Exception as problem:
            error = Internal(f"the store failed unexpectedly: {problem!r}; nothing was written")
        self._loop.call_soon_threadsafe(report, error)
