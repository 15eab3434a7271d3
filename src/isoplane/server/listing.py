"""Lists: selection, paging over one consistent revision, and what resourceVersion asks for."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence

import orjson

from isoplane.http.items import Listing
from isoplane.http.request_options import ListOptions
from isoplane.objects.errors import ApiError, BadRequest, Cause, Expired, Invalid
from isoplane.objects.kinds import Resource
from isoplane.store import Store
from isoplane.store.filters import Filter, compile_filter
from isoplane.store.mirror import Mirror
from isoplane.store.record import Record


class FutureRevision(ApiError):
    """The client has seen a newer revision than this server: it must wait or start over."""

    code, reason = 504, "Timeout"


def read_revision(text: str) -> int:
    """A resourceVersion as a number; '' is 0. Raises BadRequest."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid(f"resourceVersion: Invalid value: {text!r}: must be an unsigned integer")
    return int(text)


def list_records(
    store: Store, resource: Resource, namespace: str | None, options: ListOptions, mirror: Mirror | None = None
) -> Listing[Record]:
    """A page, with what ``mirror`` shows among the resource's objects.

    Raises BadRequest (selectors, token), Expired (page or exact revision compacted), FutureRevision.
    """
    filter_ = compile_filter(resource, options.label_selector, options.field_selector)
    if options.continue_token:
        if options.resource_version and options.resource_version != "0":
            raise BadRequest("specifying resource version is not allowed when using continue")
        revision, after = _read_token(options.continue_token)
        if revision > store.revision:
            # Of another server, or of this one before a restore: nothing here can be listed as of then.
            raise Expired(f"the token is of revision {revision}, and this server is at {store.revision}")
        return _page(store, resource, namespace, filter_, options.limit, revision, after, mirror)
    wanted = read_revision(options.resource_version)
    match = options.resource_version_match
    if match and match not in ("Exact", "NotOlderThan"):
        raise Invalid(f'resourceVersionMatch: Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"')
    if match and not options.resource_version:
        raise Invalid(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is set"
        )
    if wanted > store.revision:
        raise FutureRevision(
            f"Too large resource version: {wanted}, current: {store.revision}",
            causes=[Cause("", "Too large resource version", "ResourceVersionTooLarge")],
            details={"retryAfterSeconds": 1},
        )
    if match == "Exact":
        if wanted == 0:
            raise Invalid('resourceVersionMatch: Forbidden: resourceVersionMatch "Exact" is forbidden for "0"')
        return _page(store, resource, namespace, filter_, options.limit, wanted, None, mirror)
    return _page(store, resource, namespace, filter_, options.limit, store.revision, None, mirror)


def _page(
    store: Store,
    resource: Resource,
    namespace: str | None,
    filter_: Filter,
    limit: int,
    revision: int,
    after: tuple[str, str] | None,
    mirror: Mirror | None,
) -> Listing[Record]:
    found: Sequence[Record] | None = None
    if after is None and revision == store.revision:
        found = _by_handle(store, resource, namespace, filter_)
    if found is None:
        found = store.list(resource, namespace, filter_, after=after, revision=revision)
    found = with_mirrored(store, mirror, namespace, filter_, found, after, revision)
    if limit <= 0 or len(found) <= limit:
        return Listing(found, revision)
    page = found[:limit]
    last = page[-1]
    remaining = len(found) - limit if filter_.everything else None
    return Listing(page, revision, _token(revision, (last.namespace, last.name)), remaining)


def _by_handle(store: Store, resource: Resource, namespace: str | None, filter_: Filter) -> Sequence[Record] | None:
    """The answer through an index, when the filter names one object or an indexed field; None: scan."""
    name = filter_.only_name
    if name is not None and (namespace is not None or not resource.namespaced):
        record = store.state.get(resource, namespace or "", name)
        return [record] if record is not None and filter_.matches(record) else []
    handle = filter_.handle
    if handle is None or handle[0] < 0:
        return None
    field = resource.selectable[handle[0]]
    if not field.indexed:
        return None
    records = [
        record
        for record in store.state.by_field(resource, field.path, handle[1])
        if (namespace is None or record.namespace == namespace) and filter_.matches(record)
    ]
    records.sort(key=lambda record: (record.namespace, record.name))
    return records


def with_mirrored(
    store: Store,
    mirror: Mirror | None,
    namespace: str | None,
    filter_: Filter,
    found: Sequence[Record],
    after: tuple[str, str] | None = None,
    revision: int | None = None,
) -> Sequence[Record]:
    """What was found, and what ``mirror`` shows beside it, in (namespace, name) order; what is stored has its name first."""
    if mirror is None:
        return found
    shown = {
        (made.namespace, made.name): made
        for source in _sources(store, mirror, namespace, filter_, revision)
        if (made := mirror.make(source)) is not None and filter_.matches(made)
    }
    if after is not None:
        shown = {key: made for key, made in shown.items() if key > after}
    if not shown:
        return found
    shown.update(((record.namespace, record.name), record) for record in found)
    return [shown[key] for key in sorted(shown)]


def _sources(
    store: Store, mirror: Mirror, namespace: str | None, filter_: Filter, revision: int | None
) -> Iterable[Record]:
    """What the shown objects that can match are made of: through an index where the filter allows it."""
    if revision is None or revision == store.revision:
        name = filter_.only_name
        if name is not None and namespace is not None:
            source = store.state.get(mirror.source, namespace, mirror.source_name(name))
            return () if source is None else (source,)
        handle = filter_.handle
        if handle is not None and handle[0] >= 0:
            path = mirror.indexed.get(mirror.resource.selectable[handle[0]].path)
            if path is not None:
                spaces = store.state.by_field(mirror.source, path, handle[1])
                return [source for source in spaces if namespace is None or source.namespace == namespace]
    return store.list(mirror.source, namespace, revision=revision)


def _token(revision: int, after: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([revision, *after])).rstrip(b"=").decode()


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        raw = orjson.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        revision, namespace, name = raw
        if not (type(revision) is int and revision > 0 and isinstance(namespace, str) and isinstance(name, str)):
            raise ValueError("not a token")
    except (ValueError, TypeError, binascii.Error) as error:
        raise BadRequest("continue key is not valid") from error
    return revision, (namespace, name)


def expired_page(error: Expired) -> Expired:
    """A compacted page, worded as clients expect it."""
    return Expired(
        "The provided continue parameter is too old to display a consistent list result. You must start a new list "
        f"without the continue parameter. ({error.message})"
    )
