"""The policy commands beside a running API server: the same answers, changes laid over it, and what is enforced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from apiserver_support import ServerThread
from isoplane.cli.manifests import read
from isoplane.cli.policy import app
from isoplane.node.metrics import hit_families
from isoplane.objects import kinds
from isoplane.objects.exposition import Family
from isoplane.objects.metadata import Object
from isoplane.policy.hits import RuleHits
from isoplane.server.apiserver import ApiServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "03-tenant-isolation"


POD_SPEC = {"containers": [{"name": "c", "image": "x"}]}


def run(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerThread]:
    started = ServerThread(tmp_path_factory.mktemp("live")).start()
    objects = read([EXAMPLE / "workloads.yaml", EXAMPLE / "policy.yaml"])
    for obj in sorted(objects, key=lambda o: o["kind"] != "Namespace"):
        started.run(_create(started.server, obj))
    yield started
    started.stop()


async def _create(server: ApiServer, obj: Object) -> None:
    await server.local_api.create(kinds.of(obj), obj)


@pytest.fixture
def live(server: ServerThread) -> tuple[str, str]:
    return "--kubeconfig", str(server.kubeconfig)


def test_live_answers_are_those_of_the_manifests(live: tuple[str, str]) -> None:
    files = ("-f", str(EXAMPLE / "workloads.yaml"), "-f", str(EXAMPLE / "policy.yaml"))
    question = ("--from", "tenant-b/intruder", "--to", "tenant-a/database", "--port", "8080", "-o", "json")
    offline, online = run("explain", *files, *question), run("explain", *live, *question)
    assert online.exit_code == offline.exit_code == 1
    assert json.loads(online.stdout)["ingress"] == json.loads(offline.stdout)["ingress"]
    rows = [json.loads(run("reach", *source, "-o", "json").stdout) for source in (files, live)]
    assert rows[0] == rows[1]
    assert run("check", *live).exit_code == 1
    assert "table inet isoplane" in run("render", *live).stdout


def test_diff_says_what_applying_would_open(live: tuple[str, str]) -> None:
    corrected = ("-f", str(EXAMPLE / "corrected" / "policy.yaml"))
    done = run("diff", *live, *corrected, "-o", "json")
    assert done.exit_code == 1
    opened = [(row["from"], row["to"]) for row in json.loads(done.stdout)["opened"]]
    assert ("pod/shared/backup", "vm/tenant-a/database") in opened
    assert run("diff", *live, "-f", str(EXAMPLE / "policy.yaml")).exit_code == 0
    question = ("--from", "shared/backup", "--to", "tenant-a/database", "--port", "8080")
    assert run("explain", *live, *question).exit_code == 1
    assert run("explain", *live, *corrected, *question).exit_code == 0, "manifests are laid over what runs"


def test_status_tells_who_is_not_enforced(server: ServerThread, live: tuple[str, str]) -> None:
    def rows() -> tuple[int, dict[str, dict[str, Any]]]:
        done = run("status", *live, "-o", "json")
        return done.exit_code, {row["workload"]: row for row in json.loads(done.stdout)}

    async def report(**status: Any) -> None:
        api = server.server.local_api
        await api.patch(kinds.PODS, "web", "tenant-a", {"status": status}, subresource="status")

    async def bind() -> None:
        api = server.server.local_api
        await api.create(kinds.NODES, {"metadata": {"name": "n1"}})
        target = {"target": {"kind": "Node", "name": "n1"}}
        await api.subresource(kinds.PODS, "web", "tenant-a", "binding", target)

    code, before = rows()
    assert code == 0
    assert before["pod/tenant-a/web"]["state"] == "waiting"
    server.run(bind())
    code, placed = rows()
    assert code == 1
    assert placed["pod/tenant-a/web"]["state"] == "not enforced"
    assert "pod/tenant-a/web" in run("status", *live).stderr
    condition = {
        "type": "NetworkPolicyEnforced",
        "status": "True",
        "reason": "RulesLoaded",
        "message": "revision 0123456789abcdef",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    server.run(report(conditions=[condition]))
    code, enforced = rows()
    assert code == 0
    told = enforced["pod/tenant-a/web"]
    assert (told["enforced"], told["revision"], told["since"]) == (True, "0123456789abcdef", "2026-01-02T03:04:05Z")
    table = run("status", *live).stdout.splitlines()
    assert table[0].split() == ["WORKLOAD", "NODE", "STATE", "REVISION", "SINCE"]
    assert any(line.split()[:3] == ["pod/tenant-a/web", "n1", "enforced"] for line in table)
    server.run(report(phase="Succeeded", conditions=[]))
    assert rows()[0] == 0, "what has ended needs no rules"


def test_status_on_a_simulated_plane_says_that_nothing_is_enforced(server: ServerThread, live: tuple[str, str]) -> None:
    async def place(runtime: str) -> None:
        api = server.server.local_api
        words = ("architecture", "bootID", "kernelVersion", "kubeProxyVersion", "kubeletVersion", "machineID")
        more = ("operatingSystem", "osImage", "systemUUID")
        info = {"nodeInfo": {**dict.fromkeys((*words, *more), "x"), "containerRuntimeVersion": runtime}}
        await api.create(kinds.NODES, {"metadata": {"name": "pretend"}})
        await api.patch(kinds.NODES, "pretend", "", {"status": info}, subresource="status")
        await api.create(kinds.PODS, {"metadata": {"name": "sim", "namespace": "tenant-a"}, "spec": POD_SPEC})
        target = {"target": {"kind": "Node", "name": "pretend"}}
        await api.subresource(kinds.PODS, "sim", "tenant-a", "binding", target)

    server.run(place("simulated://1"))
    done = run("status", *live, "-o", "json")
    row = next(r for r in json.loads(done.stdout) if r["workload"] == "pod/tenant-a/sim")
    assert (done.exit_code, row["state"], row["enforced"]) == (0, "simulated", False)
    assert "this plane is simulated" in done.stderr


def test_hits_are_those_of_the_plane(server: ServerThread, live: tuple[str, str]) -> None:
    assert run("hits", *live).stdout.split() == ["RULE", "DIRECTION"], "nothing counts on a server without a node"
    rules = [
        RuleHits("tenant-a/isolate", "tenant-a/isolate/ingress[0]", "Ingress", {"nftables": 12, "openvswitch": 3}),
        RuleHits("tenant-a/isolate", "tenant-a/isolate/egress[0]", "Egress", {"nftables": 0, "openvswitch": 0}),
    ]

    def counted() -> Iterator[Family]:
        return hit_families(rules, 4)

    server.server.metrics.register(counted)
    try:
        done, never = run("hits", *live), run("hits", "--never", *live, "-o", "json")
    finally:
        server.server.metrics._collectors.remove(counted)
    assert done.exit_code == never.exit_code == 0
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["RULE", "DIRECTION", "NFTABLES", "OPENVSWITCH"],
        ["tenant-a/isolate/ingress[0]", "Ingress", "12", "3"],
        ["tenant-a/isolate/egress[0]", "Egress", "0", "0"],
    ]
    assert "4 more rules are not told" in done.stderr
    assert [row["rule"] for row in json.loads(never.stdout)] == ["tenant-a/isolate/egress[0]"]
