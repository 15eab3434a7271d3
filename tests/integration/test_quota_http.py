"""Quota as clients over the network see it: many at once, dry runs with warnings, an explanation of the live state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from isoplane.cli.quota import app
from isoplane.client import kubeconfig
from isoplane.client.http import HttpApi
from isoplane.objects.errors import QuotaExceeded
from isoplane.objects.kinds import NAMESPACES, PODS, PRIORITYCLASSES, QUOTAPOLICIES, QUOTAUSAGES, RESOURCEQUOTAS
from isoplane.server.apiserver import ApiServer
from isoplane.server.priority_admission import PriorityAdmission
from isoplane.server.quota_admission import QuotaAdmission, usage_summary
from quota_plane_support import pod

CLIENTS = 64


@pytest.fixture
async def config(tmp_path: Path) -> AsyncIterator[Path]:
    """The kubeconfig of a server with a tenant ``a``: 20 CPUs, eviction above 0."""
    path = tmp_path / "kubeconfig"
    server = ApiServer(tmp_path / "data", "127.0.0.1:0", path, admission=[PriorityAdmission(), QuotaAdmission()])
    await server.start()
    server.verbs.computed.register(usage_summary())
    async with HttpApi(kubeconfig.load(path)) as api:
        await api.create(NAMESPACES, {"metadata": {"name": "a"}})
        quota = {"metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": {"requests.cpu": "20"}}}
        await api.create(RESOURCEQUOTAS, quota)
        policy = {"metadata": {"name": "default", "namespace": "a"}, "spec": {"evictionThreshold": 0}}
        await api.create(QUOTAPOLICIES, policy)
        await api.create(PRIORITYCLASSES, {"metadata": {"name": "critical"}, "value": 1000})
    yield path
    await server.stop()


async def test_many_clients_never_pass_the_limit(config: Path) -> None:
    cluster = kubeconfig.load(config)
    async with AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(HttpApi(cluster)) for _ in range(CLIENTS)]

        async def churn(number: int, api: HttpApi) -> int:
            """Create, see the limit kept, delete some again."""
            admitted = 0
            for turn in range(3):
                name = f"p{number}-{turn}"
                try:
                    await api.create(PODS, pod(name))
                    admitted += 1
                except QuotaExceeded:
                    continue
                used = (await api.get(RESOURCEQUOTAS, "q", "a"))["status"]["used"]["requests.cpu"]
                assert int(used) <= 20
                if turn < 2:
                    await api.delete(PODS, name, "a", grace_seconds=0)
                    admitted -= 1
            return admitted

        left = await asyncio.gather(*(churn(number, api) for number, api in enumerate(apis)))
        pods = (await apis[0].list(PODS, "a")).items
        assert len(pods) == sum(left) <= 20
        usage = await apis[0].get(QUOTAUSAGES, "default", "a")
        assert len(usage["status"]["charges"]) == len(pods)
        quota = await apis[0].get(RESOURCEQUOTAS, "q", "a")
        assert quota["status"]["used"]["requests.cpu"] == str(len(pods))


async def test_a_dry_run_warns_and_an_explanation_agrees(config: Path, tmp_path: Path) -> None:
    cluster = kubeconfig.load(config)
    async with HttpApi(cluster) as api:
        for number in range(2):
            await api.create(PODS, pod(f"low{number}", cpu="10"))
            # On a node, so that leaving takes its time.
            await api.subresource(PODS, f"low{number}", "a", "binding", {"target": {"kind": "Node", "name": "n1"}})
    wanted = pod("db", cpu="15", priority="critical")
    assert cluster.context is not None
    async with httpx.AsyncClient(base_url=cluster.server, verify=cluster.context) as raw:
        answer = await raw.post("/api/v1/namespaces/a/pods?dryRun=All", json=wanted)
    assert answer.status_code == 201, answer.text
    assert answer.json()["spec"]["schedulingGates"] == [{"name": "isoplane.io/quota"}]
    warned = " ".join(answer.headers.get_list("warning"))
    assert "would evict" in warned
    assert "pod/a/low0" in warned

    (tmp_path / "db.yaml").write_bytes(orjson.dumps(wanted))
    result = await asyncio.to_thread(
        CliRunner().invoke, app, ["explain", "-f", str(tmp_path / "db.yaml"), "--kubeconfig", str(config), "-o", "json"]
    )
    assert result.exit_code == 1, result.output
    (told,) = orjson.loads(result.stdout)
    assert told["decision"] == "wait"
    assert all(victim["workload"] in warned for victim in told["victims"])
