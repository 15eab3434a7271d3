"""Answers at the edges of the API: namespaces that stay, empty maps, tokens of the future, priorities that stand."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import samples_support as samples
from isoplane.client import kubeconfig
from isoplane.plane import admission_plugins
from isoplane.server.apiserver import ApiServer
from isoplane.server.quota_admission import QuotaAdmission

DEFAULT = "/api/v1/namespaces/default"
MACHINES = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
MERGE = {"content-type": "application/merge-patch+json"}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    server = ApiServer(
        tmp_path / "data", "127.0.0.1:0", tmp_path / "kubeconfig", admission=admission_plugins(QuotaAdmission())
    )
    await server.start()
    cluster = kubeconfig.load(tmp_path / "kubeconfig")
    assert cluster.context is not None
    async with httpx.AsyncClient(base_url=cluster.server, verify=cluster.context) as client:
        yield client
    await server.stop()


async def made(client: httpx.AsyncClient, where: str, obj: Any) -> Any:
    answer = await client.post(where, json=obj)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_namespaces_that_others_rely_on_stay(client: httpx.AsyncClient) -> None:
    for name in ("default", "kube-system", "kube-public"):
        for more in ("", "?dryRun=All&gracePeriodSeconds=0"):
            answer = await client.delete(f"/api/v1/namespaces/{name}{more}")
            assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
            assert answer.json()["message"] == f'namespaces "{name}" is forbidden: this namespace may not be deleted'
        assert (await client.get(f"/api/v1/namespaces/{name}")).json()["status"]["phase"] == "Active"
    await made(client, "/api/v1/namespaces", {"metadata": {"name": "mine"}})
    assert (await client.delete("/api/v1/namespaces/mine")).status_code == 200


@pytest.mark.parametrize(
    ("plural", "obj", "empties"),
    [
        ("configmaps", {"data": {"a": "1"}}, {"binaryData": {}, "metadata": {"labels": {}, "annotations": {}}}),
        ("pods", {"spec": {"containers": [{"name": "c", "image": "i:1", "args": [], "resources": {"limits": {}}}]}},
         {"spec": {"nodeSelector": {}, "tolerations": [], "imagePullSecrets": []}, "metadata": {"ownerReferences": []}}),
        ("serviceaccounts", {"metadata": {"labels": {}}, "secrets": []}, {"imagePullSecrets": []}),
    ],
)  # fmt: skip
async def test_an_empty_map_written_back_is_no_change(
    client: httpx.AsyncClient, plural: str, obj: Any, empties: Any
) -> None:
    name = {"name": "x"}
    stored = await made(client, f"{DEFAULT}/{plural}", {**obj, "metadata": {**obj.get("metadata", {}), **name}})
    where = f"{DEFAULT}/{plural}/x"
    full = {**stored, **{key: {**stored.get(key, {}), **value} if value else value for key, value in empties.items()}}
    for answer in (
        await client.put(where, json=full),
        await client.patch(where, json=empties, headers=MERGE),
        await client.put(where, json=without_empties(stored)),
    ):
        assert answer.status_code == 200, answer.text
        assert answer.json()["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]
        assert answer.json() == stored


def without_empties(value: Any) -> Any:
    """As a client with Go's types writes it; objects that say something by being there are not in these manifests."""
    if isinstance(value, dict):
        return {
            k: without_empties(v)
            for k, v in value.items()
            if v not in ({}, []) or k in ("securityContext", "resources") or k.startswith(("f:", "."))
        }
    return [without_empties(item) for item in value] if isinstance(value, list) else value


async def test_an_empty_object_says_something(client: httpx.AsyncClient) -> None:
    where = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
    spec = {"podSelector": {"matchLabels": {"a": "b"}}, "policyTypes": ["Ingress"], "ingress": [{}]}
    stored = await made(client, where, {"metadata": {"name": "x"}, "spec": spec})
    stored["spec"]["podSelector"] = {}
    answer = await client.put(f"{where}/x", json=stored)
    assert answer.json()["spec"]["podSelector"] == {}
    assert answer.json()["metadata"]["generation"] == 2
    stored = answer.json()
    stored["spec"]["ingress"] = [{"from": [{"podSelector": {}}]}]
    assert (await client.put(f"{where}/x", json=stored)).json()["metadata"]["generation"] == 3
    volume = {"name": "v", "emptyDir": {}}
    pod = await made(client, f"{DEFAULT}/pods", {
        "metadata": {"name": "v"}, "spec": {"containers": [{"name": "c", "image": "i:1"}], "volumes": [volume]},
    })  # fmt: skip
    assert pod["spec"]["volumes"] == [volume]


async def test_a_token_of_the_future_is_gone(client: httpx.AsyncClient) -> None:
    for name in "abc":
        await made(client, f"{DEFAULT}/configmaps", {"metadata": {"name": name}})
    page = (await client.get(f"{DEFAULT}/configmaps?limit=1")).json()
    token = page["metadata"]["continue"]
    assert (await client.get(f"{DEFAULT}/configmaps?limit=1&continue={token}")).status_code == 200
    for revision, code in ((10**9, 410), (10**15, 410), (0, 400), (-1, 400), ("true", 400)):
        forged = base64.urlsafe_b64encode(f'[{revision},"default","a"]'.encode()).rstrip(b"=").decode()
        answer = await client.get(f"{DEFAULT}/configmaps?limit=1&continue={forged}")
        assert answer.status_code == code, answer.text
        assert answer.json()["reason"] == ("Expired" if code == 410 else "BadRequest")


async def test_a_resolved_priority_stands(client: httpx.AsyncClient) -> None:
    classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
    await made(client, classes, {"metadata": {"name": "high"}, "value": 1000})
    machine = samples.vmi("guest")
    machine["metadata"] = {"name": "guest"}
    machine["spec"]["priorityClassName"] = "high"
    stored = await made(client, MACHINES, machine)
    resolved = {"isoplane.io/priority": "1000", "isoplane.io/preemption-policy": "PreemptLowerPriority"}
    assert resolved.items() <= stored["metadata"]["annotations"].items()
    for name in resolved:
        for where in ("", "/status"):
            patch = {"metadata": {"annotations": {name: "2000000000"}}}
            answer = await client.patch(f"{MACHINES}/guest{where}", json=patch, headers=MERGE)
            assert answer.status_code == 422, answer.text
            assert answer.json()["details"]["causes"][0]["field"] == f"metadata.annotations[{name}]"
    gone = {"metadata": {"annotations": None, "labels": {"x": "y"}}}
    answer = await client.patch(f"{MACHINES}/guest", json=gone, headers=MERGE)
    assert answer.status_code == 200, answer.text
    assert answer.json()["metadata"]["annotations"].items() >= resolved.items()
    assert answer.json()["metadata"]["labels"]["x"] == "y"


async def test_a_service_account_has_to_exist(client: httpx.AsyncClient) -> None:
    def pod(account: str) -> Any:
        spec = {"containers": [{"name": "c", "image": "i:1"}], "serviceAccountName": account}
        return {"metadata": {"generateName": "web-"}, "spec": spec}

    for more in ("", "?dryRun=All"):
        answer = await client.post(f"{DEFAULT}/pods{more}", json=pod("robot"))
        assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
        said = 'error looking up service account default/robot: serviceaccount "robot" not found'
        assert said in answer.json()["message"]
    old = pod("")
    old["spec"]["serviceAccount"] = "robot"
    assert (await client.post(f"{DEFAULT}/pods", json=old)).status_code == 403
    await made(client, f"{DEFAULT}/serviceaccounts", {"metadata": {"name": "robot"}})
    await made(client, f"{DEFAULT}/pods", pod("robot"))
    # No controller runs here, so the account "default" of this namespace is still to come.
    await made(client, "/api/v1/namespaces", {"metadata": {"name": "new"}})
    await made(client, "/api/v1/namespaces/new/pods", pod("default"))
    await made(client, "/api/v1/namespaces/new/pods", pod(""))
    assert (await client.post("/api/v1/namespaces/nowhere/pods", json=pod("robot"))).status_code == 404
