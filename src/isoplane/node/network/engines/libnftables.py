"""nft within this process, by the library that the tool is made of: a change costs half a millisecond instead of a process's ten.

Every call has a context of its own, as every run of the tool has, so that nothing of an earlier one is remembered; calls come one
after the other, in worker threads.  Where the library is absent the tool does the same.  Source: nftables/libnftables.h.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import logging
import signal
import threading

from isoplane.node.network.engines import nfnetlink
from isoplane.node.network.process import run
from isoplane.node.network.protocol import FabricFailure

log = logging.getLogger(__name__)
LIBRARY = "libnftables.so.1"
_STATELESS, _NUMERIC = 1 << 2, 0xF << 7
"""NFT_CTX_OUTPUT_STATELESS and NFT_CTX_OUTPUT_NUMERIC_ALL: the tool's -s and -n."""
_INTERRUPTING = frozenset(signal.valid_signals()) - {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
_ONE = threading.Lock()


@functools.cache
def _library() -> ctypes.CDLL | None:
    """None, told once, where it cannot be loaded."""
    try:
        found = ctypes.CDLL(LIBRARY)
        found.nft_ctx_new.argtypes, found.nft_ctx_new.restype = [ctypes.c_uint32], ctypes.c_void_p
        found.nft_ctx_free.argtypes, found.nft_ctx_free.restype = [ctypes.c_void_p], None
        found.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        found.nft_ctx_output_set_flags.restype = None
        found.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for buffer in ("output", "error"):
            getattr(found, f"nft_ctx_buffer_{buffer}").argtypes = [ctypes.c_void_p]
            getter = getattr(found, f"nft_ctx_get_{buffer}_buffer")
            getter.argtypes, getter.restype = [ctypes.c_void_p], ctypes.c_char_p
    except (OSError, AttributeError) as error:
        log.warning("%s cannot be used, so every change runs nft (`apt-get install libnftables1`): %s", LIBRARY, error)
        return None
    return found


def _call(library: ctypes.CDLL, text: str) -> str:
    with _ONE:
        # The library ends the whole process when it gets no socket, so one is tried for first.
        nfnetlink.generation()
        # It takes an interrupted wait for a refusal, although the kernel may have taken the change.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTING)
        try:
            return _with_context(library, text)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def _with_context(library: ctypes.CDLL, text: str) -> str:
    context = library.nft_ctx_new(0)
    if not context:
        raise FabricFailure(f"{LIBRARY} has no memory for a change")
    try:
        if library.nft_ctx_buffer_output(context) or library.nft_ctx_buffer_error(context):
            raise FabricFailure(f"{LIBRARY} has no memory for its answer")
        library.nft_ctx_output_set_flags(context, _STATELESS | _NUMERIC)
        if library.nft_run_cmd_from_buffer(context, text.encode()):
            complaint = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace").strip()
            raise FabricFailure(f"nft: {complaint[:2000]}")
        return (library.nft_ctx_get_output_buffer(context) or b"").decode(errors="replace")
    finally:
        library.nft_ctx_free(context)


async def load(text: str) -> None:
    """What ``nft -f`` does: the whole text in one transaction. FabricFailure carries nft's complaint."""
    library = _library()
    if library is None:
        await run("nft", "-f", "-", stdin=text.encode())
        return
    await _in_thread(library, text)


async def listing(table: str) -> str:
    """What ``nft -s -n list table`` writes: rules without counters, in numbers. FabricFailure when there is no such table."""
    library = _library()
    if library is None:
        return (await run("nft", "-s", "-n", "list", "table", *table.split())).decode()
    return await _in_thread(library, f"list table {table}\n")


async def _in_thread(library: ctypes.CDLL, text: str) -> str:
    try:
        return await asyncio.to_thread(_call, library, text)
    except OSError as error:
        raise FabricFailure(f"nf_tables cannot be reached: {error}") from error
