"""OpenAPI v3 documents of the served groups: what ``kubectl apply``, ``explain`` and ``create --validate`` read.

Generated from the served kinds and their schemas, one document a group-version.  kubectl finds a kind by the
``x-kubernetes-group-version-kind`` of schemas and of operations, and learns from a PATCH operation whether the server
validates fields and takes strategic merge patches: built-in kinds do, custom ones do not, as upstream has it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import orjson

from isoplane.objects.decode import APPLY_PATCH, JSON, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from isoplane.objects.errors import NotFound
from isoplane.objects.resource import Resource, Subresource
from isoplane.objects.schema.sources import REF, Definition, definition_name, read_definitions
from isoplane.objects.scheme import Scheme

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."


def index(scheme: Scheme) -> bytes:
    """The document of ``/openapi/v3``: where each group-version's document is. The hash changes with the content."""
    paths = {
        (place := _place(group, version)): {"serverRelativeURL": f"/openapi/v3/{place}?hash={_digest(resources)}"}
        for group, versions in scheme.groups.items()
        for version, resources in versions.items()
    }
    return orjson.dumps({"paths": paths})


def document(scheme: Scheme, group: str, version: str) -> bytes:
    """The document of ``/openapi/v3/api/VERSION`` (group '') or ``/openapi/v3/apis/GROUP/VERSION``. Raises NotFound."""
    resources = scheme.groups.get(group, {}).get(version)
    if not resources:
        raise NotFound(f"the server has no OpenAPI document for {group or 'core'}/{version}")
    pool = read_definitions()
    for resource in resources:
        pool |= resource.definitions
    for resource in resources:
        _add_list(pool, resource)
    paths: dict[str, Any] = {}
    for resource in resources:
        paths.update(_paths(resource))
    return orjson.dumps({
        "openapi": "3.0.0",
        "info": {"title": "isoplane", "version": version},
        "paths": paths,
        "components": {"schemas": _closure(pool, paths)},
    })  # fmt: skip


@cache
def _files() -> str:
    return hashlib.sha256(orjson.dumps(read_definitions(), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _digest(resources: Sequence[Resource]) -> str:
    own = [[repr(resource), resource.definitions] for resource in resources]
    content = orjson.dumps([_files(), own], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:32].upper()


def _place(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _schema_name(resource: Resource) -> str:
    return resource.schema.name


def _add_list(pool: dict[str, Definition], resource: Resource) -> None:
    pool.setdefault(_schema_name(resource) + "List", {
        "description": f"{resource.list_kind} is a list of {resource.kind}.",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": f"{REF}{_META}ListMeta"},
            "items": {"type": "array", "items": {"$ref": REF + _schema_name(resource)}},
        },
        "x-kubernetes-group-version-kind": [_gvk(resource, resource.list_kind)],
    })  # fmt: skip


def _closure(pool: dict[str, Definition], paths: dict[str, Any]) -> dict[str, Definition]:
    """Every definition that the paths reach, in the form that clients' parsers take."""
    result: dict[str, Definition] = {}
    pending = list(_references(paths))
    while pending:
        name = pending.pop()
        if name not in result:
            result[name] = _public(pool[name])
            pending.extend(_references(result[name]))
    return dict(sorted(result.items()))


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(REF)
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _public(schema: Any) -> Any:
    """A schema as published: a reference with siblings goes into allOf, as OpenAPI 3.0 ignores them beside ``$ref``."""
    if isinstance(schema, list):
        return [_public(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: _public(child) for name, child in value.items()}
        elif key == "x-isoplane-number-or-string":
            result["oneOf"] = [{"type": "number"}, {"type": "string"}]
        elif key == "x-isoplane-elsewhere":
            continue
        elif key in ("enum", "required") or not isinstance(value, (dict, list)):
            result[key] = value
        else:
            result[key] = _public(value)
    if "$ref" in result and len(result) > 1:
        result["allOf"] = [{"$ref": result.pop("$ref")}]
    return result


def _paths(resource: Resource) -> dict[str, Any]:
    base = "/" + _place(resource.group, resource.version)
    own = f"{base}/namespaces/{{namespace}}/{resource.plural}" if resource.namespaced else f"{base}/{resource.plural}"
    shared = [_parameter("namespace", "path", "object name and auth scope")] if resource.namespaced else []
    item = [_parameter("name", "path", f"name of the {resource.kind}"), *shared]
    verbs = resource.verbs
    collection = {
        "get": _operation(resource, "list") if "list" in verbs else None,
        "post": _operation(resource, "post") if "create" in verbs else None,
        "delete": _operation(resource, "deletecollection") if "deletecollection" in verbs else None,
    }
    single = {
        "get": _operation(resource, "get") if "get" in verbs else None,
        "put": _operation(resource, "put") if "update" in verbs else None,
        "patch": _operation(resource, "patch") if "patch" in verbs else None,
        "delete": _operation(resource, "delete") if "delete" in verbs else None,
    }
    paths = {own: _path(collection, shared), f"{own}/{{name}}": _path(single, item)}
    if resource.namespaced and "list" in verbs:
        paths[f"{base}/{resource.plural}"] = _path({"get": _operation(resource, "list", scope="ForAllNamespaces")}, [])
    for name, sub in resource.subresources.items():
        paths[f"{own}/{{name}}/{name}"] = _path(_subresource(resource, name, sub), item)
    return paths


def _path(operations: dict[str, Any], parameters: list[Any]) -> dict[str, Any]:
    path = {method: operation for method, operation in operations.items() if operation}
    return {**path, "parameters": parameters} if parameters else path


_METHODS = {"get": "get", "update": "put", "patch": "patch"}


def _subresource(resource: Resource, name: str, sub: Subresource) -> dict[str, Any]:
    if name == "log":
        return {"get": _text_operation(resource, name)}
    if sub.kind == resource.kind:
        methods = [_METHODS[verb] for verb in sub.verbs]
        return {method: _operation(resource, method, scope=name.capitalize()) for method in methods}
    body = _body(resource, sub)
    operation = _operation(resource, "post", scope=name.capitalize())
    reference = {"$ref": REF + definition_name(*body)} if body else {"type": "object"}
    operation["requestBody"] = {"content": {"*/*": {"schema": reference}}}
    operation["x-kubernetes-action"] = "connect" if body is None else "post"
    if body:
        operation["x-kubernetes-group-version-kind"] = {"group": body[0], "version": body[1], "kind": sub.kind}
    return {"post": operation}


def _body(resource: Resource, sub: Subresource) -> tuple[str, str, str] | None:
    """(group, version, kind) of what is written to a subresource; None when it has no schema of its own."""
    group, version = (resource.group, resource.version) if sub.group is None else (sub.group, sub.version)
    try:
        definition_name(group, version, sub.kind)
    except LookupError:
        return None
    return (group, version, sub.kind)


def _text_operation(resource: Resource, name: str) -> dict[str, Any]:
    operation = _operation(resource, "get", scope=name.capitalize())
    operation["responses"] = {"200": {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    return operation


def _operation(resource: Resource, action: str, scope: str = "") -> dict[str, Any]:
    returns = _schema_name(resource)
    if action == "list":
        returns += "List"
    elif action in ("delete", "deletecollection"):
        returns = _META + "Status"
    tag = "_".join(part for part in (resource.group.partition(".")[0] or "core", resource.version) if part)
    namespaced = "Namespaced" if resource.namespaced and not scope.startswith("For") else ""
    operation: dict[str, Any] = {
        "tags": [tag],
        "operationId": f"{action}{tag.title().replace('_', '')}{namespaced}{resource.kind}{scope}",
        "parameters": _PARAMETERS[action],
        "responses": {"200": {"description": "OK", "content": {JSON: {"schema": {"$ref": REF + returns}}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(resource, resource.kind),
    }
    if action in ("post", "put"):
        operation["requestBody"] = {"content": {"*/*": {"schema": {"$ref": REF + returns}}}, "required": True}
    elif action == "patch":
        types = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH] if resource.custom else [
            JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH,
        ]  # fmt: skip
        body = {"schema": {"$ref": f"{REF}{_META}Patch"}}
        operation["requestBody"] = {"content": dict.fromkeys(types, body), "required": True}
    elif action in ("delete", "deletecollection"):
        operation["requestBody"] = {"content": {"*/*": {"schema": {"$ref": f"{REF}{_META}DeleteOptions"}}}}
    return operation


def _gvk(resource: Resource, kind: str) -> dict[str, str]:
    return {"group": resource.group, "version": resource.version, "kind": kind}


def _parameter(name: str, place: str, text: str, kind: str = "string") -> dict[str, Any]:
    parameter = {"name": name, "in": place, "description": text, "schema": {"type": kind, "uniqueItems": True}}
    return {**parameter, "required": True} if place == "path" else parameter


_DRY_RUN = _parameter("dryRun", "query", "All: decide and answer as for a real request, and store nothing.")
_MANAGER = _parameter("fieldManager", "query", "The name of the actor that makes this change.")
_VALIDATION = _parameter(
    "fieldValidation", "query", "Ignore, Warn or Strict: what unknown and repeated fields lead to. Default Warn."
)
_FORCE = _parameter("force", "query", "Take over fields that other managers own (apply only).", "boolean")
_WRITE = [_DRY_RUN, _MANAGER, _VALIDATION]
_DELETE = [
    _DRY_RUN,
    _parameter("gracePeriodSeconds", "query", "Seconds before the object is deleted; 0 at once.", "integer"),
    _parameter("propagationPolicy", "query", "Orphan, Background or Foreground: what happens to dependents."),
]
_LIST = [
    _parameter("labelSelector", "query", "Restricts the answer by labels."),
    _parameter("fieldSelector", "query", "Restricts the answer by fields."),
    _parameter("limit", "query", "The most objects of one answer.", "integer"),
    _parameter("continue", "query", "The token of the next part, from the answer before."),
    _parameter("resourceVersion", "query", "The state that is asked for."),
    _parameter("resourceVersionMatch", "query", "NotOlderThan or Exact."),
    _parameter("watch", "query", "Go on with the changes that follow.", "boolean"),
    _parameter("allowWatchBookmarks", "query", "Send bookmarks in a watch.", "boolean"),
    _parameter("timeoutSeconds", "query", "How long the call may take.", "integer"),
]
_PARAMETERS: dict[str, list[dict[str, Any]]] = {
    "get": [], "list": _LIST, "post": _WRITE, "put": _WRITE, "patch": [*_WRITE, _FORCE], "delete": _DELETE,
    "deletecollection": [*_DELETE, *_LIST[:4]],
}  # fmt: skip
