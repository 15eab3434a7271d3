"""Sparing the garbage collector values without cycles: while very many are made at once, and as long as they stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """What is made inside stays and has no cycles; a collector that walks it again and again costs a third more.

    The pause is the whole process's, so it is for seconds at most.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def collector_spared() -> None:
    """Whatever there is now stays, as far as the collector is concerned: it does not walk it again.

    A full collection over the values of a large cluster stops everything for a second.  This makes one, so that no garbage
    is kept for ever, and it is the last of its size: later ones walk only what was made since.
    """
    gc.collect()
    gc.freeze()
