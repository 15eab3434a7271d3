"""A piece of work that goes on beside everything else until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """Holds one task. Starting and closing are for one owner."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin, on the running event loop."""
        self._task = asyncio.create_task(work)

    async def close(self) -> None:
        """Cancel it and wait until it is over. Closing what never began, or is closed, does nothing."""
        if self._task is not None:
            self._task.cancel()
            # not by awaiting the task itself: a cancellation of the caller would look like the task's own
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
