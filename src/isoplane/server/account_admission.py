"""A workload that names a service account which does not exist is refused, as by upstream's ServiceAccount admission.

``default`` is not looked for: its controller makes it in every namespace, a moment after the namespace, and makes it again
when it is deleted.
"""

from __future__ import annotations

from isoplane.http import apierrors
from isoplane.objects.errors import Forbidden
from isoplane.objects.kinds import NAMESPACES, SERVICEACCOUNTS, Resource
from isoplane.server.admission import AdmissionRequest, Operation, Plugin
from isoplane.workload.registry import adapter_for

_ALWAYS = "default"


class ServiceAccountAdmission(Plugin):
    """Looks at new workloads; the field cannot be changed later."""

    def handles(self, resource: Resource, operation: Operation, subresource: str) -> bool:
        return operation == "CREATE" and not subresource and adapter_for(resource) is not None

    def validate(self, request: AdmissionRequest) -> None:
        """Raises Forbidden."""
        assert request.obj is not None
        spec = request.obj.get("spec") or {}
        name = (
            spec.get("serviceAccountName") or spec.get("serviceAccount") or _ALWAYS
        )  # the second: its deprecated name
        if name == _ALWAYS or request.view.get(SERVICEACCOUNTS, request.namespace, name) is not None:
            return
        if request.view.get(NAMESPACES, "", request.namespace) is None:
            return  # The missing namespace is what has to be told.
        raise Forbidden(
            f'{request.resource.qualified} "{request.name}" is forbidden: error looking up service account '
            f'{request.namespace}/{name}: serviceaccount "{name}" not found',
            details=apierrors.details(request.resource, request.name),
        )
