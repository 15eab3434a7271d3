"""When a workload's volumes are brought up to their objects: in time, at once for its own labels, whatever is missing."""

from __future__ import annotations

from typing import Any, cast

from isoplane.client.api import Api
from isoplane.node.network.protocol import Fabric
from isoplane.node.runtime.protocol import Materials, NetworkInterface, Runtime, RuntimeFailure, RuntimeReason
from isoplane.node.track import Desired, Track
from isoplane.node.workload_controller import REFRESH_SECONDS, WorkloadController
from isoplane.objects.errors import NotFound
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import Observed, Stage, Workload


class World:
    """One ConfigMap, one runtime that keeps what it was given, a clock that is set."""

    node_addresses = ()

    def __init__(self) -> None:
        self.now, self.data, self.shown = 1000.0, {"k": "1"}, cast("dict[str, Any]", {})
        self.events: list[str] = []
        self.broken = False

    async def get(self, resource: Any, name: str, namespace: str) -> Any:
        if not self.data:
            raise NotFound(f"{name} not found")
        return {"data": dict(self.data)}

    async def plug(self, workload: Workload) -> NetworkInterface:
        return NetworkInterface()

    async def refresh(self, workload: Workload, materials: Materials) -> None:
        if self.broken:
            raise RuntimeFailure(RuntimeReason.CREATE_CONFIG, "no such key")
        self.shown = {"labels": workload.labels, **materials.objects}

    def tell(self, obj: Any, type_: str, reason: str, message: str, field_path: str = "") -> None:
        self.events.append(f"{reason}: {message}")


def pod(volume: dict[str, Any], label: str = "a") -> Desired:
    spec = {"containers": [{"name": "c"}], "volumes": [{"name": "v", **volume}]}
    obj = {"metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"l": label}}, "spec": spec}
    return Desired(PodAdapter(), obj, PodAdapter().project(obj))


async def test_volumes_follow_their_objects() -> None:
    world, track = World(), Track(runtime="oci")
    controller = WorkloadController(
        node="n", api=cast("Api", world), lookup=lambda *_: None, runtimes={"oci": cast("Runtime", world)},
        fabric=cast("Fabric", world), events=world.tell, clock=lambda: world.now,
    )  # fmt: skip
    observed = Observed(uid="u", namespace="n", name="p", prepared=True, units={}, addresses=())

    async def look(desired: Desired, stage: Stage = Stage.RUNNING) -> float | None:
        return await controller._refresh(desired, observed, stage, track)

    mapped = pod({"configMap": {"name": "m"}})
    assert await look(mapped) == world.now + REFRESH_SECONDS
    assert world.shown["configmaps/m"] == {"data": {"k": "1"}}

    world.data = {"k": "2"}
    await look(mapped)
    assert world.shown["configmaps/m"] == {"data": {"k": "1"}}, "before its time nothing is asked"
    world.now += REFRESH_SECONDS
    await look(mapped)
    assert world.shown["configmaps/m"] == {"data": {"k": "2"}}

    await look(pod({"configMap": {"name": "m"}}, label="b"))
    assert world.shown["labels"] == {"l": "b"}, "its own labels are shown at once"

    world.data, world.now = {}, world.now + REFRESH_SECONDS
    assert await look(mapped) is not None
    assert "configmaps/m" not in world.shown, "what is absent is the runtime's to judge, volume by volume"

    world.broken, world.now = True, world.now + REFRESH_SECONDS
    assert await look(mapped) == world.now + REFRESH_SECONDS
    assert world.events == ["FailedMount: no such key"]

    assert await look(pod({"emptyDir": {}})) is None
    assert await look(mapped, Stage.SUCCEEDED) is None
