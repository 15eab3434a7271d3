"""From a routed request to one verb, and its answer back on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from isoplane.client.api import PatchKind
from isoplane.client.streams import NodeBackend
from isoplane.http import apierrors, query, reply, streaming
from isoplane.http.body import Receive
from isoplane.http.reply import Send
from isoplane.http.representation import Representation
from isoplane.http.request import Request, aside
from isoplane.http.request_info import RequestInfo
from isoplane.http.request_options import Call, DeleteOptions, check_shape
from isoplane.http.scope import Scope
from isoplane.http.watch import Step
from isoplane.http.wire import write_piece
from isoplane.objects.decode import APPLY_PATCH, decode_patch
from isoplane.objects.errors import BadRequest, MethodNotAllowed
from isoplane.objects.kinds import Resource
from isoplane.server import actions, launcher_writes
from isoplane.server.endpoints import exec as exec_
from isoplane.server.endpoints.logs import send_log
from isoplane.server.launcher import machine_of
from isoplane.server.verbs import Verbs
from isoplane.store import Record


class Handlers:
    """Dispatch by the verb and by what it is about."""

    def __init__(self, verbs: Verbs, node: NodeBackend) -> None:
        self._verbs = verbs
        self.node = node

    async def handle(self, resource: Resource, request: Request) -> None:
        """Answer the request. Raises ApiError before anything is sent."""
        info = request.info
        if info.subresource and info.subresource not in ("status", "finalize"):
            await self._subresource(resource, request)
            return
        match info.verb:
            case "get":
                _allow(resource, "get")
                await self._get(resource, request)
            case "list":
                query.boolean(request.query, "watch")  # a value that is none is refused, not taken for a list
                _allow(resource, "list")
                await self._list(resource, request)
            case "watch":
                _allow(resource, "watch")
                await self._watch(resource, request)
            case "create":
                _allow(resource, "create", whole=not info.name)
                await self._create(resource, request)
            case "update":
                _allow(resource, "update", whole=bool(info.name))
                await self._update(resource, request)
            case "patch":
                _allow(resource, "patch", whole=bool(info.name) and info.subresource != "finalize")
                await self._patch(resource, request)
            case "delete":
                _allow(resource, "delete", whole=not info.subresource)
                await self._delete(resource, request)
            case "deletecollection":
                _allow(resource, "deletecollection")
                await self._delete_collection(resource, request)
            case _:
                raise MethodNotAllowed(
                    f"the server does not allow the method {request.method} on the requested resource"
                )

    # reads

    def stored(self, resource: Resource, info: RequestInfo) -> bytes | None:
        """The bytes of one stored object; None when there is none, or it is computed."""
        if resource.computed:
            return None
        record = self._verbs.store.state.get(resource, _namespace(resource, info), info.name)
        return None if record is None else record.data

    async def _get(self, resource: Resource, request: Request) -> None:
        form, info = _form(resource, request), request.info
        record = self._verbs.get(resource, _namespace(resource, info), info.name, mirrored=True)
        await request.answer(200, form.one(record))

    async def _list(self, resource: Resource, request: Request) -> None:
        form = _form(resource, request)
        options = query.list_options(request.query)
        listing = self._verbs.list(resource, _scope(resource, request.info), options, mirrored=True)
        await request.answer(200, form.many(listing))

    async def _watch(self, resource: Resource, request: Request) -> None:
        form = _form(resource, request)
        options = query.list_options(request.query)

        def direct(changes: Sequence[Step]) -> bool:
            """Straight to the socket while it takes data; else the task writes, and waits."""
            return write_piece(request.send, form.lines(changes))

        steps = self._verbs.watch(resource, _scope(resource, request.info), options, direct, mirrored=True)
        await streaming.watch(request, form, steps)

    # writes

    async def _create(self, resource: Resource, request: Request) -> None:
        form, call = _form(resource, request), request.call()
        obj = await request.decoded(call)
        record = await self._verbs.create(resource, _namespace(resource, request.info), obj, call)
        await request.answer(201, form.one(record), warnings=call.warnings)

    async def _update(self, resource: Resource, request: Request) -> None:
        form, call, info = _form(resource, request), request.call(), request.info
        obj = await request.decoded(call)
        record = await self._verbs.update(resource, _namespace(resource, info), info.name, obj, call, info.subresource)
        await request.answer(200, form.one(record), warnings=call.warnings)

    async def _patch(self, resource: Resource, request: Request) -> None:
        form, call, info = _form(resource, request), request.call(), request.info
        if not query.field_manager(request.query) and request.content_type.startswith(APPLY_PATCH):
            raise BadRequest("fieldManager: is required for apply patch")
        raw = await request.raw()
        kind, patch, repeated = await aside(partial(decode_patch, request.content_type, raw), len(raw))
        call.repeated.extend(repeated)
        record = await self._verbs.patch(
            resource, _namespace(resource, info), info.name, patch, cast(PatchKind, kind), call, info.subresource
        )
        await request.answer(201 if call.created else 200, form.one(record), warnings=call.warnings)

    async def _delete(self, resource: Resource, request: Request) -> None:
        form, call, info = _form(resource, request), request.call(), request.info
        options = await _delete_options(request, call)
        deleted = await self._verbs.delete(resource, _namespace(resource, info), info.name, options, call)
        record = deleted.record
        if deleted.removed and not resource.strategy.returns_deleted:
            body = reply.success(resource, record.name, record.uid)
        else:
            body = form.one(record)
        await request.answer(200, body, warnings=call.warnings)

    async def _delete_collection(self, resource: Resource, request: Request) -> None:
        form, call = _form(resource, request), request.call()
        selection = query.list_options(request.query)
        options = await _delete_options(request, call)
        listing = await self._verbs.delete_collection(
            resource, _scope(resource, request.info), selection, options, call
        )
        await request.answer(200, form.many(listing), warnings=call.warnings)

    # subresources

    def _behind(self, resource: Resource, info: RequestInfo) -> Record:
        """Whose log is asked for, or where a command is to run: behind a launcher pod it is the machine."""
        machine = machine_of(self._verbs.store.state, resource, info.namespace, info.name)
        return machine or self._verbs.get(resource, info.namespace, info.name)

    def _commanded(self, resource: Resource, info: RequestInfo) -> Record:
        record = self._behind(resource, info)
        if record.resource is not resource:
            raise launcher_writes.refuse_command(record)
        return record

    async def exec(self, resource: Resource, info: RequestInfo, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a command; raises ApiError before the connection is upgraded."""
        await exec_.serve(scope, receive, send, self.node, self._commanded(resource, info))

    async def _subresource(self, resource: Resource, request: Request) -> None:
        info = request.info
        if info.subresource == "log" and request.method == "GET":
            await send_log(request, self.node, self._behind(resource, info))
            return
        if info.subresource == "exec":
            record = self._commanded(resource, info)
            options = exec_.read_options(request.scope["query_string"])
            self.node.check_exec(record.resource, record.namespace, record.name, options)
            raise BadRequest(
                "exec is served over WebSocket (v5.channel.k8s.io) only; kubectl 1.31 and newer use it by themselves, "
                "1.29 and 1.30 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true"
            )
        if not actions.exists(resource, info.subresource) or request.method not in ("POST", "PUT"):
            raise MethodNotAllowed(
                f"the server does not allow {request.method} on {resource.qualified}/{info.subresource}"
            )
        call = request.call()
        body = await request.decoded(call, optional=True)
        check_shape(body)
        call.dry_run = call.dry_run or bool(body.get("dryRun"))
        await self._verbs.act(resource, _namespace(resource, info), info.name, info.subresource, body, call)
        code = 202 if resource.custom else 201
        await request.answer(code, reply.success(resource, info.name, code=code), warnings=call.warnings)


def _allow(resource: Resource, verb: str, *, whole: bool = True) -> None:
    """``whole``: the path names what the verb needs, and no more."""
    if verb not in resource.verbs and resource.announced:
        raise apierrors.not_served_yet(resource)
    if verb not in resource.verbs or not whole:
        raise MethodNotAllowed(
            f"the server does not allow this method on the requested resource: {verb} {resource.qualified}"
        )


def _form(resource: Resource, request: Request) -> Representation:
    return Representation(resource, request.media(), request.query.get("includeObject", ""))


def _namespace(resource: Resource, info: RequestInfo) -> str:
    """Where the object is: '' for cluster-scoped resources (a namespace is in itself for the authorization only)."""
    return info.namespace if resource.namespaced else ""


def _scope(resource: Resource, info: RequestInfo) -> str | None:
    """The namespace to list: None for all, '' for cluster-scoped resources."""
    return (info.namespace or None) if resource.namespaced else ""


async def _delete_options(request: Request, call: Call) -> DeleteOptions:
    body = await request.decoded(call, optional=True)
    if body and body.get("kind") not in (None, "", "DeleteOptions"):
        raise BadRequest(f"the body of a delete must be DeleteOptions, not {body.get('kind')}")
    options = DeleteOptions.read(query.delete_options(request.query, body))
    call.dry_run = call.dry_run or bool(body.get("dryRun"))
    return options
