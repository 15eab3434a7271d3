"""Admission of NetworkPolicy and ClusterNetworkPolicy: what is stored can be enforced.

The schema's rules (``objects.rules.network``) come first and speak for every Kubernetes; here the reader that the engines
use has the last word, so that nothing is accepted that they would have to leave out (``domainNames``, say).  A policy that
nobody can read would hold up every later change of the rules of the whole node.
"""

from __future__ import annotations

from isoplane.objects.kinds import CLUSTERNETWORKPOLICIES, NETWORKPOLICIES, Resource
from isoplane.objects.validation import invalid
from isoplane.policy import clusterpolicy, parse
from isoplane.server.admission import AdmissionRequest, Operation, Plugin

_READERS = {NETWORKPOLICIES: parse.problems_of, CLUSTERNETWORKPOLICIES: clusterpolicy.problems_of}


class PolicyAdmission(Plugin):
    """Refuses a policy that cannot be enforced as written, with one cause for each wrong field."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        return resource in _READERS and operation in ("CREATE", "UPDATE") and not subresource

    def validate(self, request: AdmissionRequest) -> None:
        """Raises Invalid (422)."""
        assert request.obj is not None
        if request.old is not None and request.old.get("spec") == request.obj.get("spec"):
            return  # Labels and finalizers may change whatever is stored: that is how a bad one gets deleted.
        causes = _READERS[request.resource](request.obj)
        if causes:
            raise invalid(request.resource, request.name, list(causes))
