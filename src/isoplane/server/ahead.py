"""What a large write does before its transaction, beside the event loop, so that others are answered meanwhile.

Transactions are evaluated on the loop, one after the other.  What of a write depends on one object alone needs no transaction:
its fields' set is made and its rules are asked here, and what was found is remembered; a patch is applied to the object as it is,
and the transaction takes the result if that is still the object.  The rules of Pods and machines are asked in the transaction,
where admission completes them first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from isoplane.objects.copying import deep_copy
from isoplane.objects.defaults import apply_defaults
from isoplane.objects.errors import BadRequest
from isoplane.objects.kinds import Resource
from isoplane.objects.metadata import Object
from isoplane.objects.patch.fields import of_new_ahead
from isoplane.objects.schema.validator import is_plain
from isoplane.objects.validation import validate_ahead, without_unknown
from isoplane.server.admission import Chain
from isoplane.store.record import Record

LARGE = 128 * 1024
"""Bytes from which on a thread is worth its switch."""
Patch = Callable[[Object], Any]


async def look_at(chain: Chain, resource: Resource, obj: Object, *, new: bool = False) -> None:
    """Find out what can be known of a large object before its transaction, a ``new`` one or a changed one; it is only read."""
    if _size(obj) > LARGE:
        await asyncio.to_thread(_look, chain, resource, obj, new=new)


async def apply_to(chain: Chain, resource: Resource, stored: Record | None, patch: Any, apply: Patch) -> Patch:
    """How to apply the patch in the transaction: where it is large work, that is done now, for the object as it is now."""
    if stored is None or len(stored.data) + _size(patch) <= LARGE:
        return apply

    def work() -> Any:
        new = apply(without_unknown(resource, stored.object())[0])
        if isinstance(new, dict):
            _look(chain, resource, new)
        return new

    made = [await asyncio.to_thread(work)]
    version = str(stored.revision)

    def take(old: Object) -> Any:
        return made.pop() if made and old["metadata"].get("resourceVersion") == version else apply(old)

    return take


def _look(chain: Chain, resource: Resource, obj: Object, *, new: bool = False) -> None:
    if not is_plain(resource, obj):
        return
    filled = deep_copy(obj)
    apply_defaults(resource, filled)
    if new:
        of_new_ahead(filled, resource.schema.root)
    if resource.rules.of and not resource.carried_out:
        validate_ahead(resource, filled)
        chain.ahead(resource, filled)


def _size(value: Any) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError as error:
        raise BadRequest(f"the body cannot be written as JSON: {error}") from error
