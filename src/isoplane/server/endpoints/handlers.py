"""From a routed request to one verb, and its answer back on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import cast

import orjson

from isoplane.client.api import PatchKind
from isoplane.client.streams import NodeBackend
from isoplane.http import apierrors, query, reply
from isoplane.http.body import Receive
from isoplane.http.reply import Send
from isoplane.http.representation import Representation
from isoplane.http.request import Request, Scope, aside
from isoplane.http.request_options import Call, DeleteOptions, check_shape
from isoplane.http.wire import write_piece
from isoplane.objects.decode import APPLY_PATCH, decode_patch
from isoplane.objects.errors import ApiError, BadRequest, MethodNotAllowed
from isoplane.objects.kinds import ANNOUNCED, Resource
from isoplane.server import actions, launcher_writes, strategy
from isoplane.server.endpoints import exec as exec_
from isoplane.server.endpoints.logs import send_log
from isoplane.server.endpoints.routes import Route
from isoplane.server.launcher import machine_of
from isoplane.server.verbs import Verbs
from isoplane.server.watching import Step
from isoplane.store import Record


class Handlers:
    """Dispatch by method and by what the route names."""

    def __init__(self, verbs: Verbs, node: NodeBackend) -> None:
        self._verbs = verbs
        self.node = node

    async def handle(self, request: Request, route: Route) -> None:
        """Answer the request. Raises ApiError before anything is sent."""
        method = request.method
        if route.subresource and route.subresource not in ("status", "finalize"):
            await self._subresource(request, route)
        elif method in ("GET", "HEAD"):
            if route.name:
                self._allow(route, "get")
                await self._get(request, route)
            elif query.boolean(request.query, "watch"):
                self._allow(route, "watch")
                await self._watch(request, route)
            else:
                self._allow(route, "list")
                await self._list(request, route)
        elif method == "POST":
            self._allow(route, "create", whole=not route.name)
            await self._create(request, route)
        elif method == "PUT":
            self._allow(route, "update", whole=bool(route.name))
            await self._update(request, route)
        elif method == "PATCH":
            self._allow(route, "patch", whole=bool(route.name) and route.subresource != "finalize")
            await self._patch(request, route)
        elif method == "DELETE":
            self._allow(route, "delete" if route.name else "deletecollection", whole=not route.subresource)
            await (self._delete if route.name else self._delete_collection)(request, route)
        else:
            raise MethodNotAllowed(f"the server does not allow the method {method} on the requested resource")

    @staticmethod
    def _allow(route: Route, verb: str, *, whole: bool = True) -> None:
        if verb not in route.resource.verbs and route.resource in ANNOUNCED:
            raise apierrors.not_served_yet(route.resource)
        if verb not in route.resource.verbs or not whole:
            raise MethodNotAllowed(
                f"the server does not allow this method on the requested resource: {verb} {route.resource.qualified}"
            )

    def _form(self, request: Request, resource: Resource) -> Representation:
        return Representation(resource, request.media(), request.query.get("includeObject", ""))

    # reads

    def stored(self, route: Route) -> bytes | None:
        """The bytes of one stored object; None when there is none, or it is computed."""
        if route.resource.computed:
            return None
        record = self._verbs.store.state.get(route.resource, route.namespace or "", route.name)
        return None if record is None else record.data

    async def _get(self, request: Request, route: Route) -> None:
        form = self._form(request, route.resource)
        record = self._verbs.get(route.resource, route.namespace or "", route.name, mirrored=True)
        await request.answer(200, form.one(record))

    async def _list(self, request: Request, route: Route) -> None:
        form = self._form(request, route.resource)
        listing = self._verbs.list(route.resource, _scope(route), query.list_options(request.query), mirrored=True)
        await request.answer(200, form.many(listing))

    async def _watch(self, request: Request, route: Route) -> None:
        form = self._form(request, route.resource)
        options = query.list_options(request.query)

        def direct(changes: Sequence[Step]) -> bool:
            """Straight to the socket while it takes data; else the task writes, and waits."""
            return write_piece(request.send, form.lines(changes))

        steps = self._verbs.watch(route.resource, _scope(route), options, direct, mirrored=True)
        await _stream(request, form, steps)

    # writes

    async def _create(self, request: Request, route: Route) -> None:
        form, call = self._form(request, route.resource), request.call()
        obj = await request.decoded(call)
        record = await self._verbs.create(route.resource, route.namespace or "", obj, call)
        await request.answer(201, form.one(record), warnings=call.warnings)

    async def _update(self, request: Request, route: Route) -> None:
        form, call = self._form(request, route.resource), request.call()
        obj = await request.decoded(call)
        record = await self._verbs.update(
            route.resource, route.namespace or "", route.name, obj, call, route.subresource
        )
        await request.answer(200, form.one(record), warnings=call.warnings)

    async def _patch(self, request: Request, route: Route) -> None:
        form, call = self._form(request, route.resource), request.call()
        if not query.field_manager(request.query) and request.content_type.startswith(APPLY_PATCH):
            raise BadRequest("fieldManager: is required for apply patch")
        raw = await request.raw()
        kind, patch, repeated = await aside(partial(decode_patch, request.content_type, raw), len(raw))
        call.repeated.extend(repeated)
        record = await self._verbs.patch(
            route.resource, route.namespace or "", route.name, patch, cast(PatchKind, kind), call, route.subresource
        )
        await request.answer(201 if call.created else 200, form.one(record), warnings=call.warnings)

    async def _delete(self, request: Request, route: Route) -> None:
        form, call = self._form(request, route.resource), request.call()
        options = await _delete_options(request, call)
        deleted = await self._verbs.delete(route.resource, route.namespace or "", route.name, options, call)
        record = deleted.record
        if deleted.removed and not strategy.of(route.resource).returns_deleted:
            body = reply.success(route.resource, record.name, record.uid)
        else:
            body = form.one(record)
        await request.answer(200, body, warnings=call.warnings)

    async def _delete_collection(self, request: Request, route: Route) -> None:
        form, call = self._form(request, route.resource), request.call()
        selection = query.list_options(request.query)
        options = await _delete_options(request, call)
        listing = await self._verbs.delete_collection(route.resource, _scope(route), selection, options, call)
        await request.answer(200, form.many(listing), warnings=call.warnings)

    # subresources

    def _behind(self, route: Route) -> Record:
        """Whose log is asked for, or where a command is to run: behind a launcher pod it is the machine."""
        namespace = route.namespace or ""
        machine = machine_of(self._verbs.store.state, route.resource, namespace, route.name)
        return machine or self._verbs.get(route.resource, namespace, route.name)

    def _commanded(self, route: Route) -> Record:
        record = self._behind(route)
        if record.resource is not route.resource:
            raise launcher_writes.refuse_command(record)
        return record

    async def exec(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        """Run a command; raises ApiError before the connection is upgraded."""
        await exec_.serve(scope, receive, send, self.node, self._commanded(route))

    async def _subresource(self, request: Request, route: Route) -> None:
        if route.subresource == "log" and request.method == "GET":
            await send_log(request, self.node, self._behind(route))
            return
        if route.subresource == "exec":
            record = self._commanded(route)
            options = exec_.read_options(request.scope["query_string"])
            self.node.check_exec(record.resource, record.namespace, record.name, options)
            raise BadRequest(
                "exec is served over WebSocket (v5.channel.k8s.io) only; kubectl 1.31 and newer use it by themselves, "
                "1.29 and 1.30 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true"
            )
        if not actions.exists(route.resource, route.subresource) or request.method not in ("POST", "PUT"):
            raise MethodNotAllowed(
                f"the server does not allow {request.method} on {route.resource.qualified}/{route.subresource}"
            )
        call = request.call()
        body = await request.decoded(call, optional=True)
        check_shape(body)
        call.dry_run = call.dry_run or bool(body.get("dryRun"))
        await self._verbs.act(route.resource, route.namespace or "", route.name, route.subresource, body, call)
        code = 202 if route.resource.custom else 201
        await request.answer(code, reply.success(route.resource, route.name, code=code), warnings=call.warnings)


def _scope(route: Route) -> str | None:
    """The namespace to list: None for all, '' for cluster-scoped resources."""
    return route.namespace if route.resource.namespaced else ""


async def _delete_options(request: Request, call: Call) -> DeleteOptions:
    body = await request.decoded(call, optional=True)
    if body and body.get("kind") not in (None, "", "DeleteOptions"):
        raise BadRequest(f"the body of a delete must be DeleteOptions, not {body.get('kind')}")
    options = DeleteOptions.read(query.delete_options(request.query, body))
    call.dry_run = call.dry_run or bool(body.get("dryRun"))
    return options


async def _stream(request: Request, form: Representation, steps: AsyncGenerator[Sequence[Step], None]) -> None:
    """Send a watch until its time is over or the client leaves."""
    task = asyncio.current_task()
    gone = False

    def lost() -> None:
        nonlocal gone
        gone = True
        if task is not None:
            task.cancel()

    request.on_lost(lost)
    send = request.send
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    try:
        # The header goes out now: a client must not wait for the first event to know that its watch stands.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        async for group in steps:
            piece = form.lines(group)
            if not write_piece(send, piece):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    except ApiError as error:
        line = orjson.dumps({"type": "ERROR", "object": error.to_status()}) + b"\n"
        await send({"type": "http.response.body", "body": line, "more_body": True})
    except asyncio.CancelledError:
        if not gone:
            raise
        return
    finally:
        await steps.aclose()
    await send({"type": "http.response.body", "body": b""})
