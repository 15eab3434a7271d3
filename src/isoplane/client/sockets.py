"""Unix sockets in a directory of any depth.

A socket's address holds 107 bytes, and data directories with uids in them get longer.  So connections go by way of a
descriptor of the directory, whose name in /proc is short.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def short(path: Path) -> Iterator[str]:
    """An address for the socket at ``path`` that is valid inside the block. Raises OSError without its directory."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
