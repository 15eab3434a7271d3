"""LimitRanges in front of quota, through the verbs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.errors import Forbidden
from isoplane.objects.kinds import LIMITRANGES, NAMESPACES, PODS, RESOURCEQUOTAS, VIRTUALMACHINEINSTANCES
from isoplane.objects.metadata import Object
from isoplane.plane import admission_plugins
from isoplane.server.admission import Chain
from isoplane.server.bootstrap import bootstrap
from isoplane.server.local import LocalApi
from isoplane.server.quota_admission import QuotaAdmission
from isoplane.server.verbs import Verbs
from isoplane.store import Store
from quota_plane_support import vmi


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[LocalApi]:
    """The plane's own plug-ins in the plane's own order."""
    store = Store.open(tmp_path / "data")
    try:
        verbs = Verbs(store, Chain(admission_plugins(QuotaAdmission())))
        await bootstrap(verbs)
        made = LocalApi(verbs)
        await made.create(NAMESPACES, {"metadata": {"name": "a"}})
        yield made
    finally:
        await store.close()


async def limit(api: LocalApi, name: str = "limits", **item: Any) -> None:
    item = {"type": "Container", **item}
    await api.create(LIMITRANGES, {"metadata": {"name": name, "namespace": "a"}, "spec": {"limits": [item]}})


def pod(name: str, **resources: Any) -> Object:
    container = {"name": "main", "image": "busybox", "resources": resources}
    return {"metadata": {"name": name, "namespace": "a"}, "spec": {"containers": [container]}}


async def test_quota_counts_what_was_filled_in(api: LocalApi) -> None:
    quota = {
        "metadata": {"name": "q", "namespace": "a"},
        "spec": {"hard": {"requests.cpu": "1", "limits.memory": "2Gi"}},
    }
    await api.create(RESOURCEQUOTAS, quota)
    with pytest.raises(Forbidden, match="must specify"):
        await api.create(PODS, pod("before"))
    await limit(api, default={"memory": "1Gi"}, defaultRequest={"cpu": "250m"})
    made = await api.create(PODS, pod("web"))
    resources = made["spec"]["containers"][0]["resources"]
    assert (resources["requests"]["cpu"], resources["limits"]["memory"]) == ("250m", "1Gi")
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"].startswith("LimitRanger plugin set: ")
    used = (await api.get(RESOURCEQUOTAS, "q", "a"))["status"]["used"]
    assert used == {"requests.cpu": "250m", "limits.memory": "1Gi"}


async def test_out_of_bounds_is_refused_as_kubernetes_says_it(api: LocalApi) -> None:
    await limit(api, max={"cpu": "800m"}, min={"cpu": "100m"})
    with pytest.raises(Forbidden) as refused:
        await api.create(PODS, pod("web", limits={"cpu": "1500m"}))
    assert refused.value.message == (
        'pods "web" is forbidden: maximum cpu usage per Container is 800m, but limit is 1500m'
    )
    made = await api.create(PODS, pod("web"))  # max is the default limit and min the default request, as upstream
    assert made["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "800m"}


async def test_a_default_below_a_given_request_is_invalid(api: LocalApi) -> None:
    from isoplane.objects.errors import Invalid

    await limit(api, default={"memory": "128Mi"})
    with pytest.raises(Invalid, match="must be less than or equal to memory limit"):
        await api.create(PODS, pod("web", requests={"memory": "1Gi"}))


async def test_the_first_by_name_fills_in_and_all_bind(api: LocalApi) -> None:
    await limit(api, "b", default={"cpu": "2"})
    await limit(api, "a", default={"cpu": "1"})
    await limit(api, "c", type="Pod", max={"cpu": "1"})
    made = await api.create(PODS, pod("web"))
    assert made["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1"}
    with pytest.raises(Forbidden, match="maximum cpu usage per Pod is 1, but limit is 2"):
        await api.create(PODS, pod("big", limits={"cpu": "2"}))


async def test_machines_are_bound_and_others_left_alone(api: LocalApi) -> None:
    await api.create(PODS, pod("early", limits={"memory": "4Gi"}))
    await limit(api, type="Pod", max={"memory": "32Mi"})
    with pytest.raises(Forbidden, match="maximum memory usage per Pod is 32Mi, but limit is"):
        await api.create(VIRTUALMACHINEINSTANCES, vmi("guest"))
    labelled = await api.patch(PODS, "early", "a", {"metadata": {"labels": {"still": "here"}}})
    assert labelled["metadata"]["labels"] == {"still": "here"}
