"""Holding the garbage collector still while very many values are made at once: parsing and compiling a whole cluster."""

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
