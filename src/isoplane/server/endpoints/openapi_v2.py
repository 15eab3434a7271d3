"""The least OpenAPI v2 document that kubectl still asks for: which resources check fields on the server.

kubectl up to 1.28, and newer ones for a ``List``, look here (and only in protobuf) for the ``fieldValidation`` parameter
of PATCH before they trust the server to validate.  Everything else about the kinds is in OpenAPI v3.
Source: the message numbers of gnostic's OpenAPIv2.proto; kubectl's query parameter verifier.
"""

from __future__ import annotations

from collections.abc import Iterator

from isoplane.objects.resource import Resource
from isoplane.objects.scheme import Scheme

MEDIA_TYPE = b"application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""Clients ask with ``@`` in the name, which their own parser refuses in an answer."""
ACCEPTED = (MEDIA_TYPE.decode(), "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
_QUERY = ("dryRun", "fieldManager", "fieldValidation")


def document(scheme: Scheme) -> bytes:
    """The encoded Document."""
    info = _text(1, "isoplane") + _text(2, "v1")
    paths = b"".join(_field(2, _text(1, path) + _field(2, _item(resource))) for path, resource in _paths(scheme))
    return _text(1, "2.0") + _field(2, info) + _field(8, paths)


def _paths(scheme: Scheme) -> Iterator[tuple[str, Resource]]:
    for resource in scheme:
        if "patch" in resource.verbs:
            base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
            scope = "/namespaces/{namespace}" if resource.namespaced else ""
            yield f"{base}{scope}/{resource.plural}/{{name}}", resource


def _item(resource: Resource) -> bytes:
    """A PathItem with nothing but its PATCH operation."""
    gvk = f'{{"group":"{resource.group}","kind":"{resource.kind}","version":"{resource.version}"}}'
    extension = _text(1, "x-kubernetes-group-version-kind") + _field(2, _text(2, gvk))
    operation = _text(5, f"patch{resource.kind}")
    for name in _QUERY:
        query = _text(2, "query") + _text(4, name) + _text(6, "string")
        operation += _field(8, _field(1, _field(2, _field(3, query))))
    return _field(8, operation + _field(13, extension))


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
