"""Memory that the C library keeps although nothing uses it, given back to the system.

What many connections held at once lies scattered when it is free again, and glibc gives back of itself only what is at the
top of its heap: 600 watches that nobody read left 430 MB behind.
"""

from __future__ import annotations

import ctypes

_LIBC = ctypes.CDLL(None)


def give_back() -> bool:
    """Give back what is free; some 60 ms a gigabyte, without the interpreter's lock. False where the library cannot."""
    try:
        trim = _LIBC.malloc_trim
    except AttributeError:  # no glibc
        return False
    return bool(trim(0))
