"""The ASGI application: who asks, for what, may they, and every failure as a Status object.

A :class:`Service` says what there is and answers for it.  Everything before that is said here, once, for every server:
authentication, authorization, metrics, health.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from isoplane.http import reply, request_info
from isoplane.http.authentication import Authentication
from isoplane.http.authorization import AskAnother, Authorize, Decision, forbidden
from isoplane.http.body import Disconnected, Receive
from isoplane.http.negotiation import PLAIN, accepted
from isoplane.http.reply import Send
from isoplane.http.request import Request
from isoplane.http.request_info import RequestInfo
from isoplane.http.request_metrics import Labels, Measured, RequestMetrics, labels_of
from isoplane.http.scope import AUTHENTICATED, CERTIFICATE, Scope
from isoplane.http.user import ANONYMOUS, User
from isoplane.objects.errors import ApiError, Forbidden, Internal, NotAcceptable, NotFound, Unauthorized
from isoplane.objects.exposition import CONTENT_TYPE, Registry

_log = logging.getLogger(__name__)
HEALTH = ("healthz", "livez", "readyz")
_IMPERSONATE = b"impersonate-"
_TEXT = b"text/plain; charset=utf-8"

Handle = Callable[[Request], Awaitable[None]]
"""Answers a request; raises ApiError before anything is sent."""
Upgrade = Callable[[Scope, Receive, Send], Awaitable[None]]
"""Serves a WebSocket; raises ApiError before it is accepted."""


class Service(ABC):
    """What a server has: overridden by each."""

    @abstractmethod
    def find(self, info: RequestInfo) -> Handle | None:
        """Who answers such a request; None when there is no such thing. Asked only of what the client may."""

    def stored(self, info: RequestInfo) -> bytes | None:
        """The JSON of the one object that a plain GET is for, if it can be told at once; None: take the ordinary way."""
        return None

    def socket(self, info: RequestInfo) -> Upgrade | None:
        """Who serves a WebSocket for such a request; None when there is none."""
        return None


class App:
    """``authorize`` decides what it can at once, ``ask`` the rest (without it, the rest is forbidden).

    ``ready`` answers /readyz: what is not ready yet, or ''. ``metrics`` answers /metrics; the requests are added to it.
    ``unauthorized`` is what a client without credentials is told to show.
    """

    def __init__(
        self,
        service: Service,
        authentication: Authentication,
        authorize: Authorize,
        *,
        ask: AskAnother | None = None,
        ready: Callable[[], str] = lambda: "",
        metrics: Registry | None = None,
        unauthorized: str = "show a client certificate",
    ) -> None:
        self._service = service
        self._authentication = authentication
        self._authorize = authorize
        self._ask = ask
        self._ready = ready
        self._metrics = metrics or Registry()
        self._unauthorized = unauthorized
        self._requests = RequestMetrics()
        self._metrics.register(self._requests.collect)
        self._quick: tuple[Labels, float] = (("", "", "", ""), 0.0)
        """What :meth:`quick` found last, and when it began."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        upgrade = scope["type"] == "websocket"
        method: str = "GET" if upgrade else scope["method"]
        info = request_info.read(method, scope["path"], scope["query_string"])
        measured = Measured(self._requests, info)
        try:
            if upgrade:
                await self._serve_socket(scope, receive, send, info, measured)
            else:
                await self._serve(scope, receive, send, info, measured)
        except ApiError as error:
            measured.code = error.code
            # Whoever is refused with a body still coming does not get to send the rest of it.
            await reply.send_error(send, error, close=error.code in (401, 413), upgrade=upgrade)
        except Disconnected:
            pass
        except Exception:
            measured.code = 500
            _log.exception("%s %s failed", method, scope["path"])
            unknown = Internal("an internal error occurred; the server's log has the details")
            await reply.send_error(send, unknown, upgrade=upgrade)
        finally:
            measured.end()

    def quick(self, scope: Scope) -> bytes | None:
        """The body of a plain GET of one stored object; None: take the ordinary way. Never raises."""
        if scope["method"] != "GET" or scope["query_string"]:
            return None
        began = time.perf_counter()
        info = request_info.read("GET", scope["path"])
        if not info.name or info.subresource or not _plain(scope):
            return None
        user = self._authentication.known(scope.get(CERTIFICATE), scope["headers"])
        if user is None:
            return None
        _note(scope, user)
        decision = self._authorize(user, info)
        if decision is None or not decision.allowed:
            return None
        self._quick = (labels_of(info), began)
        return self._service.stored(info)

    def quick_sent(self) -> None:
        """What :meth:`quick` returned last was written; called before anything else runs."""
        labels, began = self._quick
        self._requests.finished(labels, 200, time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, info: RequestInfo, measured: Measured) -> None:
        user = await self._admitted(scope, info)
        handle = self._own(info) or self._service.find(info)
        if handle is None:
            raise _nothing_there(info)
        measured.served(info)
        request = Request(scope, receive, send, user, info)
        await handle(request)
        measured.code = request.status

    async def _serve_socket(
        self, scope: Scope, receive: Receive, send: Send, info: RequestInfo, measured: Measured
    ) -> None:
        await self._admitted(scope, info)
        upgrade = self._service.socket(info)
        if upgrade is None:
            raise _nothing_there(info)
        measured.served(info)
        await upgrade(scope, receive, send)
        measured.code = 101

    async def _admitted(self, scope: Scope, info: RequestInfo) -> User:
        """Who asks, if they may. Raises Unauthorized or Forbidden."""
        certificate, headers = scope.get(CERTIFICATE), scope["headers"]
        user = self._authentication.known(certificate, headers)
        if user is None:
            user = await self._authentication.ask(certificate, headers)
        _note(scope, user)
        # Who asks to be treated as somebody else must not be answered with their own, greater rights.
        if any(name[:12] == _IMPERSONATE for name, _ in headers):
            raise Forbidden("impersonation is not supported: ask without --as, --as-group and --as-uid")
        decision = self._authorize(user, info)
        if decision is None:
            decision = await self._ask(user, info) if self._ask is not None else Decision(False)
        if decision.allowed:
            return user
        if user is ANONYMOUS:
            raise Unauthorized(f"Unauthorized: {self._unauthorized}")
        raise forbidden(user, info, decision.reason)

    # what every server answers

    def _own(self, info: RequestInfo) -> Handle | None:
        if info.resource or info.verb not in ("get", "head"):
            return None
        top = info.path.removeprefix("/").partition("/")[0]
        if top in HEALTH:
            return self._readiness if top == "readyz" else self._health
        return self._scrape if info.path == "/metrics" else None

    async def _health(self, request: Request) -> None:
        await request.answer(200, b"ok", content_type=_TEXT)

    async def _readiness(self, request: Request) -> None:
        missing = self._ready()
        text = b"ok" if not missing else f"not ready: {missing}\n".encode()
        await request.answer(503 if missing else 200, text, content_type=_TEXT)

    async def _scrape(self, request: Request) -> None:
        await request.answer(200, self._metrics.render(), content_type=CONTENT_TYPE)


def _note(scope: Scope, user: User) -> None:
    """A connection without a certificate is nobody's until a request on it has proven who asks."""
    if user is not ANONYMOUS and AUTHENTICATED in scope:
        scope[AUTHENTICATED]()


def _nothing_there(info: RequestInfo) -> NotFound:
    where = "" if info.resource else f": {info.path}"
    return NotFound(f"the server could not find the requested resource{where}")


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
