"""A node's enforcement from stored objects to packets: who denied what becomes an Event, and nonsense opens nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fabric_support import EchoServer, eventually, spare_range, traces, udp_reaches
from isoplane.client.informer import Informers
from isoplane.node.enforcement import NodeEnforcement
from isoplane.node.network.fabric import HostFabric
from isoplane.node.network.settings import FabricSettings, Wiring
from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.objects.kinds import CLUSTERNETWORKPOLICIES, NETWORKPOLICIES, PODS
from isoplane.objects.metadata import Object
from isoplane.server.admission import Chain
from isoplane.server.bootstrap import bootstrap
from isoplane.server.local import LocalApi
from isoplane.server.verbs import Verbs
from isoplane.store import Store
from isoplane.workload.registry import adapter_for
from support import require

pytestmark = pytest.mark.root
PORT = 9200


class Node:
    """A store, a fabric and the enforcement between them; Pods are namespaces that nothing runs in."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._range = directory, spare_range()
        self.store = Store.open(directory / "store")
        # Without admission: what a node must survive is what lies in the store.
        self.api = LocalApi(Verbs(self.store, Chain()))
        self.events: list[tuple[str, str, str]] = []
        self.woken: set[str] = set()
        self.fabric: HostFabric
        self.enforcement: NodeEnforcement

    async def start(self) -> None:
        settings = FabricSettings(
            self._directory / "node",
            cidr=self._range,
            container_wiring=Wiring.ROUTED,
            machine_wiring=Wiring.ROUTED,
            quarantine_seconds=0,
        )
        self.fabric = HostFabric(settings)
        await self.fabric.start()
        self._informers = Informers(self.api)
        self.enforcement = NodeEnforcement("n1", self.fabric, self._informers, self.woken.add, self._event)
        await self._informers.start()
        await self.enforcement.start()

    async def stop(self, *, for_good: bool = False) -> None:
        await self.enforcement.close()
        await self._informers.stop()
        await (self.fabric.teardown() if for_good else self.fabric.close())

    async def pod(self, name: str) -> tuple[str, NetworkInterface]:
        """(uid, where it hangs)."""
        spec = {"containers": [{"name": "c", "image": "i"}]}
        meta = {"name": name, "namespace": "default", "labels": {"app": name}}
        obj = await self.api.create(PODS, {"metadata": meta, "spec": spec})
        adapter = adapter_for(PODS)
        assert adapter is not None
        workload = adapter.project(obj)
        attachment = await self.fabric.plug(workload)
        self.enforcement.changed(workload.uid)
        return workload.uid, attachment

    def _event(self, obj: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        self.events.append((f"{obj['kind']}/{obj['metadata']['name']}", reason, message))


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    require("nft", "dnsmasq", root=True)
    made = Node(tmp_path)
    await bootstrap(Verbs(made.store, Chain()))
    await made.start()
    yield made
    await made.stop(for_good=True)
    await made.store.close()
    assert traces(made.fabric.names.tag, tmp_path) == []


def closed_to(name: str) -> Object:
    spec = {"podSelector": {"matchLabels": {"app": name}}, "policyTypes": ["Ingress"]}
    return {"metadata": {"name": f"close-{name}", "namespace": "default"}, "spec": spec}


NONSENSE = {
    "metadata": {"name": "nonsense"},
    "spec": {
        "tier": "Admin",
        "priority": 1,
        "subject": {"namespaces": {}},
        "egress": [{"action": "Accept", "to": [{"domainNames": ["example.com"]}]}],
    },
}
"""Well-formed by its schema, and nothing that an engine can enforce."""


async def test_a_denied_packet_becomes_an_event(node: Node) -> None:
    client, server = await node.pod("client"), await node.pod("server")
    await node.api.create(NETWORKPOLICIES, closed_to("server"))
    echo = EchoServer(server[1].netns, PORT)
    try:
        await eventually(lambda: node.enforcement.enforced(client[0]) is not None)
        why = f"Ingress from pod/default/client on {PORT}/UDP was dropped"
        because = "isolated by default/close-server, and no rule allows it"
        wanted = ("Pod/server", "NetworkPolicyDenied", f"{why}: {because}")

        def told() -> bool:
            return not udp_reaches(client[1].netns, server[1].address, PORT, 0.1) and wanted in node.events

        await eventually(told)
    finally:
        echo.close()


async def test_an_unreadable_stored_policy_opens_nothing(node: Node) -> None:
    client, server = await node.pod("client"), await node.pod("server")
    await eventually(lambda: node.enforcement.enforced(server[0]) is not None)
    unguarded = node.enforcement.enforced(server[0])
    await node.api.create(NETWORKPOLICIES, closed_to("server"))
    await eventually(lambda: node.enforcement.enforced(server[0]) != unguarded)
    echo, other = EchoServer(server[1].netns, PORT), EchoServer(client[1].netns, PORT)

    async def reaches(source: NetworkInterface, target: NetworkInterface) -> bool:
        return await asyncio.to_thread(udp_reaches, source.netns, target.address, PORT, 0.2)

    try:
        await eventually(lambda: udp_reaches(server[1].netns, client[1].address, PORT, 0.1))
        assert not await reaches(client[1], server[1])
        revision = node.enforcement.enforced(server[0])
        await node.api.create(CLUSTERNETWORKPOLICIES, NONSENSE)
        await node.api.delete(NETWORKPOLICIES, "close-server", "default")
        status = node.enforcement
        await eventually(lambda: status.status is not None and "compile" in status.status.failures)
        assert "nonsense" in status.status.failures["compile"]  # type: ignore[union-attr]
        assert node.enforcement.enforced(server[0]) == revision
        node.woken.clear()
        await eventually(lambda: "nonsense" in node.enforcement.failure)
        assert node.woken >= {client[0], server[0]}, "their status must say so"
        assert not await reaches(client[1], server[1]), "the last good rules stand"
        assert await reaches(server[1], client[1]), "and what they allow goes on"

        await node.stop()
        await node.start()
        late = await node.pod("late")
        await eventually(lambda: "compile" in getattr(node.enforcement.status, "failures", {}))
        assert not await reaches(client[1], server[1]), "a restart opens nothing"
        assert not await reaches(late[1], client[1]), "a new port stays closed"
        assert node.enforcement.enforced(late[0]) is None

        await node.api.delete(CLUSTERNETWORKPOLICIES, "nonsense")
        await eventually(lambda: node.enforcement.enforced(late[0]) is not None)
        await eventually(lambda: node.enforcement.failure == "")
        assert await reaches(late[1], client[1])
        assert await reaches(client[1], server[1])
    finally:
        echo.close()
        other.close()
