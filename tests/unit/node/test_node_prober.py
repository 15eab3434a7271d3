"""Where probes are sent: to the address that the sandbox has, whatever the object still tells of an earlier one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import samples_support as samples
from isoplane.node.prober import Prober
from isoplane.workload.health import ProbeKind
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import Observed, Probe, Unit, UnitObserved, UnitState, Workload


class Host:
    """A runtime whose addresses can be reached from here."""

    reachable = True


async def test_a_stale_address_of_the_object_is_not_probed() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    answers: asyncio.Queue[tuple[bool, str]] = asyncio.Queue()

    def answered(workload: Workload, unit: str, kind: ProbeKind, success: bool, message: str) -> None:
        answers.put_nowait((success, message))

    unit = Unit("main", readiness=Probe(tcp_port=port, period=0.05, timeout=1))
    stale = PodAdapter().project({**samples.pod(), "status": {"podIP": "127.9.9.9", "podIPs": [{"ip": "127.9.9.9"}]}})
    running = UnitObserved("main", UnitState.RUNNING, started_at=1.0)
    observed = Observed("uid", "tenant-a", "web", True, {"main": running}, ("127.0.0.1",))
    prober = Prober(answered, {"oci": Host()})  # type: ignore[dict-item]
    try:
        prober.follow(replace(stale, units=(unit,)), observed)
        async with asyncio.timeout(5):
            assert await answers.get() == (True, "")
    finally:
        await prober.close()
        server.close()
        await server.wait_closed()
