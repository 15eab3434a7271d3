"""The controllers that every plane runs, in the order in which they start. Quota's own are not among them."""

from __future__ import annotations

from isoplane.client.api import Api
from isoplane.client.controller import Controller
from isoplane.client.informer import Informers
from isoplane.controllers.eventexpiry import EventExpiry
from isoplane.controllers.events import Events
from isoplane.controllers.garbagecollector import GarbageCollector
from isoplane.controllers.namespace import NamespaceController
from isoplane.controllers.nodelifecycle import NodeLifecycleController
from isoplane.controllers.scheduler import Scheduler
from isoplane.controllers.serviceaccount import ServiceAccountController
from isoplane.controllers.virtualmachine import VirtualMachineController
from isoplane.objects.scheme import Scheme


def standard_controllers(
    api: Api, informers: Informers, events: Events, scheme: Scheme, *, ca: str = ""
) -> list[Controller]:
    """Make them; a :class:`~isoplane.client.controller.Manager` starts them.

    ``scheme``: what is served; ``ca``: the API server's CA, PEM.
    """
    return [
        Scheduler(api, informers, events),
        VirtualMachineController(api, informers, events),
        NamespaceController(api, informers, scheme),
        ServiceAccountController(api, informers, ca=ca),
        NodeLifecycleController(api, informers, events),
        GarbageCollector(api, informers, scheme),
        EventExpiry(api),
    ]
