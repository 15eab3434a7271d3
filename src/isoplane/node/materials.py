"""The ConfigMaps and Secrets that a workload refers to, fetched before it starts."""

from __future__ import annotations

from isoplane.client.api import Api
from isoplane.objects.errors import NotFound
from isoplane.objects.metadata import Object
from isoplane.workload.shape import Workload


class MaterialsMissing(Exception):
    """An object that a workload needs is not there: which one, and where."""


async def gather(api: Api, workload: Workload, *, partly: bool = False) -> dict[str, Object]:
    """The referenced objects by ``plural/name``.

    Raises MaterialsMissing when one that is not optional is absent; ``partly`` leaves it out instead.
    """
    found: dict[str, Object] = {}
    for reference in workload.references:
        try:
            obj = await api.get(reference.resource, reference.name, workload.namespace)
        except NotFound:
            if reference.optional or partly:
                continue
            raise MaterialsMissing(
                f'{reference.resource.singular} "{reference.name}" not found in namespace {workload.namespace}; create it'
            ) from None
        found[f"{reference.resource.plural}/{reference.name}"] = obj
    return found
