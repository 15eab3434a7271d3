"""Logs of a container, and of a VM's serial console, streamed from the node."""

from __future__ import annotations

import time
from dataclasses import replace

from isoplane.client.streams import LogOptions, NodeBackend
from isoplane.http import query, streaming
from isoplane.http.request import Request
from isoplane.objects.errors import BadRequest
from isoplane.objects.kinds import VIRTUALMACHINEINSTANCES
from isoplane.objects.metadata import posix
from isoplane.server.launcher import CONTAINERS
from isoplane.server.strategy import Clock
from isoplane.store.record import Record

_TEXT = b"text/plain; charset=utf-8"


def read_options(asked: query.Query, now: float) -> LogOptions:
    """metav1 PodLogOptions from the query. Raises BadRequest."""
    since: float | None = query.number(asked, "sinceSeconds")
    if asked.get("sinceTime"):
        try:
            moment = posix(asked["sinceTime"])
        except ValueError as error:
            raise BadRequest(f"sinceTime: {asked['sinceTime']!r} is not an RFC 3339 time") from error
        since = max(now - (moment or now), 0.0)
    return LogOptions(
        container=asked.get("container", ""),
        follow=query.boolean(asked, "follow"),
        tail_lines=query.number(asked, "tailLines"),
        since_seconds=since,
        previous=query.boolean(asked, "previous"),
        timestamps=query.boolean(asked, "timestamps"),
        limit_bytes=query.number(asked, "limitBytes"),
    )


async def send_log(request: Request, node: NodeBackend, record: Record, clock: Clock | None = None) -> None:
    """Stream the log; an error before the first byte is a Status, a later one breaks the stream off."""
    options = read_options(request.query, (clock or time.time)())
    if record.resource is VIRTUALMACHINEINSTANCES and options.container in CONTAINERS:
        options = replace(options, container="")
    pieces = node.logs(record.resource, record.namespace, record.name, options)
    await streaming.stream(request, pieces, content_type=_TEXT, at_once=options.follow)
