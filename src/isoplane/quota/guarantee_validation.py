"""A guarantee must be possible: all guarantees of a cohort together fit its capacity."""

from __future__ import annotations

from isoplane.objects import metadata
from isoplane.objects.errors import Cause
from isoplane.objects.kinds import COHORTS, NODES, QUOTAPOLICIES, Resource
from isoplane.objects.metadata import Object
from isoplane.objects.quantity import render
from isoplane.objects.reader import ObjectReader
from isoplane.objects.validation import invalid
from isoplane.quota.configuration import Change, guaranteed, objects
from isoplane.quota.read import POLICY_NAME, capacity, policy_of


def check_guarantees(reader: ObjectReader, resource: Resource, namespace: str, name: str, obj: Object) -> None:
    """Judge a QuotaPolicy or Cohort being written. Raises Invalid with the resource that is guaranteed twice.

    Without nodes nothing is known of the capacity, and nothing is refused.
    """
    if resource is QUOTAPOLICIES and name != POLICY_NAME:
        message = f'Invalid value: "{name}": a namespace has one QuotaPolicy, named "{POLICY_NAME}"'
        raise invalid(resource, name, [Cause("metadata.name", message, "FieldValueInvalid")])
    cohort_name = name if resource is COHORTS else policy_of(obj).cohort
    if not cohort_name:
        return
    change = Change(resource, namespace, name, obj)
    cohorts = [c for c in objects(reader, COHORTS, None, change) if metadata.name(c) == cohort_name]
    if not cohorts:
        return
    limits = capacity(cohorts[0], objects(reader, NODES, None, change))
    policies = [policy_of(o) for o in objects(reader, QUOTAPOLICIES, None, change)]
    total = guaranteed(p for p in policies if p.cohort == cohort_name)
    causes = [
        Cause(
            "spec.overcommit" if resource is COHORTS else f"spec.guaranteed[{key.removeprefix('requests.')}]",
            f'Invalid value: cohort "{cohort_name}" would guarantee {render(key, value)} of {render(key, limits[key])}',
            "FieldValueInvalid",
        )
        for key, value in sorted(total.items())
        if key in limits and value > limits[key]
    ]
    if causes:
        raise invalid(resource, name, causes)
