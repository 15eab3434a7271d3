"""Query strings, read once per request and checked where they mean something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from isoplane.http.request_options import FIELD_VALIDATION, ListOptions
from isoplane.objects.errors import BadRequest

Query = Mapping[str, str]
EMPTY: Query = {}
_PACE_SECONDS = 0.004
"""Bursts reach remote watchers in pieces of at least this length; a lone change is not held back."""


def parse(raw: bytes) -> Query:
    """The first value of each parameter, as Kubernetes takes it."""
    if not raw:
        return EMPTY
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(raw.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=200)
    except ValueError as error:
        raise BadRequest(f"the query string cannot be read: {error}") from error
    for key, value in pairs:
        found.setdefault(key, value)
    return found


def repeated(raw: bytes, name: str) -> list[str]:
    """All values of a parameter that may be given several times."""
    pairs = parse_qsl(raw.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=1000)
    return [value for key, value in pairs if key == name]


def boolean(query: Query, name: str) -> bool:
    text = query.get(name)
    if text is None or text in ("0", "f", "F", "false", "False", "FALSE"):
        return False
    if text in ("", "1", "t", "T", "true", "True", "TRUE"):
        return True
    raise BadRequest(f"{name}: {text!r} is not a boolean")


def number(query: Query, name: str) -> int | None:
    text = query.get(name)
    if text is None or text == "":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadRequest(f"{name}: {text!r} is not a non-negative integer")
    return int(text)


def list_options(query: Query) -> ListOptions:
    if not query:
        return ListOptions()
    return ListOptions(
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        limit=number(query, "limit") or 0,
        continue_token=query.get("continue", ""),
        resource_version=query.get("resourceVersion", ""),
        resource_version_match=query.get("resourceVersionMatch", ""),
        timeout_seconds=number(query, "timeoutSeconds"),
        bookmarks=boolean(query, "allowWatchBookmarks"),
        send_initial_events=boolean(query, "sendInitialEvents") if "sendInitialEvents" in query else None,
        pace=_PACE_SECONDS,
    )


def dry_run(query: Query) -> bool:
    text = query.get("dryRun")
    if text in (None, ""):
        return False
    if text == "All":
        return True
    raise BadRequest(f"dryRun: {text!r} is not supported; the only value is All")


def field_validation(query: Query) -> str:
    text = query.get("fieldValidation") or "Warn"
    if text not in FIELD_VALIDATION:
        raise BadRequest(f"fieldValidation: {text!r} is not one of {', '.join(FIELD_VALIDATION)}")
    return text


def field_manager(query: Query) -> str:
    """Who owns what the call writes. Raises BadRequest for a name that Kubernetes does not take either."""
    name = query.get("fieldManager", "")
    if len(name) > 128 or not name.isprintable():
        raise BadRequest("fieldManager: may not be longer than 128 printable characters")
    return name


def delete_options(query: Query, body: Mapping[str, Any]) -> dict[str, Any]:
    """The DeleteOptions body, with what only the query says added."""
    merged = dict(body)
    grace = number(query, "gracePeriodSeconds")
    if grace is not None:
        merged.setdefault("gracePeriodSeconds", grace)
    if query.get("propagationPolicy"):
        merged.setdefault("propagationPolicy", query["propagationPolicy"])
    if "orphanDependents" in query:
        merged.setdefault("orphanDependents", boolean(query, "orphanDependents"))
    return merged
