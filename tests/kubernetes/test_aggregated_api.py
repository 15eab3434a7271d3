"""A server of ours behind a real kube-apiserver: the proxy says who asks, the cluster whether they may."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from control_plane_support import ControlPlane

from isoplane.http import delegated
from isoplane.http.app import App
from isoplane.http.authorization import Decision
from isoplane.http.listener import Listener
from isoplane.http.request_info import RequestInfo
from isoplane.http.tls import Pki, serving_context
from isoplane.http.user import User
from isoplane.objects.kinds import CONFIGMAPS, Resource
from second_server_support import BASE, ONE, VIEWED, Workloads

REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False)
SERVICE = {"name": "view", "namespace": "default"}
HOST = "view.default.svc"
APISERVICE = f"{VIEWED.version}.{VIEWED.group}"


@dataclass
class Cluster:
    plane: ControlPlane
    users: list[User]

    async def get(self, path: str, kubeconfig: Path | None = None) -> Any:
        """What kubectl is answered. Raises AssertionError with its error."""
        return json.loads(await asyncio.to_thread(self.plane.kubectl, "get", "--raw", path, kubeconfig=kubeconfig))

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return await asyncio.to_thread(self.plane.kubectl, *arguments, stdin=stdin)


@pytest.fixture
async def cluster(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Cluster]:
    """The server runs here; the cluster has its APIService, and a Service that leads to it."""
    users: list[User] = []
    async with control_plane.api() as api:
        namespace, name = delegated.CONFIG
        chain, authorities = delegated.authentication((await api.get(CONFIGMAPS, name, namespace))["data"])

        async def ask(user: User, info: RequestInfo) -> Decision:
            users.append(user)
            return delegated.decision(await api.create(REVIEWS, delegated.access_review(user, info)))

        pki = Pki(tmp_path)
        pki.server([HOST])
        context = serving_context(tmp_path / "server.crt", tmp_path / "server.key", authorities)
        listener = Listener(App(Workloads(), chain, lambda user, info: None, ask=ask), "127.0.0.1", 0, context)
        await listener.start()
        made = Cluster(control_plane, users)
        await made.kubectl("apply", "-f", "-", stdin=json.dumps(objects(listener.port, pki.ca.certificate)))
        try:
            await made.kubectl("wait", "--for=condition=Available", "--timeout=30s", f"apiservice/{APISERVICE}")
            yield made
        finally:
            await made.kubectl("delete", "apiservice", APISERVICE)
            await listener.stop()


def objects(port: int, ca: bytes) -> dict[str, Any]:
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": SERVICE,
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }  # fmt: skip
    spec = {
        "group": VIEWED.group, "version": VIEWED.version, "groupPriorityMinimum": 100, "versionPriority": 10,
        "service": {**SERVICE, "port": port}, "caBundle": base64.b64encode(ca).decode(),
    }  # fmt: skip
    registration = {
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": APISERVICE}, "spec": spec,
    }  # fmt: skip
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "view", "namespace": "shop"},
        "rules": [{"apiGroups": [VIEWED.group], "resources": [VIEWED.plural], "verbs": ["list", "watch"]}],
    }  # fmt: skip
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "view", "namespace": "shop"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "team-a"}],
    }  # fmt: skip
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    return {"apiVersion": "v1", "kind": "List", "items": [namespace, service, registration, role, binding]}


async def test_the_cluster_says_who_asks_and_who_may(cluster: Cluster) -> None:
    assert (await cluster.get(BASE))["resources"][0]["name"] == "workloads"
    assert [item["metadata"]["name"] for item in (await cluster.get(ONE))["items"]] == ["one", "two"]
    assert (cluster.users[-1].name, cluster.users[-1].groups[0]) == ("kubernetes-admin", "system:masters")
    ann = cluster.plane.user("ann", "team-a")
    assert len((await cluster.get(ONE, ann))["items"]) == 2
    assert cluster.users[-1].name == "ann"
    assert set(cluster.users[-1].groups) == {"team-a", "system:authenticated"}
    with pytest.raises(AssertionError, match='cannot get resource "workloads"'):
        await cluster.get(f"{ONE}/one", ann)
    with pytest.raises(AssertionError, match="Forbidden"):
        await cluster.get(ONE.replace("/shop/", "/default/"), ann)


async def test_kubectl_prints_and_watches(cluster: Cluster) -> None:
    table = await cluster.kubectl("get", f"workloads.{VIEWED.group}", "-n", "shop")
    assert [line.split()[0] for line in table.splitlines()] == ["NAME", "one", "two"]
    watched = await cluster.kubectl("get", "--raw", f"{ONE}?watch=1")
    assert [json.loads(line)["type"] for line in watched.splitlines()] == ["ADDED", "BOOKMARK", "DELETED", "ERROR"]


async def test_reviews_are_taken_whatever_is_asked(cluster: Cluster) -> None:
    """Every field of a review is one that the real API server reads: it refuses what it does not know."""
    user = User("ann", ("team-a",), "u1", (("scopes", ("x", "y")),))
    async with cluster.plane.api() as api:
        for info, allowed in (
            (RequestInfo("list", "", VIEWED.group, VIEWED.version, VIEWED.plural, "", "shop"), True),
            (RequestInfo("delete", "", VIEWED.group, VIEWED.version, VIEWED.plural, "", "shop", "one"), False),
            (RequestInfo("get", "", "", "v1", "pods", "log", "shop", "p"), False),
            (RequestInfo("get", "/healthz"), True),
            (RequestInfo("get", "/metrics"), False),
        ):
            review = delegated.access_review(user.authenticated(), info)
            assert delegated.decision(await api.create(REVIEWS, review)).allowed is allowed, info
