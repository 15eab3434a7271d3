"""CONTRACT: who may do what, here: one authorizer, asked for every request and by every question about requests.

:class:`BuiltIn` is all there is to say yet: the administrators' group may do everything, whoever has proven who they are may ask
about themselves, and everybody may ask whether the server is well.
Source: upstream's cluster roles cluster-admin, system:basic-user and system:public-info-viewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from isoplane.http.authorization import Decision
from isoplane.http.request_info import RequestInfo
from isoplane.http.user import ADMIN_GROUP, AUTHENTICATED_GROUP, User

ALL = ("*",)


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on resources of a group, or on paths and what is below them; ``ALL`` is any. As authorization.k8s.io tells them."""

    verbs: tuple[str, ...]
    api_group: str = ""
    resources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def covers(self, info: RequestInfo) -> bool:
        """Whether it allows the request. A resource that is named does not stand for its subresources."""
        if self.verbs is not ALL and info.verb not in self.verbs:
            return False
        if not info.resource:
            return self.paths is ALL or any(info.path == p or info.path.startswith(f"{p}/") for p in self.paths)
        if self.resources is ALL:
            return True
        return info.group == self.api_group and info.resource in self.resources and not info.subresource


class Authorizer(Protocol):
    """Who decides. It belongs to the event loop and answers at once."""

    def authorize(self, user: User, info: RequestInfo) -> Decision: ...

    def rules(self, user: User, namespace: str) -> Sequence[Rule]:
        """What the user may do in a namespace, and beyond resources; as complete as the authorizer can say it."""
        ...


EVERYBODY = ""
RULES: tuple[tuple[str, Rule], ...] = (
    (ADMIN_GROUP, Rule(ALL, "*", ALL, ALL)),
    (AUTHENTICATED_GROUP, Rule(("create",), "authentication.k8s.io", ("selfsubjectreviews",))),
    (
        AUTHENTICATED_GROUP,
        Rule(("create",), "authorization.k8s.io", ("selfsubjectaccessreviews", "selfsubjectrulesreviews")),
    ),
    (EVERYBODY, Rule(("get", "head"), paths=("/healthz", "/livez", "/readyz", "/version"))),
)
"""By the group that each is for."""
_DENIED = Decision(False, f"only members of {ADMIN_GROUP} may: no roles are served yet")
_ALLOWED = {
    group: Decision(True, f"members of {group} may do this" if group else "everybody may do this") for group, _ in RULES
}


class BuiltIn:
    """The rules of every plane; none can be added."""

    def authorize(self, user: User, info: RequestInfo) -> Decision:
        for group, rule in RULES:
            if (not group or group in user.groups) and rule.covers(info):
                return _ALLOWED[group]
        return _DENIED

    def rules(self, user: User, namespace: str) -> Sequence[Rule]:
        return [rule for group, rule in RULES if not group or group in user.groups]
