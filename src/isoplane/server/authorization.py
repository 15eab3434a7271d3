"""Who may do what, here: one function, asked for every request and by every question about requests.

That is all there is to say yet: the administrators' group may do everything, whoever has proven who they are may ask about
themselves, and everybody may ask whether the server is well.
Source: upstream's cluster roles cluster-admin, system:basic-user and system:public-info-viewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from isoplane.http.authorization import Decision
from isoplane.http.request_info import RequestInfo
from isoplane.http.user import ADMIN_GROUP, AUTHENTICATED_GROUP, User

ALL = ("*",)


@dataclass(frozen=True, slots=True)
class Rule:
    """What is allowed to the members of ``group`` ('': everybody): resources, or paths and what is below them; * is any."""

    group: str
    verbs: tuple[str, ...]
    api_group: str = ""
    resources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def covers(self, info: RequestInfo) -> bool:
        """``info`` is neither a subresource nor one object, or the rule is for any."""
        if self.verbs is not ALL and info.verb not in self.verbs:
            return False
        if not info.resource:
            return self.paths is ALL or any(info.path == p or info.path.startswith(f"{p}/") for p in self.paths)
        if self.resources is ALL:
            return True
        return info.group == self.api_group and info.resource in self.resources and not info.subresource


RULES = (
    Rule(ADMIN_GROUP, ALL, "*", ALL, ALL),
    Rule(AUTHENTICATED_GROUP, ("create",), "authentication.k8s.io", ("selfsubjectreviews",)),
    Rule(
        AUTHENTICATED_GROUP,
        ("create",),
        "authorization.k8s.io",
        ("selfsubjectaccessreviews", "selfsubjectrulesreviews"),
    ),
    Rule("", ("get", "head"), paths=("/healthz", "/livez", "/readyz", "/version")),
)
_DENIED = Decision(False, f"only members of {ADMIN_GROUP} may: no roles are served yet")


def rules_of(user: User) -> Iterator[Rule]:
    """The rules that are for this user."""
    return (rule for rule in RULES if not rule.group or rule.group in user.groups)


def authorize(user: User, info: RequestInfo) -> Decision:
    """Whether ``user`` may do what ``info`` says, and by which rule."""
    for rule in RULES:
        if (not rule.group or rule.group in user.groups) and rule.covers(info):
            return _ALLOWED[rule.group]
    return _DENIED


_ALLOWED = {
    rule.group: Decision(True, f"members of {rule.group} may do this" if rule.group else "everybody may do this")
    for rule in RULES
}
