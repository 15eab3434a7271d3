"""The whole plane in one process: API server, controllers and this machine's node, started and stopped in order.

The command line, the demos, the tests and the benchmarks all start this and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from isoplane.client.api import Api
from isoplane.client.controller import Controller, Manager
from isoplane.client.informer import Informers
from isoplane.controllers.events import Recorder
from isoplane.controllers.metrics import controller_families, workload_families
from isoplane.controllers.quota import QuotaController
from isoplane.controllers.quota_budgets import BudgetController
from isoplane.controllers.standard import standard_controllers
from isoplane.node import assembly, formats
from isoplane.node.agent import NodeAgent
from isoplane.node.backend import LocalNode
from isoplane.node.metrics import enforcement_families, hit_families
from isoplane.node.parts import NodeOptions
from isoplane.node.register import default_node_name
from isoplane.node.runtime.protocol import Runtime
from isoplane.node.takedown import take_down
from isoplane.objects.errors import NotFound
from isoplane.objects.kinds import WORKLOADS
from isoplane.objects.metadata import Object
from isoplane.objects.scheme import Scheme
from isoplane.server.account_admission import ServiceAccountAdmission
from isoplane.server.admission import AdmissionPlugin
from isoplane.server.apiserver import ApiServer
from isoplane.server.collectors import loop_families
from isoplane.server.computed import Derived
from isoplane.server.impossible_admission import ImpossibleAdmission
from isoplane.server.ineffective_admission import IneffectiveAdmission
from isoplane.server.limitrange_admission import LimitRangeAdmission
from isoplane.server.policy_admission import PolicyAdmission
from isoplane.server.priority_admission import PriorityAdmission
from isoplane.server.probe_host_admission import ProbeHostAdmission
from isoplane.server.quota_admission import (
    QuotaAdmission,
    decisions_summary,
    quota_families,
    repair,
    usage_summary,
)
from isoplane.server.stamp import AcceptedStamp
from isoplane.store import reserve
from isoplane.store.lock import refuse_foreign
from isoplane.store.record import Record
from isoplane.watchdog import Watchdog
from isoplane.workload.registry import adapter_for, workload_resources
from isoplane.workload.view import Place, workload_object

_log = logging.getLogger(__name__)

TAKE_DOWN_GRACE = 10.0
"""Seconds that workloads have to end when the whole plane is taken down."""


@dataclass(frozen=True, slots=True)
class PlaneOptions:
    """What ``isoplane up`` can be told."""

    data_dir: Path
    listen: str = "127.0.0.1:6443"
    kubeconfig: Path | None = None
    encryption_key: Path | None = None
    """The file of encryption keys; None: ``keys`` in the data directory."""
    node: NodeOptions = field(default_factory=NodeOptions)
    node_name: str = ""
    disk_reserve: int = reserve.SIZE
    """Bytes of the disk kept so that deletions work when it is full."""
    allow_probe_host: bool = False

    @property
    def kubeconfig_path(self) -> Path:
        return self.kubeconfig or self.data_dir / "kubeconfig"


class Plane:
    """Lives between :meth:`start` and :meth:`stop` on one event loop."""

    def __init__(self, options: PlaneOptions, watchdog: Watchdog | None = None) -> None:
        """``watchdog``: who watches over this loop, for /metrics; without one nobody does."""
        self.options = options
        self._watchdog = watchdog or Watchdog()
        self.node_name = options.node_name or default_node_name()
        self.quota = QuotaAdmission()
        self.scheme = Scheme()
        """What is served; may grow while the plane runs."""
        self._impossible = ImpossibleAdmission()
        self.server = ApiServer(
            options.data_dir,
            options.listen,
            options.kubeconfig_path,
            key_file=options.encryption_key,
            disk_reserve=options.disk_reserve,
            scheme=self.scheme,
            admission=admission_plugins(self.quota, self._impossible, allow_probe_host=options.allow_probe_host),
        )
        self.informers: Informers
        self._undo: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self.agent: NodeAgent | None = None
        self.runtimes: Mapping[str, Runtime] = {}

    @property
    def api(self) -> Api:
        """The in-process API, as the administrator."""
        return self.server.local_api

    async def start(self, serving: Callable[[], None] = lambda: None) -> None:
        """Serve, adopt, reconcile. Raises what stands in the way, saying what to do; nothing is left half-started.

        ``serving`` is called once requests are answered and the node's workloads are adopted; returns when every
        controller works, which takes as long as there are objects to look at."""
        try:
            await self._start(serving)
        except BaseException:
            await self.stop()
            await self._leave_no_daemon()
            raise

    async def _leave_no_daemon(self) -> None:
        """After a failed start: daemons of the network outlive a plane for its workloads' sake; with no workloads they go."""
        if self.agent is None or assembly.workloads_on(self.options.data_dir):
            return
        try:
            await assembly.make(self.options.data_dir, self.options.node).fabric.teardown()
        except Exception:
            _log.exception("the network of a start that failed could not be removed: `isoplane down` does")

    async def _start(self, serving: Callable[[], None]) -> None:
        refuse_foreign(self.options.data_dir)
        formats.inspect(self.options.data_dir)
        assembly.check(self.options.data_dir, self.options.node)
        parts = assembly.make(self.options.data_dir, self.options.node)
        self.runtimes = parts.runtimes
        await self.server.start(self._prepare)
        self._undo.append(("API server", self.server.stop))
        self.server.not_ready = "the node is starting"
        self.informers = Informers(self.api)
        self._undo.append(("informers", self.informers.stop))
        recorder = Recorder(self.api, "isoplane", instance=self.node_name)
        self._undo.append(("events", recorder.close))
        self.agent = NodeAgent(
            name=self.node_name,
            api=self.api,
            informers=self.informers,
            runtimes=parts.runtimes,
            fabric=parts.fabric,
            machine=parts.machine,
            events=recorder,
            enforcement=parts.enforcement,
            unsafe_sysctls=self.options.node.unsafe_sysctls,
        )
        self._undo.append(("node agent", self.agent.stop))
        await self.agent.start()
        self._impossible.offer = parts.offer()
        self.server.node = LocalNode(self.informers, parts.runtimes)
        manager = Manager(self.informers, self._controllers(recorder))
        self._undo.append(("controllers", manager.stop))
        self._register_metrics(self.agent, manager)
        self.server.not_ready = ""
        # Whoever asks need not wait for the controllers: they catch up with whatever was written meanwhile.
        serving()
        await manager.start()

    def _register_metrics(self, agent: NodeAgent, manager: Manager) -> None:
        """What /metrics tells beyond the server's own."""
        register, clock = self.server.metrics.register, asyncio.get_running_loop().time
        register(lambda: quota_families(self.server.store.state, self.quota.acts))
        register(lambda: controller_families([*manager.controllers, agent.controller]))
        register(lambda: workload_families(self.informers))
        register(lambda: loop_families(self._watchdog.stalls, self._watchdog.longest))
        register(lambda: enforcement_families(agent.enforcement_status, clock()))
        register(lambda: hit_families(*agent.rule_hits))

    async def _prepare(self, server: ApiServer) -> None:
        """Before anybody outside can ask: the computed kinds, and a ledger that is right."""
        server.verbs.computed.register(Derived(WORKLOADS, workload_resources(), partial(project_workload, self._place)))
        server.verbs.computed.register(usage_summary())
        server.verbs.computed.register(decisions_summary(self.scheme))
        self.quota.write_refusals_to(server.store)
        await repair(server.store, self.quota, scheme=self.scheme)

    def _place(self, namespace: str, uid: str) -> int:
        return self.quota.queue.place(self.server.store.state, namespace, uid)

    def _controllers(self, recorder: Recorder) -> list[Controller]:
        return [
            *standard_controllers(self.api, self.informers, recorder, self.scheme, ca=self.server.ca_certificate),
            QuotaController(self.api, self.informers),
            BudgetController(self.api, self.informers),
        ]

    async def stop(self) -> None:
        """Stop cleanly; workloads go on running."""
        self.server.not_ready = "the plane is stopping"
        while self._undo:
            what, undo = self._undo.pop()
            try:
                await undo()
            except Exception:
                _log.exception("stopping the %s failed", what)

    async def stop_workloads(self, grace: float = 120.0) -> None:
        """Delete every workload, each with its own grace period, and wait at most ``grace`` seconds until all are gone."""
        for resource in workload_resources():
            for obj in (await self.api.list(resource)).items:
                with contextlib.suppress(NotFound):
                    await self.api.delete(resource, obj["metadata"]["name"], obj["metadata"]["namespace"])
        deadline = asyncio.get_running_loop().time() + grace
        while asyncio.get_running_loop().time() < deadline:
            if not any(len(self.informers.of(resource)) for resource in workload_resources()):
                return
            await asyncio.sleep(0.05)
        _log.warning("some workloads did not go within %.0f s", grace)

    async def take_down(self) -> None:
        """Stop, and remove every trace of the workloads and of the network from the host. Objects stay in the store."""
        await self.stop()
        await take_down(assembly.make(self.options.data_dir, self.options.node), grace=TAKE_DOWN_GRACE)


def admission_plugins(
    quota: QuotaAdmission, impossible: ImpossibleAdmission | None = None, *, allow_probe_host: bool = False
) -> list[AdmissionPlugin]:
    """What looks at every write, in order; quota last, for what it decides on must be what is stored."""
    return [
        AcceptedStamp(),
        ServiceAccountAdmission(),
        PriorityAdmission(),
        LimitRangeAdmission(),
        PolicyAdmission(),
        *(() if allow_probe_host else (ProbeHostAdmission(),)),
        impossible or ImpossibleAdmission(),
        IneffectiveAdmission(),
        quota,
    ]


def project_workload(place: Place, record: Record) -> Object | None:
    """The computed Workload of a stored Pod or VMI."""
    adapter = adapter_for(record.resource)
    return None if adapter is None else workload_object(adapter, record.object(), place)
