"""The reviews: questions that are created and answered, never stored: who am I, may I do this, what may I do.

``kubectl auth can-i``, ``auth whoami`` and clients that look before they act create one of these three kinds and read
its status.  The answers are the authorization's own, for the very requests that are asked about.  Reading the body and answering
over HTTP is the transport's.
Source: the types of k8s.io/api authorization/v1 and authentication/v1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from isoplane.http.request_info import RequestInfo
from isoplane.http.user import User
from isoplane.objects.errors import BadRequest, Cause, Invalid
from isoplane.objects.metadata import Object, rfc3339
from isoplane.server.authorization import Authorizer

_ATTRIBUTES = {
    "resourceAttributes": (
        "namespace", "verb", "group", "version", "resource", "subresource", "name", "fieldSelector", "labelSelector",
    ),
    "nonResourceAttributes": ("path", "verb"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Review:
    """One kind of question. ``answer`` makes the status from who decides, who asks and the body's spec."""

    group: str
    version: str
    plural: str
    kind: str
    answer: Callable[[Authorizer, User, dict[str, Any]], dict[str, Any]]

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"


def answered(review: Review, authorizer: Authorizer, user: User, obj: Object, now: float | None = None) -> Object:
    """The review with its status, as it is sent back. ``now``: POSIX seconds. Raises BadRequest or Invalid."""
    kind, api_version = obj.get("kind"), obj.get("apiVersion")
    if (kind or review.kind) != review.kind or (api_version or review.api_version) != review.api_version:
        raise BadRequest(f'{kind} in version "{api_version}" cannot be handled as a {review.kind}')
    spec = obj.get("spec")
    if spec is None:
        spec = {}
    if not isinstance(spec, dict):
        raise BadRequest(f"spec must be an object, not {type(spec).__name__}")
    meta: dict[str, Any] = {"creationTimestamp": rfc3339(int(time.time() if now is None else now))}
    found: Object = {"kind": review.kind, "apiVersion": review.api_version, "metadata": meta}
    if review.kind != "SelfSubjectReview":
        found["spec"] = spec
        meta["creationTimestamp"] = None
    found["status"] = review.answer(authorizer, user, spec)
    return found


def _allowed(authorizer: Authorizer, user: User, spec: dict[str, Any]) -> dict[str, Any]:
    given = [name for name in _ATTRIBUTES if spec.get(name) is not None]
    if len(given) != 1:
        message = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise Invalid(
            f'SelfSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: {message}',
            causes=[Cause("spec.resourceAttributes", f"Invalid value: {message}", "FieldValueInvalid")],
        )
    attributes = spec[given[0]]
    if not isinstance(attributes, dict):
        raise BadRequest(f"spec.{given[0]} must be an object, not {type(attributes).__name__}")
    unknown = sorted(set(attributes) - set(_ATTRIBUTES[given[0]]))
    if unknown:
        raise BadRequest(f'strict decoding error: unknown field "spec.{given[0]}.{unknown[0]}"')
    decision = authorizer.authorize(user, _request(attributes, f"spec.{given[0]}"))
    return {"allowed": decision.allowed, "reason": decision.reason}


def _request(attributes: dict[str, Any], path: str) -> RequestInfo:
    """The request that is asked about. Raises BadRequest."""
    asked = {key: value for key, value in attributes.items() if key in RequestInfo._fields}
    for key, value in asked.items():
        if not isinstance(value, str):
            raise BadRequest(f"{path}.{key} must be a string, not {type(value).__name__}")
    return RequestInfo(**{"verb": "", "path": "", **asked})


def _rules(authorizer: Authorizer, user: User, spec: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(spec.get("namespace"), str) or not spec["namespace"]:
        raise BadRequest("no namespace on request: set spec.namespace")
    rules = authorizer.rules(user, spec["namespace"])
    resources: list[dict[str, Any]] = [
        {"verbs": list(rule.verbs), "apiGroups": [rule.api_group], "resources": list(rule.resources)}
        for rule in rules
        if rule.resources
    ]
    others: list[dict[str, Any]] = [
        {"verbs": list(rule.verbs), "nonResourceURLs": list(rule.paths)} for rule in rules if rule.paths
    ]
    return {"resourceRules": resources, "nonResourceRules": others, "incomplete": False}


def _whoami(authorizer: Authorizer, user: User, spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        found["uid"] = user.uid
    if user.extra:
        found["extra"] = {key: list(values) for key, values in user.extra}
    return {"userInfo": found}


REVIEWS: tuple[Review, ...] = (
    Review("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", _whoami),
    # kubectl 1.27 asks for this version only, and the kind is the same in both.
    Review("authentication.k8s.io", "v1beta1", "selfsubjectreviews", "SelfSubjectReview", _whoami),
    Review("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", _allowed),
    Review("authorization.k8s.io", "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", _rules),
)
GROUPS: dict[str, dict[str, list[Review]]] = {}
"""By group and version, the preferred version first."""
for _review in REVIEWS:
    GROUPS.setdefault(_review.group, {}).setdefault(_review.version, []).append(_review)


def find(info: RequestInfo) -> Review | None:
    """The review that a request is for; None when there is none."""
    if info.name or info.namespace:
        return None
    return next((review for review in in_version(info.group, info.version) if review.plural == info.resource), None)


def in_version(group: str, version: str) -> Sequence[Review]:
    """The reviews of a group-version."""
    return GROUPS.get(group, {}).get(version, ())
