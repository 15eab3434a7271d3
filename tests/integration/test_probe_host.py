"""A probe's host through the whole chain of admission: refused with its field, unless the plane was told otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoplane.objects.errors import Invalid
from isoplane.objects.kinds import PODS
from isoplane.plane import admission_plugins
from isoplane.server.admission import Chain
from isoplane.server.bootstrap import bootstrap
from isoplane.server.local import LocalApi
from isoplane.server.quota_admission import QuotaAdmission
from isoplane.server.verbs import Verbs
from isoplane.store import Store

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "namespace": "default"},
    "spec": {
        "containers": [
            {"name": "c", "image": "x", "livenessProbe": {"httpGet": {"port": 6443, "host": "localhost", "path": "/"}}}
        ]
    },
}


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_probe_host_needs_the_planes_permission(tmp_path: Path, allowed: bool) -> None:
    store = Store.open(tmp_path / "store")
    try:
        await bootstrap(Verbs(store, Chain()))
        chain = Chain(admission_plugins(QuotaAdmission(), allow_probe_host=allowed))
        api = LocalApi(Verbs(store, chain))
        if allowed:
            await api.create(PODS, POD)
            return
        with pytest.raises(Invalid, match=r"spec\.containers\[0\]\.livenessProbe\.httpGet\.host: Forbidden"):
            await api.create(PODS, POD)
    finally:
        await store.close()
