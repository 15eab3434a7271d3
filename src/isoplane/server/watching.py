"""Watches: the initial state where it is asked for, then changes in order, bookmarks, and an end.

A step is a Change of the store, or a Bookmark; steps come as they were committed together, so that whoever writes them to a
socket writes seldom, and in groups of its own (``http.streaming``).
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Sequence

from isoplane.http.request_options import ListOptions
from isoplane.http.watch import Bookmark, groups
from isoplane.objects.errors import BadRequest, Expired, Invalid
from isoplane.objects.kinds import Resource
from isoplane.server.listing import read_revision, with_mirrored
from isoplane.server.strategy import Clock
from isoplane.store import Store
from isoplane.store.filters import compile_filter
from isoplane.store.mirror import Mirror
from isoplane.store.transaction import Change

BOOKMARK_SECONDS = 30.0
_SHORTEST, _LONGEST = 1800.0, 3600.0


Step = Change | Bookmark
Direct = Callable[[Sequence[Change]], bool]


def watch_steps(
    store: Store,
    resource: Resource,
    namespace: str | None,
    options: ListOptions,
    monotonic: Clock,
    direct: Direct | None = None,
    mirror: Mirror | None = None,
) -> AsyncGenerator[Sequence[Step], None]:
    """Start a watch; what is wrong with it is raised here and not later: BadRequest, Invalid, Expired.

    ``direct`` is offered live changes before they become steps, and returns whether it took them.
    """
    filter_ = compile_filter(resource, options.label_selector, options.field_selector)
    since = read_revision(options.resource_version)
    initial = _initial(options)
    if since > store.revision:
        raise Expired(f"Too large resource version: {since}, current: {store.revision}; list again")
    first: list[Step] = []
    if initial:
        now = store.revision
        # The present state and the subscription are taken in one go, so nothing falls between them.
        present = with_mirrored(store, mirror, namespace, filter_, store.list(resource, namespace, filter_))
        first = [Change("ADDED", record.revision, record, None) for record in present]
        if options.send_initial_events and options.bookmarks:
            first.append(Bookmark(now, initial=True))
        subscription = store.watch(resource, namespace, filter_, pace=options.pace, mirror=mirror)
    else:
        start = since if options.resource_version else None
        subscription = store.watch(resource, namespace, filter_, since=start, pace=options.pace, mirror=mirror)

    async def steps() -> AsyncGenerator[Sequence[Step], None]:
        lasts = options.timeout_seconds if options.timeout_seconds else random.uniform(_SHORTEST, _LONGEST)
        end = monotonic() + lasts
        told = store.revision
        try:
            if first:
                yield tuple(first)
                first.clear()  # not kept for as long as the watch lasts
            if direct is not None:
                subscription.direct = lambda changes: len(next(groups(changes))) == len(changes) and direct(changes)
            while (left := end - monotonic()) > 0:
                changes = await subscription.next(min(left, BOOKMARK_SECONDS))
                if changes:
                    yield changes
                elif options.bookmarks and store.revision >= told:
                    told = store.revision
                    yield (Bookmark(told),)
        finally:
            subscription.close()

    return steps()


def _initial(options: ListOptions) -> bool:
    """Whether the watch begins with synthetic ADDED events for what exists."""
    if options.send_initial_events is None:
        return options.resource_version in ("", "0")
    if options.resource_version_match != "NotOlderThan":
        raise Invalid(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )
    if options.limit or options.continue_token:
        raise BadRequest("limit and continue are not allowed in a watch")
    return options.send_initial_events
