"""Service: announced, not served yet."""

from __future__ import annotations

from isoplane.objects.resource import READ_VERBS, Resource

SERVICES = Resource(
    group="",
    version="v1",
    plural="services",
    kind="Service",
    short_names=("svc",),
    verbs=READ_VERBS,
    computed=True,
    announced=True,
)
