"""Admission of NetworkPolicy and ClusterNetworkPolicy: what is stored can be enforced.

The schema's rules (``objects.rules.network``) come first and speak for every Kubernetes; here the reader that the engines
use has the last word, so that nothing is accepted that they would have to leave out (``domainNames``, say).  A policy that
nobody can read would hold up every later change of the rules of the whole node.
"""

from __future__ import annotations

from isoplane.objects.kinds import CLUSTERNETWORKPOLICIES, NETWORKPOLICIES, Resource
from isoplane.objects.metadata import Object
from isoplane.objects.remembered import Key, Remembered
from isoplane.objects.validation import invalid
from isoplane.policy import clusterpolicy, parse
from isoplane.server.admission import AdmissionRequest, Operation, Plugin

_READERS = {NETWORKPOLICIES: parse.problems_of, CLUSTERNETWORKPOLICIES: clusterpolicy.problems_of}

_SOUND: Remembered[bool] = Remembered()
"""Specs that can be read; names are the business of the rules of every kind's metadata."""
_ANY = {"name": "any", "namespace": "any"}


class PolicyAdmission(Plugin):
    """Refuses a policy that cannot be enforced as written, with one cause for each wrong field."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        return resource in _READERS and operation in ("CREATE", "UPDATE") and not subresource

    def validate(self, request: AdmissionRequest) -> None:
        """Raises Invalid (422)."""
        assert request.obj is not None
        if request.old is not None and request.old.get("spec") == request.obj.get("spec"):
            return  # Labels and finalizers may change whatever is stored: that is how a bad one gets deleted.
        key = _key(request.resource, request.obj)
        if _SOUND.get(key):
            return
        if causes := _READERS[request.resource](request.obj):
            raise invalid(request.resource, request.name, list(causes))
        _SOUND.put(key, True)

    def ahead(self, resource: Resource, obj: Object) -> None:
        if resource in _READERS and not _READERS[resource]({"metadata": _ANY, "spec": obj.get("spec")}):
            _SOUND.ahead(_key(resource, obj), True)


def _key(resource: Resource, obj: Object) -> Key | None:
    return Remembered.key(resource, obj.get("spec"))
