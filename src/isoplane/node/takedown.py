"""Removes every trace of a node from its host: sandboxes, links, namespaces, the bridge and its daemons, tables, cgroups.

For ``isoplane down`` and the end of a demo; no plane may run on the data directory meanwhile.  Objects and images stay.
"""

from __future__ import annotations

import asyncio
import logging
import time

from isoplane.node.parts import NodeParts
from isoplane.node.runtime.protocol import Runtime
from isoplane.workload.shape import ALIVE, Observed

_log = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
RESEND_SECONDS = 5.0
POLL_SECONDS = 0.05


async def take_down(parts: NodeParts, grace: float = GRACE_SECONDS) -> int:
    """Stop every unit gracefully, kill what is left after ``grace`` seconds, remove all. Returns the sandboxes removed.

    Raises RuntimeFailure or FabricFailure when the host does not let go of something.
    """
    removed = 0
    for runtime in parts.runtimes.values():
        await runtime.start()
        try:
            removed += await _empty(runtime, grace)
        finally:
            await runtime.close()
    await parts.fabric.teardown()
    return removed


async def _empty(runtime: Runtime, grace: float) -> int:
    found = await runtime.observe_all()
    await asyncio.gather(*(_stop(runtime, sandbox, grace) for sandbox in found))
    for sandbox in found:
        await runtime.remove(sandbox.uid)
    return len(found)


async def _stop(runtime: Runtime, sandbox: Observed, grace: float) -> None:
    deadline = time.monotonic() + grace
    asked = -RESEND_SECONDS
    while True:
        seen = await runtime.observe(sandbox.uid)
        alive = [unit.name for unit in seen.units.values() if unit.state in ALIVE] if seen else []
        if not alive:
            return
        now = time.monotonic()
        for unit in alive:
            if now >= deadline:
                await runtime.kill_unit(sandbox.uid, unit)
            elif now - asked >= RESEND_SECONDS:
                await runtime.stop_unit(sandbox.uid, unit)
        if now - asked >= RESEND_SECONDS:
            asked = now
        if now >= deadline + RESEND_SECONDS:
            _log.warning("%s/%s does not end", sandbox.namespace, sandbox.name)
            return
        await asyncio.sleep(POLL_SECONDS)
