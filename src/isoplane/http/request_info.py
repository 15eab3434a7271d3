"""What a request is about, read once from its method, path and query: for authorization, metrics and dispatch alike.

It is read from the text alone, whether anything is served there or not; so that who may not ask does not learn what there is.
Source: apiserver's pkg/endpoints/request/requestinfo.go.
"""

from __future__ import annotations

from typing import NamedTuple

from isoplane.http import query
from isoplane.objects.errors import ApiError

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OF_NAMESPACES = frozenset(("status", "finalize"))
"""What follows a namespace's name and is the namespace's own subresource, not a resource in it."""
_ONE_OBJECT = "metadata.name="
_TELLING = (b"watch", b"fieldSelector", b"%")
"""Without any of them (or something encoded, which may be one of them), a query says nothing of this, and is not read twice."""


class RequestInfo(NamedTuple):
    """``verb``: get, list, watch, create, update, patch, delete, deletecollection, or '' for a method that means nothing to
    a resource; the method in lower case where ``resource`` is ''.  Then the request is about a ``path`` and nothing else.

    ``namespace`` '': the cluster, or all namespaces. A namespace is in itself. ``name`` '': the collection; a list or watch of
    one object, by its field selector, has that object's name. ``rest``: what the path has behind the subresource.
    """

    verb: str
    path: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    rest: str = ""


def read(method: str, path: str, query_string: bytes = b"") -> RequestInfo:
    """Never raises: what is wrong with the query is for the verb to say, once it is known who asks."""
    parts = path.split("/")  # ``OPTIONS *`` has no path at all
    while not parts[-1] and len(parts) > 2:
        parts.pop()
    count = len(parts)
    if parts[0] or count < 4 or ("//" in path and "" in parts[1:]):
        return RequestInfo(method.lower(), "/".join(parts))
    if parts[1] == "api":
        group, version, at = "", parts[2], 3
    elif parts[1] == "apis" and count > 4:
        group, version, at = parts[2], parts[3], 4
    else:
        return RequestInfo(method.lower(), "/".join(parts))
    namespace = ""
    if parts[at] == "namespaces" and count > at + 1:
        namespace = parts[at + 1]
        if count > at + 2 and parts[at + 2] not in _OF_NAMESPACES:
            at += 2
    resource, *below = parts[at:]
    verb = _VERBS.get(method, "")
    if below:
        name, subresource, rest = below[0], "", ""
        if len(below) > 1:
            subresource, rest = below[1], "/".join(below[2:])
        return RequestInfo(verb, path, group, version, resource, subresource, namespace, name, rest)
    name = ""
    if verb == "get":
        verb, name = _collection(query_string) if query_string else ("list", "")
    elif verb == "delete":
        verb = "deletecollection"
    return RequestInfo(verb, path, group, version, resource, "", namespace, name)


def _collection(query_string: bytes) -> tuple[str, str]:
    """Whether a GET of a collection lists or watches, and the one object that it is about, if it is."""
    if not any(told in query_string for told in _TELLING):
        return "list", ""
    try:
        asked = query.parse(query_string)
    except ApiError:
        return "list", ""
    try:
        verb = "watch" if query.boolean(asked, "watch") else "list"
    except ApiError:
        verb = "list"
    selector = asked.get("fieldSelector", "")
    one = selector.startswith(_ONE_OBJECT) and "," not in selector
    return verb, selector.removeprefix(_ONE_OBJECT).removeprefix("=") if one else ""
