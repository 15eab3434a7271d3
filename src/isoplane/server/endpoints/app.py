"""The ASGI application: who asks, what for, and every failure as a Status object."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from isoplane.http import reply
from isoplane.http.body import Disconnected, Receive
from isoplane.http.negotiation import PLAIN, Media, accepted
from isoplane.http.protocol import USER
from isoplane.http.reply import Send
from isoplane.http.request import Request, Scope
from isoplane.http.user import ADMIN_GROUP, User
from isoplane.objects.errors import (
    ApiError,
    Forbidden,
    Internal,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    Unauthorized,
)
from isoplane.objects.exposition import CONTENT_TYPE, Registry
from isoplane.server import reviews
from isoplane.server.endpoints import discovery, openapi_v2
from isoplane.server.endpoints import exec as exec_
from isoplane.server.endpoints.documents import Documents
from isoplane.server.endpoints.handlers import Handlers
from isoplane.server.endpoints.request_metrics import RequestMetrics, What, long_running, what_is_asked
from isoplane.server.endpoints.routes import resolve

_log = logging.getLogger(__name__)
_OPEN = frozenset(("healthz", "readyz", "livez", "version"))
"""What anonymous clients may read."""
_IMPERSONATE = b"impersonate-"


class App:
    """``ready`` answers /readyz: what is not ready yet, or ''. ``metrics`` answers /metrics; the requests are added to it."""

    def __init__(
        self, handlers: Handlers, documents: Documents, ready: Callable[[], str], metrics: Registry | None = None
    ) -> None:
        self._handlers = handlers
        self._documents = documents
        self._ready = ready
        self._metrics = metrics or Registry()
        self._requests = RequestMetrics()
        self._metrics.register(self._requests.collect)
        self._quick: tuple[What, float] = (("", "", "", ""), 0.0)
        """What :meth:`quick` found last, and when it began."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._upgrade(scope, receive, send)
            return
        try:
            await self._route(scope, receive, send)
        except ApiError as error:
            # Whoever is refused with a body still coming does not get to send the rest of it.
            await reply.send_error(send, error, close=error.code in (401, 413))
        except Disconnected:
            return
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            await reply.send_error(send, Internal("an internal error occurred; the server's log has the details"))

    def quick(self, scope: Scope) -> bytes | None:
        """The body of a plain GET of one stored object; None: take the ordinary way. Never raises."""
        if scope["method"] != "GET" or scope["query_string"]:
            return None
        began = time.perf_counter()
        user = scope.get(USER)
        if user is None or ADMIN_GROUP not in user.groups:
            return None
        parts = scope["path"].split("/")
        if len(parts) > 4 and parts[1] == "api":
            route = resolve("", parts[2], parts[3:])
        elif len(parts) > 5 and parts[1] == "apis":
            route = resolve(parts[2], parts[3], parts[4:])
        else:
            return None
        if route is None or not route.name or route.subresource or not _plain(scope):
            return None
        self._quick = (("GET", route.resource.group, route.resource.plural, ""), began)
        return self._handlers.stored(route)

    def quick_sent(self) -> None:
        """What :meth:`quick` returned last was written; called before anything else runs."""
        what, began = self._quick
        self._requests.finished(what, 200, time.perf_counter() - began)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        # ``OPTIONS *`` has no path at all.
        parts = scope["path"].split("/")[1:] or [scope["path"]]
        while len(parts) > 1 and not parts[-1]:
            parts.pop()
        top = parts[0]
        if top in _OPEN:
            await self._public(scope["method"], top, send)
            return
        review = reviews.find(parts[1], parts[2], parts[3]) if top == "apis" and len(parts) == 4 else None
        if review is not None:
            await self._review(scope, receive, send, review)
            return
        request = Request(scope, receive, send, self._admitted(scope, scope["method"]))
        if top == "api" and len(parts) > 2:
            await self._resource(request, "", parts[1], parts[2:])
        elif top == "apis" and len(parts) > 3:
            await self._resource(request, parts[1], parts[2], parts[3:])
        else:
            await self._document(request, parts)

    async def _upgrade(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket: the only thing behind one is exec."""
        try:
            self._admitted(scope, "GET")
            parts = [part for part in scope["path"].split("/") if part]
            route = resolve("", parts[1], parts[2:]) if len(parts) > 3 and parts[0] == "api" else None
            if route is None or route.subresource != "exec":
                raise NotFound("the server could not find the requested resource")
            what = ("CONNECT", route.resource.group, route.resource.plural, route.subresource)
            with self._measured(what, lambda: 101):
                await self._handlers.exec(scope, receive, send, route)
        except ApiError as error:
            await exec_.reject(send, error)

    async def _review(self, scope: Scope, receive: Receive, send: Send, review: reviews.Review) -> None:
        """Whoever is known may ask about themselves, authorized for anything else or not."""
        user: User | None = scope.get(USER)
        if user is None:
            self._requests.refused(scope["method"], 401)
            _admit(user)
            return
        request = Request(scope, receive, send, user)
        verb = "POST" if request.method == "POST" else "OTHER"
        with self._measured((verb, review.group, review.plural, ""), lambda: request.status):
            if request.method != "POST":
                raise MethodNotAllowed(f"{review.plural}.{review.group} can only be created")
            _refuse_impersonation(scope)
            made = reviews.answered(review, user, await request.decoded(request.call()))
            await request.answer(201, orjson.dumps(made))

    async def _resource(self, request: Request, group: str, version: str, parts: list[str]) -> None:
        route = resolve(group, version, parts)
        if route is None:
            raise NotFound("the server could not find the requested resource")
        with self._measured(what_is_asked(request, route), lambda: request.status):
            await self._handlers.handle(request, route)

    def _admitted(self, scope: Scope, method: str) -> User:
        try:
            user = _admit(scope.get(USER))
            _refuse_impersonation(scope)
            return user
        except ApiError as error:
            self._requests.refused(method, error.code)
            raise

    @contextlib.contextmanager
    def _measured(self, what: What, answered: Callable[[], int]) -> Iterator[None]:
        """Count what happens inside as one request; a client that left before its answer got none, and counts as none."""
        began = time.perf_counter()
        lasting = long_running(what)
        if lasting:
            self._requests.opened(what)
        code = 500
        try:
            yield
            code = answered()
        except ApiError as error:
            code = error.code
            raise
        except (Disconnected, asyncio.CancelledError):
            code = 0
            raise
        finally:
            if lasting:
                self._requests.closed(what)
            if code:
                self._requests.finished(what, code, time.perf_counter() - began)

    async def _public(self, method: str, top: str, send: Send) -> None:
        if top == "version":
            await reply.send(send, 200, self._documents.version)
            return
        missing = self._ready() if top == "readyz" else ""
        text = b"ok" if not missing else f"not ready: {missing}\n".encode()
        await reply.send(send, 503 if missing else 200, text, content_type=b"text/plain; charset=utf-8")

    async def _document(self, request: Request, parts: list[str]) -> None:
        if request.method not in ("GET", "HEAD"):
            raise NotFound("the server could not find the requested resource")
        found = self._discovery(request, parts)
        if found is None:
            raise NotFound(f"the server could not find the requested resource: {request.path}")
        content_type, body = found
        await reply.send(request.send, 200, body, content_type=content_type)

    def _discovery(self, request: Request, parts: list[str]) -> tuple[bytes, bytes] | None:
        match parts:
            case ["api"] | ["apis"]:
                if _aggregated(request):
                    return discovery.AGGREGATED_TYPE.encode(), self._documents.aggregated(core=parts == ["api"])
                return _json(discovery.legacy_core() if parts == ["api"] else discovery.legacy_groups())
            case ["api", version]:
                return _json(discovery.legacy_resources("", version))
            case ["apis", group]:
                return _json(discovery.legacy_group(group))
            case ["apis", group, version]:
                return _json(discovery.legacy_resources(group, version))
            case ["openapi", "v2"]:
                if not any(kind in request.all_headers(b"accept") for kind in openapi_v2.ACCEPTED):
                    return None
                return openapi_v2.MEDIA_TYPE, openapi_v2.document()
            case ["openapi", "v3"]:
                return reply.JSON, self._documents.openapi_index
            case ["openapi", "v3", "api", version]:
                return reply.JSON, self._documents.openapi("", version)
            case ["openapi", "v3", "apis", group, version]:
                return reply.JSON, self._documents.openapi(group, version)
            case ["metrics"]:
                return CONTENT_TYPE, self._metrics.render()
            case [""]:
                return _json(
                    {"paths": ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"]}
                )
        return None


def _plain(scope: Scope) -> bool:
    """Whether the client takes the object as it is (and asks once: several Accept lines go the ordinary way)."""
    found = []
    for name, value in scope["headers"]:
        if name == b"accept":
            found.append(value)
        elif name[:12] == _IMPERSONATE:
            return False
    if not found:
        return True
    try:
        return len(found) == 1 and accepted(found[0].decode("latin-1")) is PLAIN
    except NotAcceptable:
        return False


def _admit(user: User | None) -> User:
    """Whoever may ask anything at all. Raises Unauthorized or Forbidden."""
    if user is None:
        raise Unauthorized("Unauthorized: show a client certificate of this server's CA (see its kubeconfig)")
    if ADMIN_GROUP not in user.groups:
        raise Forbidden(f'User "{user.name}" is not a member of {ADMIN_GROUP}; nothing else is authorized yet')
    return user


def _refuse_impersonation(scope: Scope) -> None:
    """Who asks to be treated as somebody else must not be answered with their own, greater rights."""
    if any(name[:12] == _IMPERSONATE for name, _ in scope["headers"]):
        raise Forbidden("impersonation is not supported: ask without --as, --as-group and --as-uid")


def _aggregated(request: Request) -> bool:
    """Whether the client reads v2; one that only knows v2beta1 gets the legacy document."""
    try:
        media: Media = request.media()
    except NotAcceptable:
        return False
    return media.shape == "APIGroupDiscoveryList"


def _json(document: Any) -> tuple[bytes, bytes] | None:
    return None if document is None else (reply.JSON, orjson.dumps(document))
