"""/metrics of a whole plane on the simulated runtime: who may read it, and that what happens shows."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from isoplane.client import kubeconfig
from isoplane.node.metrics import enforcement_families
from isoplane.node.network.enforcer import EnforcementStatus
from isoplane.node.parts import NodeOptions
from isoplane.node.runtime.simulated import Pace
from isoplane.objects.errors import QuotaExceeded
from isoplane.objects.exposition import render
from isoplane.objects.kinds import (
    NAMESPACES,
    PODS,
    PRIORITYCLASSES,
    QUOTAPOLICIES,
    RESOURCEQUOTAS,
    VIRTUALMACHINEINSTANCES,
)
from isoplane.plane import Plane, PlaneOptions
from quota_plane_support import pod, vmi

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "metrics.md"
Values = dict[str, float]
SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{(?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)*\})?) (\S+)')
FAMILY = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    node = NodeOptions(simulated=True, paces={"oci": Pace(0.0, 0.0), "qemu": Pace(0.0, 0.0)})
    made = Plane(PlaneOptions(tmp_path / "data", listen="127.0.0.1:0", node=node))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest.fixture
async def client(plane: Plane) -> AsyncIterator[httpx.AsyncClient]:
    """The administrator's."""
    cluster = kubeconfig.load(plane.options.kubeconfig_path)
    assert cluster.context is not None
    async with httpx.AsyncClient(base_url=cluster.server, verify=cluster.context) as made:
        yield made


def parsed(text: str) -> Values:
    """Every sample by its name and labels; the whole text must be well-formed."""
    found: Values = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        assert match[1] not in found, f"twice: {line}"
        found[match[1]] = float(match[2])
    return found


async def scrape(client: httpx.AsyncClient) -> Values:
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(response.text)


async def until(client: httpx.AsyncClient, holds: Callable[[Values], bool], what: str) -> Values:
    for _ in range(200):
        seen = await scrape(client)
        if holds(seen):
            return seen
        await asyncio.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}: {seen}")


async def tenant(plane: Plane) -> None:
    await plane.api.create(NAMESPACES, {"metadata": {"name": "a"}})
    hard = {"requests.cpu": "4", "pods": "10"}
    await plane.api.create(RESOURCEQUOTAS, {"metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": hard}})
    policy = {"metadata": {"name": "default", "namespace": "a"}, "spec": {"evictionThreshold": 100}}
    await plane.api.create(QUOTAPOLICIES, policy)
    for name, value in (("batch", 10), ("critical", 1000)):
        await plane.api.create(PRIORITYCLASSES, {"metadata": {"name": name}, "value": value})


async def test_only_who_may_ask_is_answered(plane: Plane, client: httpx.AsyncClient) -> None:
    stranger = ssl.create_default_context()
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    async with httpx.AsyncClient(base_url=plane.server.url, verify=stranger) as anonymous:
        assert (await anonymous.get("/metrics")).status_code == 401
    refused = 'apiserver_request_total{verb="GET",group="",resource="",subresource="",code="401"}'
    assert (await scrape(client))[refused] == 1
    assert (await client.post("/metrics")).status_code == 404


async def test_requests_are_counted_however_they_are_answered(client: httpx.AsyncClient) -> None:
    def total(verb: str, code: int, resource: str = "configmaps") -> str:
        labels = f'verb="{verb}",group="",resource="{resource}",subresource="",code="{code}"'
        return f"apiserver_request_total{{{labels}}}"

    base = "/api/v1/namespaces/default/configmaps"
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    assert (await client.post(base, json=manifest)).status_code == 201
    assert (await client.post(base, json=manifest)).status_code == 409
    for headers in ({}, {"connection": "close"}, {"accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}):
        assert (await client.get(f"{base}/c", headers=headers)).status_code == 200
    assert (await client.get(f"{base}/none")).status_code == 404
    assert (await client.get(base)).status_code == 200
    assert (await client.get(base, params={"watch": "maybe"})).status_code == 400
    assert (await client.delete(f"{base}/c")).status_code == 200
    seen = await scrape(client)
    counts = {("POST", 201): 1, ("POST", 409): 1, ("GET", 200): 3, ("GET", 404): 1, ("LIST", 200): 1, ("LIST", 400): 1}
    for (verb, code), count in {**counts, ("DELETE", 200): 1}.items():
        assert seen[total(verb, code)] == count, (verb, code)
    labels = 'verb="GET",group="",resource="configmaps",subresource=""'
    assert seen[f"apiserver_request_duration_seconds_count{{{labels}}}"] == 4
    assert seen[f'apiserver_request_duration_seconds_bucket{{{labels},le="+Inf"}}'] == 4
    assert seen[f"apiserver_request_duration_seconds_sum{{{labels}}}"] > 0


async def test_open_watches_show_while_they_last(client: httpx.AsyncClient) -> None:
    labels = 'verb="WATCH",group="",resource="configmaps",subresource=""'
    number = f"apiserver_longrunning_requests{{{labels}}}"
    before = await scrape(client)
    async with client.stream("GET", "/api/v1/configmaps", params={"watch": "1"}):
        seen = await scrape(client)
        assert seen[number] == 1
        assert seen["isoplane_store_watches"] == before["isoplane_store_watches"] + 1
    seen = await until(client, lambda now: now[number] == 0, "the watch to end")
    assert seen[f'apiserver_request_total{{{labels},code="200"}}'] == 1
    assert f"apiserver_request_duration_seconds_count{{{labels}}}" not in seen


async def test_the_store_counts_what_it_commits(plane: Plane, client: httpx.AsyncClient) -> None:
    before = await scrape(client)
    names = [f"n{number}" for number in range(8)]
    await asyncio.gather(*(plane.api.create(NAMESPACES, {"metadata": {"name": name}}) for name in names))
    after = await scrape(client)
    for name in ("isoplane_store_changes_total", "isoplane_store_revision"):
        assert after[name] >= before[name] + len(names)
    assert after["isoplane_store_commits_total"] > before["isoplane_store_commits_total"]
    assert after["isoplane_store_commit_seconds_total"] > before["isoplane_store_commit_seconds_total"]
    assert after["isoplane_store_batch_changes_sum"] == after["isoplane_store_changes_total"]
    assert after['isoplane_store_batch_changes_bucket{le="4"}'] < after["isoplane_store_batch_changes_count"]
    assert after["isoplane_store_commit_failures_total"] == 0


async def test_quota_workloads_and_controllers_tell_what_happened(plane: Plane, client: httpx.AsyncClient) -> None:
    def quota(column: str, resource: str = "requests.cpu") -> str:
        return f'isoplane_quota_{column}{{namespace="a",quota="q",resource="{resource}"}}'

    def running(kind: str) -> str:
        return f'isoplane_workloads{{namespace="a",kind="{kind}",stage="Running"}}'

    await tenant(plane)
    await plane.api.create(PODS, pod("low", cpu="2500m", priority="batch", grace=1))
    await plane.api.create(VIRTUALMACHINEINSTANCES, vmi("vm", cpu="500m", priority="batch", grace=1))
    machine = running("VirtualMachineInstance")
    seen = await until(client, lambda now: now.get(machine) == now.get(running("Pod")) == 1, "both to run")
    assert seen[quota("hard")] == 4
    assert seen[quota("used")] == 3
    assert seen[quota("hard", "pods")] == 10
    assert seen[quota("held")] == 0
    assert seen['isoplane_quota_decisions_total{namespace="a",decision="admit"}'] == 2
    assert 'isoplane_quota_decisions_total{namespace="a",decision="deny"}' not in seen

    with pytest.raises(QuotaExceeded):
        await plane.api.create(PODS, pod("no", cpu="2", priority="batch"))
    await plane.api.create(PODS, pod("db", cpu="3500m", priority="critical"))
    seen = await scrape(client)
    assert seen['isoplane_quota_decisions_total{namespace="a",decision="deny"}'] == 1
    assert seen['isoplane_quota_decisions_total{namespace="a",decision="wait"}'] == 1
    assert seen['isoplane_quota_evictions_total{namespace="a",kind="Pod"}'] == 1
    done = 'controller_runtime_reconcile_total{controller="workload",result="success"}'
    seen = await until(client, lambda now: now.get(running("Pod")) == 1 and now[quota("used")] == 4, "the heir")
    assert seen[quota("held")] == 0
    assert seen[done] > 0
    assert seen['workqueue_depth{name="workload"}'] >= 0
    assert seen['controller_runtime_reconcile_time_seconds_count{controller="workload"}'] >= seen[done]
    assert 0 < seen["process_open_fds"] <= seen["process_max_fds"]


def test_the_enforcement_tells_its_revision_and_troubles() -> None:
    status = EnforcementStatus("abc", {"nftables": "no such table"}, drifts=2, cut=3, loaded_at=100.0)
    seen = parsed(render(enforcement_families(status, 107.5)))
    assert seen == {
        'isoplane_network_policy_revision_info{revision="abc"}': 1,
        "isoplane_network_policy_revision_age_seconds": 7.5,
        "isoplane_network_policy_drifts_total": 2,
        "isoplane_network_policy_cut_connections_total": 3,
        'isoplane_network_policy_failing{engine="nftables"}': 1,
        "isoplane_network_policy_failures": 1,
    }
    assert "isoplane_network_policy_revision_age_seconds" not in parsed(
        render(enforcement_families(EnforcementStatus("", {}, 0, 0), 1.0))
    )
    assert not list(enforcement_families(None, 1.0))


async def test_the_guide_lists_what_is_served(client: httpx.AsyncClient) -> None:
    served = dict(FAMILY.findall((await client.get("/metrics")).text))
    # The simulated plane enforces nothing; a real one tells this too.
    served |= dict(FAMILY.findall(render(enforcement_families(EnforcementStatus("", {}, 0, 0), 0.0))))
    told = dict(re.findall(r"^\| `([a-z_]+)(?:\{[a-z_,]+\})?` \| (\w+) \|", GUIDE.read_text(), re.MULTILINE))
    assert told == served
