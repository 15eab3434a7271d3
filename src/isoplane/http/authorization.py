"""CONTRACT: may this user do that? One function answers, for every request and for every question about requests.

A server that decides by itself hands in ``authorize``, which answers at once.  One that has to ask another (by a
SubjectAccessReview) answers at once what it knows, and the rest when it has asked.
"""

from __future__ import annotations

import json
import time
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


REMEMBERED_SECONDS = 10.0
"""As long as upstream's delegated authorization; a right that was taken away may work on for so long."""
REMEMBERED = 1000
"""Decisions, of requests whose path is no longer than ``REMEMBERED_PATH``."""
REMEMBERED_PATH = 1024


class Remembered:
    """What another has decided, kept for a moment: who asks often costs no question each time."""

    def __init__(self, first: Authorize, another: AskAnother, clock: Callable[[], float] = time.monotonic) -> None:
        """``first`` is asked before anything that was kept."""
        self._first = first
        self._another = another
        self._clock = clock
        self._kept: dict[tuple[User, RequestInfo], tuple[float, Decision]] = {}
        """With the time until which each holds, the oldest first."""

    def authorize(self, user: User, info: RequestInfo) -> Decision | None:
        decision = self._first(user, info)
        if decision is not None:
            return decision
        until, kept = self._kept.get((user, info), (0.0, None))
        return kept if self._clock() < until else None

    async def ask(self, user: User, info: RequestInfo) -> Decision:
        decision = await self._another(user, info)
        self._kept.pop((user, info), None)
        if len(info.path) <= REMEMBERED_PATH:
            while len(self._kept) >= REMEMBERED:
                del self._kept[next(iter(self._kept))]
            self._kept[user, info] = (self._clock() + REMEMBERED_SECONDS, decision)
        return decision


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
