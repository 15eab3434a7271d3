"""What the API refuses of policies, over the verbs, and that nothing refused is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.errors import Invalid, NotFound
from isoplane.objects.kinds import CLUSTERNETWORKPOLICIES, NETWORKPOLICIES, Resource
from isoplane.objects.metadata import Object
from isoplane.plane import admission_plugins
from isoplane.policy.parse import network_policy
from isoplane.server.admission import Chain
from isoplane.server.bootstrap import bootstrap
from isoplane.server.local import LocalApi
from isoplane.server.policy_admission import PolicyAdmission
from isoplane.server.quota_admission import QuotaAdmission
from isoplane.server.verbs import Verbs
from isoplane.store import Store

EVERYONE = {"namespaces": {}}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "store")
    await bootstrap(Verbs(opened, Chain()))
    yield opened
    await opened.close()


@pytest.fixture
def api(store: Store) -> LocalApi:
    return LocalApi(Verbs(store, Chain(admission_plugins(QuotaAdmission()))))


def policy(**spec: Any) -> Object:
    return {"metadata": {"name": "p", "namespace": "default"}, "spec": {"podSelector": {}, **spec}}


def wide(**rule: Any) -> Object:
    spec = {"tier": "Admin", "priority": 1, "subject": EVERYONE, "egress": [rule]}
    return {"metadata": {"name": "p"}, "spec": spec}


REFUSED: list[tuple[Resource, Object, str]] = [
    (
        NETWORKPOLICIES,
        policy(ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]),
        "spec.ingress[0].from[0].ipBlock.cidr",
    ),
    (NETWORKPOLICIES, policy(egress=[{"ports": [{"port": 80, "endPort": 79}]}]), "spec.egress[0].ports[0].endPort"),
    (NETWORKPOLICIES, policy(egress=[{"ports": [{"protocol": "QUIC"}]}]), "spec.egress[0].ports[0].protocol"),
    (NETWORKPOLICIES, policy(ingress=[{"from": [{}]}]), "spec.ingress[0].from[0]"),
    (NETWORKPOLICIES, {"metadata": {"name": "p", "namespace": "default"}}, "spec"),
    (
        NETWORKPOLICIES,
        policy(ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}]),
        "spec.ingress[0].from[0].ipBlock.except[0]",
    ),
    (
        CLUSTERNETWORKPOLICIES,
        wide(action="Accept", to=[{"domainNames": ["example.com"]}]),
        "spec.egress[0].to[0].domainNames",
    ),
    (
        CLUSTERNETWORKPOLICIES,
        wide(action="Deny", to=[{"networks": ["10.0.0.0/33"]}]),
        "spec.egress[0].to[0].networks[0]",
    ),
]


@pytest.mark.parametrize(("resource", "obj", "field"), REFUSED, ids=[field for _, _, field in REFUSED])
async def test_refused_with_the_field_and_not_stored(
    api: LocalApi, resource: Resource, obj: Object, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await api.create(resource, obj)
    assert refused.value.code == 422
    assert field in [cause.field for cause in refused.value.causes]
    assert (await api.list(resource)).items == []


async def test_an_update_to_nonsense_leaves_what_was_enforced(api: LocalApi) -> None:
    stored = await api.create(CLUSTERNETWORKPOLICIES, wide(action="Deny", to=[EVERYONE]))
    bad = {**stored, "spec": wide(action="Accept", to=[{"domainNames": ["example.com"]}])["spec"]}
    with pytest.raises(Invalid, match="domainNames"):
        await api.update(CLUSTERNETWORKPOLICIES, bad)
    with pytest.raises(Invalid):
        patch = {"spec": {"egress": [{"action": "Deny", "to": []}]}}
        await api.patch(CLUSTERNETWORKPOLICIES, "p", "", patch)
    assert (await api.get(CLUSTERNETWORKPOLICIES, "p"))["spec"] == stored["spec"]


async def test_ten_thousand_rules_are_taken(api: LocalApi) -> None:
    rules = [
        {"from": [{"ipBlock": {"cidr": f"10.{n // 250}.{n % 250}.0/24"}}], "ports": [{"port": 1 + n}]}
        for n in range(10_000)
    ]
    stored = await api.create(NETWORKPOLICIES, policy(ingress=rules))
    assert len(network_policy(stored).ingress or ()) == 10_000


async def test_an_unreadable_one_of_old_can_still_be_deleted(store: Store, api: LocalApi) -> None:
    before = LocalApi(Verbs(store, Chain()))
    bad = wide(action="Accept", to=[{"domainNames": ["example.com"]}])
    bad["metadata"]["finalizers"] = ["example.com/hold"]
    await before.create(CLUSTERNETWORKPOLICIES, bad)
    await api.patch(CLUSTERNETWORKPOLICIES, "p", "", {"metadata": {"labels": {"seen": "yes"}}})
    await api.delete(CLUSTERNETWORKPOLICIES, "p")
    await api.patch(CLUSTERNETWORKPOLICIES, "p", "", {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await api.get(CLUSTERNETWORKPOLICIES, "p")


def test_other_kinds_are_not_looked_at() -> None:
    plugin = PolicyAdmission()
    assert not plugin.handles(NETWORKPOLICIES, "DELETE", "")
