"""CONTRACT: may this user do that? One function answers, for every request and for every question about requests.

A server that decides by itself hands in ``authorize``, which answers at once.  One that has to ask another (by a
SubjectAccessReview) answers at once what it knows, and the rest when it has asked.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from isoplane.http.request_info import RequestInfo
from isoplane.http.user import User
from isoplane.objects.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Decision:
    """``reason``: by which rule, or what would be needed."""

    allowed: bool
    reason: str = ""


Authorize = Callable[[User, RequestInfo], Decision | None]
"""None: not known without asking another."""
AskAnother = Callable[[User, RequestInfo], Awaitable[Decision]]


def forbidden(user: User, info: RequestInfo, reason: str = "") -> Forbidden:
    """The refusal in Kubernetes' words."""
    why = f": {reason}" if reason else ""
    who = f"User {_quoted(user.name)} cannot {info.verb}"
    if not info.resource:
        return Forbidden(f"forbidden: {who} path {_quoted(info.path)}{why}")
    what = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    where = f"in the namespace {_quoted(info.namespace)}" if info.namespace else "at the cluster scope"
    qualified = f"{info.resource}.{info.group}" if info.group else info.resource
    named = f"{qualified} {_quoted(info.name)}" if info.name else qualified
    details = {"name": info.name, "group": info.group, "kind": info.resource}
    return Forbidden(
        f"{named} is forbidden: {who} resource {_quoted(what)} in API group {_quoted(info.group)} {where}{why}",
        details={key: value for key, value in details.items() if value},
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
