"""Asks the declared health questions of running units: HTTP, gRPC, TCP, or a command inside.

What the answers mean is decided by ``workload.health``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from isoplane.node import ask_grpc, ask_http, destinations
from isoplane.node.runtime.protocol import GuestAgent, Runtime, RuntimeFailure
from isoplane.workload import health
from isoplane.workload.shape import Observed, Probe, Unit, UnitState, Workload

Answer = Callable[[Workload, str, health.ProbeKind, bool, str], None]
_Key = tuple[str, str, str]


class Prober:
    """One task per declared probe of a running unit; ``answer`` hears every result on the event loop."""

    def __init__(self, answer: Answer, runtimes: Mapping[str, Runtime]) -> None:
        self._answer = answer
        self._runtimes = runtimes
        self._tasks: dict[_Key, tuple[int, asyncio.Task[None]]] = {}
        self._health: dict[tuple[str, str], health.Health] = {}

    def follow(self, workload: Workload, observed: Observed) -> None:
        """Probe exactly the units that run now; a restarted unit is probed afresh."""
        # The host knows better than the object, which may tell of a sandbox that is gone.
        address = observed.addresses[0] if observed.addresses else workload.address
        wanted: set[_Key] = set()
        for unit in workload.units:
            seen = observed.unit(unit.name)
            if seen.state is not UnitState.RUNNING or seen.starting:
                continue
            for kind, probe in health.probes_of(unit):
                key: _Key = (workload.uid, unit.name, kind)
                wanted.add(key)
                known = self._tasks.get(key)
                if known is not None and known[0] == seen.attempt:
                    continue
                if known is not None:
                    known[1].cancel()
                self._health[(workload.uid, unit.name)] = health.initial(unit)
                task = asyncio.ensure_future(self._ask_forever(workload, unit, kind, probe, address))
                self._tasks[key] = (seen.attempt, task)
        for stale in [k for k in self._tasks if k[0] == workload.uid and k not in wanted]:
            self._tasks.pop(stale)[1].cancel()

    def update(self, uid: str, unit: str, new: health.Health) -> None:
        """The health that decides which probes are due."""
        self._health[(uid, unit)] = new

    def forget(self, uid: str) -> None:
        """Stop probing a workload."""
        for key in [k for k in self._tasks if k[0] == uid]:
            self._tasks.pop(key)[1].cancel()
        for pair in [p for p in self._health if p[0] == uid]:
            del self._health[pair]

    async def close(self) -> None:
        """Stop all probing."""
        for _, task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in self._tasks.values()), return_exceptions=True)
        self._tasks.clear()

    async def _ask_forever(
        self, workload: Workload, unit: Unit, kind: health.ProbeKind, probe: Probe, address: str
    ) -> None:
        await asyncio.sleep(probe.initial_delay)
        loop = asyncio.get_running_loop()
        on_time_at = loop.time()
        while True:
            known = self._health.get((workload.uid, unit.name))
            if known is not None and health.due(kind, known):
                on_time = loop.time() >= on_time_at
                if on_time:
                    on_time_at = loop.time() + probe.period
                success, message = await self._ask(workload, unit, probe, address)
                if health.counts(success, on_time):
                    self._answer(workload, unit.name, kind, success, message)
            known = self._health.get((workload.uid, unit.name))
            await asyncio.sleep(probe.period if known is None else health.pace(kind, probe, known))

    async def _ask(self, workload: Workload, unit: Unit, probe: Probe, address: str) -> tuple[bool, str]:
        runtime = self._runtimes[workload.runtime]
        if not runtime.reachable and not probe.command:
            # Nobody is behind a simulated address, and whoever has it elsewhere is not to be asked.
            return True, "simulated"
        try:
            async with asyncio.timeout(probe.timeout):
                if probe.command:
                    result = await runtime.exec(workload.uid, unit.name, probe.command, probe.timeout)
                    return result.exit_code == 0, result.output[:200].decode(errors="replace").strip()
                if probe.http is not None:
                    status = await ask_http.get(probe.http, address)
                    return 200 <= status < 400, f"HTTP probe failed with statuscode: {status}"
                if probe.grpc is not None:
                    await ask_grpc.check(probe.grpc, address)
                    return True, ""
                if probe.tcp_port is not None:
                    target = await destinations.resolve(probe.tcp_host, probe.tcp_port) if probe.tcp_host else address
                    _, writer = await asyncio.open_connection(target, probe.tcp_port)
                    writer.close()
                    return True, ""
                if probe.guest_ping:
                    return await self._ping(runtime, workload, unit, probe.timeout)
                return False, "the probe says no way to ask"
        except TimeoutError:
            return False, f"no answer within {probe.timeout:g} s"
        except (OSError, ask_http.AskFailure, destinations.Refused, RuntimeFailure) as error:
            return False, str(error) or type(error).__name__

    @staticmethod
    async def _ping(runtime: Runtime, workload: Workload, unit: Unit, timeout: float) -> tuple[bool, str]:
        """Ask the guest's agent, where the runtime has a way to."""
        if not isinstance(runtime, GuestAgent):
            return False, f"{runtime.name} has no guest agent to ask"
        await runtime.ping(workload.uid, unit.name, timeout)
        return True, ""
