"""The kernel's tracked connections for the engines: read and forgotten on a worker thread, refusals as EngineFailure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set

from isoplane.node.network.engines import nfnetlink
from isoplane.node.network.engines.protocol import Connection, EngineFailure


async def connections(addresses: Set[str]) -> list[Connection]:
    """As ``nfnetlink.connections``."""
    try:
        return await asyncio.to_thread(nfnetlink.connections, addresses)
    except OSError as error:
        raise EngineFailure(f"the kernel's connections cannot be read: {error}") from error


async def cut(connections: Sequence[Connection]) -> None:
    """As ``nfnetlink.cut``."""
    try:
        await asyncio.to_thread(nfnetlink.cut, connections)
    except OSError as error:
        raise EngineFailure(f"connections cannot be cut: {error}") from error
