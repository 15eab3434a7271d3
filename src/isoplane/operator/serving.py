"""Serving the view to a cluster's API server: certificate, registration, who asks, whether they may.

The API server reaches us by a Service; on a laptop that Service leads outside the cluster by name.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from isoplane.client.api import Api
from isoplane.http import delegated
from isoplane.http.app import App, Service
from isoplane.http.authorization import Decision, Remembered
from isoplane.http.listener import Listener
from isoplane.http.request_info import RequestInfo
from isoplane.http.tls import Pki, serving_context
from isoplane.http.user import User
from isoplane.objects.kinds import CONFIGMAPS, WORKLOADS
from isoplane.objects.metadata import Object
from isoplane.objects.resource import Resource
from isoplane.operator.names import NAMESPACE, PART_OF

SERVICE = "isoplane"
HOST = f"{SERVICE}.{NAMESPACE}.svc"
APISERVICE = f"{WORKLOADS.version}.{WORKLOADS.group}"
REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", False)
_OPEN = ("/healthz", "/livez", "/readyz")


@asynccontextmanager
async def serving(api: Api, service: Service, host: str, port: int) -> AsyncIterator[tuple[int, bytes]]:
    """Serve on an address; gives the port and the CA (PEM) that the registration names."""
    namespace, name = delegated.CONFIG
    chain, authorities = delegated.authentication((await api.get(CONFIGMAPS, name, namespace))["data"])

    async def ask(user: User, info: RequestInfo) -> Decision:
        return delegated.decision(await api.create(REVIEWS, delegated.access_review(user, info)))

    with tempfile.TemporaryDirectory(prefix="isoplane-") as folder:
        pki = Pki(Path(folder))
        pki.server([HOST])
        context = serving_context(Path(folder) / "server.crt", Path(folder) / "server.key", authorities)
    decisions = Remembered(_authorize, ask)
    listener = Listener(App(service, chain, decisions.authorize, ask=decisions.ask), host, port, context)
    await listener.start()
    try:
        yield listener.port, pki.ca.certificate
    finally:
        await listener.stop()


def registration(host: str, port: int, ca: bytes) -> list[Object]:
    """The Service that leads to ``host``, and the APIService."""
    meta: dict[str, Any] = {"name": SERVICE, "namespace": NAMESPACE, "labels": dict(PART_OF)}
    spec = {
        "group": WORKLOADS.group, "version": WORKLOADS.version, "groupPriorityMinimum": 1000, "versionPriority": 15,
        "service": {"name": SERVICE, "namespace": NAMESPACE, "port": port}, "caBundle": base64.b64encode(ca).decode(),
    }  # fmt: skip
    return [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": meta,
            "spec": {"type": "ExternalName", "externalName": host, "ports": [{"name": "https", "port": port}]},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": APISERVICE, "labels": dict(PART_OF)}, "spec": spec,
        },
    ]  # fmt: skip


def _authorize(user: User, info: RequestInfo) -> Decision | None:
    """Health is everybody's; the rest is the cluster's to decide."""
    return Decision(True) if info.path in _OPEN else None
