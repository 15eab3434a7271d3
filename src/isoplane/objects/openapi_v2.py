"""The OpenAPI v2 document in its protobuf form, for clients older than OpenAPI v3 (kubectl up to 1.28, Helm).

They ask for it before ``create`` and ``apply`` and give up without it, yet read only one thing: whether PATCH of a kind
takes ``fieldValidation`` and ``dryRun``, so that the server validates.  For merging they fall back on the types built
into them.  So the document has the PATCH operations and no definitions; the whole description is in ``objects.openapi``.
Field numbers are those of gnostic's OpenAPIv2.proto.
"""

from __future__ import annotations

from functools import cache

from isoplane.objects.kinds import SERVED, Resource

ACCEPTED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
"""What clients ask for."""
MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""What the answer is called: a media type cannot hold an @, and Go's parser refuses one that does."""


@cache
def document_v2() -> bytes:
    """The body of ``/openapi/v2`` for a request that accepts :data:`ACCEPTED`, sent as :data:`MEDIA_TYPE`."""
    info = _text(1, "isoplane") + _text(2, "v1")
    paths = b"".join(
        _field(2, _text(1, _place(r)) + _field(2, _field(8, _patch(r)))) for r in SERVED if "patch" in r.verbs
    )
    return _text(1, "2.0") + _field(2, info) + _field(8, paths)


def _place(resource: Resource) -> str:
    group = f"/apis/{resource.group}" if resource.group else "/api"
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    return f"{group}/{resource.version}{scope}/{resource.plural}/{{name}}"


def _patch(resource: Resource) -> bytes:
    kind = f'group: "{resource.group}"\nkind: "{resource.kind}"\nversion: "{resource.version}"\n'
    parameters = b"".join(
        # ParametersItem.parameter.non_body_parameter.query_parameter_sub_schema
        _field(8, _field(1, _field(2, _field(3, _text(2, "query") + _text(4, name) + _text(6, "string")))))
        for name in ("dryRun", "fieldManager", "fieldValidation")
    )
    extensions = _extension("x-kubernetes-action", "patch\n") + _extension("x-kubernetes-group-version-kind", kind)
    return parameters + extensions


def _extension(name: str, yaml: str) -> bytes:
    return _field(13, _text(1, name) + _field(2, _text(2, yaml)))


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode())


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
