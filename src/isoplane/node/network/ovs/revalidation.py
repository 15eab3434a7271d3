"""Waits until the datapath does what the flows say.

Open vSwitch answers that flows are taken while packets still go by what its datapath remembers of the flows before; threads of
their own, the revalidators, go through that memory afterwards, at once on an idle host and late on a busy one.  Only when they
are through is a change enforced, and only then may a forbidden connection be cut: cut before, it would come back to life by the
memory of the flows that allowed it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from isoplane.node.network.ovs import jsonrpc
from isoplane.node.network.protocol import FabricFailure

log = logging.getLogger(__name__)
PAUSE = 0.05
"""Seconds that a round is given where the switch cannot be asked when it was through."""
NUDGE = 0.01
"""Seconds between two words to a switch that may sleep on its answer."""
_NOBODY = "06:69:73:6f:70:6c"
"""A locally administered address that no link has."""
_SEVERAL = "multiple udpifs"


async def followed(control: Path, bridge: str) -> None:
    """Return when every packet is judged by the flows that the bridge had at the call. FabricFailure after some 10 s.

    ``control`` is the switch daemon's control socket.  Two rounds, for the one that is under way at the call may have begun
    before the change.  Left alone the revalidators begin one only every half a second, so each is called for by something
    that makes the switch doubt its memory and changes nothing: a learnt address that nobody has, put in and taken out again.
    """
    for method, where in (("fdb/add", (bridge, bridge)), ("fdb/del", (bridge,))):
        await _round(control, partial(_mention, control, method, *where, "0", _NOBODY))


async def _round(control: Path, begin: Callable[[], Awaitable[None]]) -> None:
    """``begin`` once the switch waits: a round that is over before is waited for in vain."""
    answer = asyncio.create_task(jsonrpc.call(control, "revalidator/wait", [], meanwhile=begin))
    try:
        while not (await asyncio.wait({answer}, timeout=NUDGE))[0]:
            await _mention(control, "version")  # an idle switch may oversee that it is through, and sleep on
        await answer
    except FabricFailure as failure:
        if _SEVERAL not in str(failure):
            raise
        _warn(control)
        await asyncio.sleep(PAUSE)
    finally:
        answer.cancel()


@cache
def _warn(control: Path) -> None:
    """Once a switch."""
    log.warning(
        "the switch of %s serves the kernel's datapath and the userspace's, and cannot say when one follows its flows: "
        "they count as enforced after %g s",
        control,
        2 * PAUSE,
    )


async def _mention(control: Path, *command: str) -> None:
    """A command whose answer does not matter: before 2.16 there is no fdb/add, and the rounds come by themselves."""
    with suppress(FabricFailure):
        await jsonrpc.call(control, command[0], command[1:])
