"""Fan-out: from one committed change to every watch that it concerns, without asking each of them.

Watches are grouped by resource, scope and filter; filters with an equality term are found through an index on that
field, so a thousand watches on a thousand names cost one look-up per change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator

from isoplane.objects.errors import ApiError, Expired
from isoplane.objects.kinds import Resource
from isoplane.store.fields import ResourceKey, resource_key
from isoplane.store.filters import Filter, field_value
from isoplane.store.mirror import Mirror
from isoplane.store.record import Record, encode
from isoplane.store.transaction import Change

_log = logging.getLogger(__name__)
BACKLOG = 20_000
"""Changes a watcher may lag behind before it is ended with 410 and has to list again."""
BACKLOG_BYTES = 32 * 1024 * 1024
"""And what those changes may hold together: a watcher that does not read must not keep every state of every object."""


class Subscription:
    """One watch. Changes arrive in revision order; ``next`` takes everything there is.

    ``pace`` (seconds): a change alone is handed out at once, but changes that follow each other closer than this are
    handed out together, so that a burst costs a remote watcher few writes.
    ``direct``, when set, is offered the changes first, while somebody waits in ``next``; it returns whether it took
    them.  That spares a thousand watches of one change a thousand tasks.
    """

    __slots__ = ("_bytes", "_error", "_hub", "_loop", "_pace", "_queue", "_taken", "_waiter", "direct", "groups")

    def __init__(self, hub: Hub, groups: tuple[Group, ...], backlog: list[Change], pace: float) -> None:
        self._pace = pace
        self._taken = 0.0
        self.direct: Callable[[list[Change]], bool] | None = None
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._queue = backlog
        self._bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: ApiError | None = None
        self.groups = groups

    def offer(self, change: Change) -> None:
        self._queue.append(change)
        self._bytes += len(change.record.data)
        if len(self._queue) > BACKLOG or self._bytes > BACKLOG_BYTES:
            self.fail(Expired("the watch fell too far behind; list again"))

    def fail(self, error: ApiError) -> None:
        """End the watch: ``next`` raises ``error`` from now on."""
        self._error = error
        self._queue.clear()
        self.close()
        self.wake()

    def wake(self) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if self._pace:
            early = self._taken + self._pace - self._loop.time()
            if early > 0 and self._error is None:
                self._loop.call_later(early, self._wake_now)
                return
        self._wake_now()

    def _time_out(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _wake_now(self) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if self.direct is not None and self._queue and self._error is None and self._take_directly(self.direct):
            return
        self._waiter.set_result(None)

    def _take_directly(self, direct: Callable[[list[Change]], bool]) -> bool:
        try:
            taken = direct(self._queue)
        except Exception:
            # One watcher's trouble is not the others'; its own task meets the same error and ends with it.
            _log.exception("a watcher failed to take its changes directly")
            self.direct = None
            return False
        if taken:
            self._queue = []
            self._bytes = 0
            self._taken = self._loop.time()
        return taken

    async def next(self, timeout: float) -> list[Change]:
        """All changes since the last call; waits up to ``timeout`` seconds for one, then returns []."""
        if not self._queue and self._error is None and timeout > 0:
            self._waiter = waiter = self._loop.create_future()
            timer = self._loop.call_later(timeout, self._time_out)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self._error is not None:
            raise self._error
        taken, self._queue = self._queue, []
        self._bytes = 0
        if self._pace:
            self._taken = self._loop.time()
        return taken

    def close(self) -> None:
        self._hub.remove(self)


class Group:
    """The watches with one scope and one filter."""

    __slots__ = ("filter", "key", "members", "namespace")

    def __init__(self, key: ResourceKey, namespace: str | None, filter_: Filter) -> None:
        self.key = key
        self.namespace = namespace
        self.filter = filter_
        self.members: set[Subscription] = set()


def seen_through(change: Change, filter_: Filter) -> Change | None:
    """The change as a watcher with this filter sees it: crossing the filter's edge is an ADDED or a DELETED."""
    if filter_.everything:
        return change
    before = change.previous is not None and filter_.matches(change.previous)
    if change.type == "DELETED":
        return change if before else None
    after = filter_.matches(change.record)
    if after:
        kind = "MODIFIED" if before else "ADDED"
        return change if kind == change.type else Change(kind, change.revision, change.record, change.previous)
    if not before or change.previous is None:
        return None
    last = encode(change.record.resource, change.previous.object(), change.revision)
    return Change("DELETED", change.revision, last, change.previous)


class Hub:
    """All watches. Only the loop touches it."""

    def __init__(self) -> None:
        self._groups: dict[ResourceKey, dict[tuple[str | None, Filter], Group]] = {}
        self._scanned: dict[ResourceKey, list[Group]] = {}
        self._indexed: dict[ResourceKey, dict[int, dict[str, list[Group]]]] = {}
        self._mirrors: dict[ResourceKey, Mirror] = {}
        self.watches = 0

    def subscribe(
        self,
        resource: Resource,
        namespace: str | None,
        filter_: Filter,
        backlog: list[Change],
        pace: float,
        mirror: Mirror | None = None,
    ) -> Subscription:
        groups = [self._group(resource_key(resource), namespace, filter_)]
        if mirror is not None:
            self._mirrors[resource_key(mirror.source)] = mirror
            groups.append(self._group(mirror.key, namespace, filter_))
        subscription = Subscription(self, tuple(groups), backlog, pace)
        for group in groups:
            group.members.add(subscription)
        self.watches += 1
        return subscription

    def _group(self, key: ResourceKey, namespace: str | None, filter_: Filter) -> Group:
        groups = self._groups.setdefault(key, {})
        group = groups.get((namespace, filter_))
        if group is None:
            group = groups[(namespace, filter_)] = Group(key, namespace, filter_)
            self._shelf(group).append(group)
        return group

    def _shelf(self, group: Group) -> list[Group]:
        handle = group.filter.handle
        if handle is None:
            return self._scanned.setdefault(group.key, [])
        place, value = handle
        return self._indexed.setdefault(group.key, {}).setdefault(place, {}).setdefault(value, [])

    def remove(self, subscription: Subscription) -> None:
        if subscription not in subscription.groups[0].members:
            return
        self.watches -= 1
        for group in subscription.groups:
            group.members.discard(subscription)
            if not group.members:
                self._drop(group)

    def _drop(self, group: Group) -> None:
        del self._groups[group.key][(group.namespace, group.filter)]
        shelf = self._shelf(group)
        shelf.remove(group)
        handle = group.filter.handle
        if handle is not None and not shelf:
            del self._indexed[group.key][handle[0]][handle[1]]

    def publish(self, changes: Iterable[Change]) -> None:
        """Hand committed changes, in order, to whom they concern; wakes each watcher once."""
        woken: set[Subscription] = set()
        for change in changes:
            key = resource_key(change.record.resource)
            self._offer(key, change, woken)
            mirror = self._mirrors.get(key)
            if mirror is not None and self._groups.get(mirror.key):
                shown = mirror.change(change)
                if shown is not None:
                    self._offer(mirror.key, shown, woken)
        for member in woken:
            member.wake()

    def _offer(self, key: ResourceKey, change: Change, woken: set[Subscription]) -> None:
        for group in self._concerned(key, change):
            seen = seen_through(change, group.filter)
            if seen is None:
                continue
            for member in tuple(group.members) if len(group.members) else ():
                member.offer(seen)
            woken |= group.members

    def _concerned(self, key: ResourceKey, change: Change) -> Iterator[Group]:
        record = change.record
        namespace = record.namespace
        for group in tuple(self._scanned.get(key, ())):
            if group.namespace is None or group.namespace == namespace:
                yield group
        for place, by_value in self._indexed.get(key, {}).items():
            for value in self._values(place, record, change.previous):
                for group in tuple(by_value.get(value, ())):
                    if group.namespace is None or group.namespace == namespace:
                        yield group

    @staticmethod
    def _values(place: int, record: Record, previous: Record | None) -> tuple[str, ...]:
        now = field_value(record, place)
        if previous is None:
            return (now,)
        before = field_value(previous, place)
        return (now,) if before == now else (now, before)

    def end(self, key: ResourceKey, error: ApiError) -> None:
        """End the watches of one resource, which is served no longer."""
        for group in list(self._groups.get(key, {}).values()):
            for member in list(group.members):
                member.fail(error)

    def end_all(self, error: ApiError) -> None:
        """End every watch, for shutdown."""
        for groups in list(self._groups.values()):
            for group in list(groups.values()):
                for member in list(group.members):
                    member.fail(error)
