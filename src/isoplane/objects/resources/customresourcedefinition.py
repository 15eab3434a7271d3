"""CustomResourceDefinition: announced, not served yet."""

from __future__ import annotations

from isoplane.objects.resource import READ_VERBS, Resource

CUSTOMRESOURCEDEFINITIONS = Resource(
    group="apiextensions.k8s.io",
    version="v1",
    plural="customresourcedefinitions",
    kind="CustomResourceDefinition",
    namespaced=False,
    short_names=("crd", "crds"),
    verbs=READ_VERBS,
    computed=True,
    announced=True,
)
