"""What the Kubernetes API has, for ``isoplane.http.app``: resources, reviews, discovery, OpenAPI, the version."""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson

from isoplane.http import reply
from isoplane.http.app import HEALTH, Handle, Service, Upgrade
from isoplane.http.negotiation import Media
from isoplane.http.request import Request
from isoplane.http.request_info import RequestInfo
from isoplane.objects.errors import MethodNotAllowed, NotAcceptable, NotFound
from isoplane.server import reviews
from isoplane.server.authorization import Authorizer
from isoplane.server.endpoints import discovery, openapi_v2
from isoplane.server.endpoints.documents import Documents
from isoplane.server.endpoints.handlers import Handlers
from isoplane.server.endpoints.routes import resource_of

_TOPS = sorted((*HEALTH, "api", "apis", "metrics", "openapi/v3", "version"))


class ApiService(Service):
    """Resources by ``handlers``, documents by ``documents``, questions about the authorization by the ``authorizer`` itself."""

    def __init__(self, handlers: Handlers, documents: Documents, authorizer: Authorizer) -> None:
        self._handlers = handlers
        self._documents = documents
        self._authorizer = authorizer

    def find(self, info: RequestInfo) -> Handle | None:
        if not info.resource:
            return self._document if info.verb in ("get", "head") else None
        resource = resource_of(self._documents.scheme, info)
        if resource is not None:
            return partial(self._handlers.handle, resource)
        review = reviews.find(info)
        return None if review is None else partial(_review, review, self._authorizer)

    def stored(self, info: RequestInfo) -> bytes | None:
        resource = resource_of(self._documents.scheme, info)
        return None if resource is None else self._handlers.stored(resource, info)

    def socket(self, info: RequestInfo) -> Upgrade | None:
        resource = resource_of(self._documents.scheme, info)
        if resource is None or info.subresource != "exec":
            return None
        return partial(self._handlers.exec, resource, info)

    async def _document(self, request: Request) -> None:
        found = self._found(request, request.info.path.split("/")[1:])
        if found is None:
            raise NotFound(f"the server could not find the requested resource: {request.path}")
        content_type, body = found
        await request.answer(200, body, content_type=content_type)

    def _found(self, request: Request, parts: list[str]) -> tuple[bytes, bytes] | None:
        scheme = self._documents.scheme
        match parts:
            case ["api"] | ["apis"]:
                if _aggregated(request):
                    return discovery.AGGREGATED_TYPE.encode(), self._documents.aggregated(core=parts == ["api"])
                return _json((discovery.legacy_core if parts == ["api"] else discovery.legacy_groups)(scheme))
            case ["api", version]:
                return _json(discovery.legacy_resources(scheme, "", version))
            case ["apis", group]:
                return _json(discovery.legacy_group(scheme, group))
            case ["apis", group, version]:
                return _json(discovery.legacy_resources(scheme, group, version))
            case ["openapi", "v2"]:
                if not any(kind in request.all_headers(b"accept") for kind in openapi_v2.ACCEPTED):
                    return None
                return openapi_v2.MEDIA_TYPE, self._documents.openapi_v2()
            case ["openapi", "v3"]:
                return reply.JSON, self._documents.openapi_index()
            case ["openapi", "v3", "api", version]:
                return reply.JSON, self._documents.openapi("", version)
            case ["openapi", "v3", "apis", group, version]:
                return reply.JSON, self._documents.openapi(group, version)
            case ["version"]:
                return reply.JSON, self._documents.version
            case [""]:
                return _json({"paths": [f"/{top}" for top in _TOPS]})
        return None


async def _review(review: reviews.Review, authorizer: Authorizer, request: Request) -> None:
    if request.info.verb != "create":
        raise MethodNotAllowed(f"{review.plural}.{review.group} can only be created")
    made = reviews.answered(review, authorizer, request.user, await request.decoded(request.call()))
    await request.answer(201, orjson.dumps(made))


def _aggregated(request: Request) -> bool:
    """Whether the client reads v2; one that only knows v2beta1 gets the legacy document."""
    try:
        media: Media = request.media()
    except NotAcceptable:
        return False
    return media.shape == "APIGroupDiscoveryList"


def _json(document: Any) -> tuple[bytes, bytes] | None:
    return None if document is None else (reply.JSON, orjson.dumps(document))
