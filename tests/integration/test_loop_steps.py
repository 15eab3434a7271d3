"""Large requests leave the event loop to others: the steps between two of its turns stay few for each value of the request.

Steps are calls of functions on the loop's own thread, Python's and C's, as the interpreter counts them: no time is measured.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from isoplane.http.request_options import Call
from isoplane.objects import kinds
from isoplane.objects.copying import count
from isoplane.objects.errors import ApiError
from isoplane.objects.metadata import Object
from isoplane.plane import admission_plugins
from isoplane.server import ahead
from isoplane.server.admission import Chain
from isoplane.server.bootstrap import bootstrap
from isoplane.server.quota_admission import QuotaAdmission
from isoplane.server.verbs import Verbs
from isoplane.store import Store

Work = Callable[[], Awaitable[Any]]
FEW = 2500
"""Steps of any request, however small."""


def policy(rules: int) -> Object:
    ingress = [
        {"from": [{"ipBlock": {"cidr": f"10.{at >> 8}.{at & 255}.0/24"}}], "ports": [{"port": 80}]}
        for at in range(rules)
    ]
    return named("NetworkPolicy", "networking.k8s.io/v1", spec={"podSelector": {}, "ingress": ingress})


def named(kind: str, version: str, **fields: Any) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "large", "namespace": "default"}, **fields}


async def longest(work: Awaitable[Any]) -> int:
    """The most steps between two turns of the loop until ``work`` is done."""
    steps = most = 0
    done = False
    loop = asyncio.get_running_loop()

    def each(frame: Any, event: str, argument: Any) -> None:
        nonlocal steps
        steps += event in ("call", "c_call")

    def turn() -> None:
        nonlocal steps, most
        most, steps = max(most, steps), 0
        if not done:
            loop.call_soon(turn)

    turn()
    sys.setprofile(each)
    try:
        await work
    finally:
        sys.setprofile(None)
        done = True
        turn()
    return most


@pytest.fixture
async def verbs(tmp_path: Path) -> Any:
    store = Store.open(tmp_path, None)
    made = Verbs(store, Chain(admission_plugins(QuotaAdmission())))
    await bootstrap(made)
    yield made
    await store.close()


def requests(verbs: Verbs) -> dict[str, tuple[Work, int, int]]:
    """Name → what to do, its values, and the steps that the loop may spend on each of them."""
    large = policy(5000)
    config_map = named("ConfigMap", "v1", data={f"k{at}": "v" for at in range(30_000)})
    env = [{"name": f"A{at}", "value": "b"} for at in range(40)]
    containers = [{"name": f"c{at}", "image": "example/app:1", "env": env} for at in range(250)]
    pod = named("Pod", "v1", spec={"containers": containers})
    moves = [
        {"op": "move", "from": "/data/k1", "path": "/data/k1x"},
        {"op": "move", "from": "/data/k1x", "path": "/data/k1"},
    ] * 2000
    rules = {"spec": {"ingress": policy(5001)["spec"]["ingress"]}}

    def create(resource: kinds.Resource, obj: Object) -> Work:
        return lambda: verbs.create(resource, "default", orjson.loads(orjson.dumps(obj)), Call())

    def patch(resource: kinds.Resource, body: Any, kind: Any) -> Work:
        return lambda: verbs.patch(resource, "default", "large", body, kind, Call())

    return {
        "policy": (create(kinds.NETWORKPOLICIES, large), count(large), 2),
        "policy, merge patch": (patch(kinds.NETWORKPOLICIES, rules, "merge"), count(rules), 2),
        "policy, update": (
            lambda: verbs.update(kinds.NETWORKPOLICIES, "default", "large", policy(4999), Call()),
            count(large),
            2,
        ),
        "config map": (create(kinds.CONFIGMAPS, config_map), count(config_map), 0),
        "config map, JSON patch": (patch(kinds.CONFIGMAPS, moves, "json"), count(config_map) + count(moves), 0),
        "pod": (create(kinds.PODS, pod), count(pod), 8),
    }


async def test_large_requests_leave_the_loop_to_others(verbs: Verbs) -> None:
    found = {}
    for name, (work, values, each) in requests(verbs).items():
        steps = await longest(work())
        if steps > FEW + each * values:
            found[name] = f"{steps} steps in one turn for {values} values"
    assert not found


async def test_what_was_found_ahead_never_replaces_the_answer(verbs: Verbs) -> None:
    wrong = policy(5000)
    wrong["spec"]["ingress"][4999]["from"][0]["ipBlock"]["cidr"] = "10.0.0.0/99"
    with pytest.raises(ApiError, match=r"spec.ingress\[4999\].from\[0\].ipBlock.cidr"):
        await verbs.create(kinds.NETWORKPOLICIES, "default", wrong, Call())
    await verbs.create(kinds.NETWORKPOLICIES, "default", policy(5000), Call())
    changed = {"spec": {"ingress": wrong["spec"]["ingress"]}}
    with pytest.raises(ApiError, match=r"spec.ingress\[4999\].from\[0\].ipBlock.cidr"):
        await verbs.patch(kinds.NETWORKPOLICIES, "default", "large", changed, "merge", Call())


async def test_a_patch_made_ahead_is_made_again_when_the_object_changed_meanwhile(verbs: Verbs) -> None:
    config_map = named("ConfigMap", "v1", data={f"k{at}": "v" for at in range(20_000)})
    await verbs.create(kinds.CONFIGMAPS, "default", config_map, Call())
    body: list[Any] = [{"op": "add", "path": f"/data/n{at}", "value": "x" * 20} for at in range(1000)]
    assert len(orjson.dumps(body)) + len(orjson.dumps(config_map)) > ahead.LARGE
    patches = [verbs.patch(kinds.CONFIGMAPS, "default", "large", body, "json", Call())]
    patches += [
        verbs.patch(kinds.CONFIGMAPS, "default", "large", {"data": {f"m{at}": "y"}}, "merge", Call()) for at in range(8)
    ]
    await asyncio.gather(*patches)
    data = verbs.get(kinds.CONFIGMAPS, "default", "large").object()["data"]
    assert {f"m{at}" for at in range(8)} | {f"n{at}" for at in range(1000)} <= data.keys()
