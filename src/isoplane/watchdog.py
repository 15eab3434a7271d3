"""What watches over the process itself: who holds the event loop, and that a signal ends it whatever spins.

Everything in the plane runs on one event loop, so whatever holds it holds everybody.  A thread beside the loop sees when the
loop's heart stops beating for longer than a second and logs what held it, with its stack.  SIGTERM and SIGINT are taken by
Python's own handler, which runs between two steps of whatever is running: it asks the loop to stop, and when the loop does not
answer in time it ends the process.  Ending like that loses nothing: acknowledged writes are on disk, and workloads are
adopted by the next plane (kill -9 is tested everywhere).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

_log = logging.getLogger(__name__)

BEAT = 0.25
"""Seconds between two beats of the loop, and between two looks at them."""
HELD = 1.0
"""Seconds without a beat after which what holds the loop is logged."""
UNANSWERED = 20.0
"""Seconds that a stuck loop has to begin stopping once a signal asked it to."""
FRAMES = 25


class Watchdog:
    """Watches one event loop, from its own thread. Start it from the loop's thread."""

    def __init__(self, *, held: float = HELD) -> None:
        self.stalls = 0
        self.longest = 0.0
        """Seconds of the longest stall so far."""
        self._held = held
        self._beat = time.monotonic()
        self._watched = threading.get_ident()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch the running loop."""
        self._watched = threading.get_ident()
        self._tick(asyncio.get_running_loop())
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watch. Call it from the loop's thread."""
        self._ended.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join(2 * BEAT)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat = time.monotonic()
        self._timer = loop.call_later(BEAT, self._tick, loop)

    def _watch(self) -> None:
        seen = 0.0
        """The beat after which a stall was logged already."""
        while not self._ended.wait(BEAT):
            beat = self._beat
            silent = time.monotonic() - beat
            if silent > self._held:
                self.longest = max(self.longest, silent)
                if beat != seen:
                    seen = beat
                    self.stalls += 1
                    _log.warning("the event loop was held for %.1f s so far by:\n%s", silent, self._stack())

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched)
        return "".join(traceback.format_stack(frame, FRAMES)) if frame is not None else "(the thread has ended)"


def on_signals(stop: Callable[[], None], *, unanswered: float = UNANSWERED) -> Callable[[], None]:
    """Call ``stop`` on the running loop when SIGTERM or SIGINT comes, even while something holds the loop.

    When the loop does not get to it within ``unanswered`` seconds, the process ends with exit code 1; a second signal ends it
    after a second.  Call it on the main thread.  Returns what undoes it.
    """
    loop = asyncio.get_running_loop()
    watched = threading.get_ident()
    answered = threading.Event()
    timers: list[threading.Timer] = []

    def on_loop() -> None:
        answered.set()
        stop()

    def give_up() -> None:
        if answered.is_set():
            return
        frame = sys._current_frames().get(watched)
        stack = "".join(traceback.format_stack(frame, FRAMES)) if frame is not None else ""
        _log.error("asked to stop, but the event loop does not answer; ending. It was held by:\n%s", stack)
        logging.shutdown()
        os._exit(1)

    def handler(number: int, frame: FrameType | None) -> None:
        timer = threading.Timer(1.0 if timers else unanswered, give_up)
        timer.daemon = True
        timers.append(timer)
        timer.start()
        loop.call_soon_threadsafe(on_loop)

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}

    def undo() -> None:
        for timer in timers:
            timer.cancel()
        for number, old in before.items():
            signal.signal(number, old)

    return undo
