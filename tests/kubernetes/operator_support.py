"""An operator in the test's own process, against the control plane of this folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from control_plane_support import ControlPlane

from isoplane.client import kubeconfig
from isoplane.client.http import HttpApi
from isoplane.operator.install import install as put
from isoplane.operator.manifests import laptop
from isoplane.operator.names import Accounts
from isoplane.operator.operator import Operator, Terms
from isoplane.operator.serving import APISERVICE, registration, serving
from isoplane.operator.view import WorkloadView

SHORT = Terms(duration=2.0, renew_deadline=1.5, retry=0.3, request=3.0)


def apply(plane: ControlPlane, *objects: dict[str, Any]) -> None:
    plane.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def until(good: Callable[[], object], what: str, seconds: float = 60) -> Any:
    """What ``good`` returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := good()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
    return found


def install(plane: ControlPlane) -> None:
    """CRDs, access and policies; returns once Pods may be made in managed namespaces."""

    async def run() -> None:
        async with HttpApi(kubeconfig.load(plane.kubeconfig)) as administrator:
            await put(administrator, laptop())

    asyncio.run(run())


@contextlib.contextmanager
def running_operator(
    plane: ControlPlane, identity: str = "one", terms: Terms = SHORT, *, serve: bool = False
) -> Iterator[Operator]:
    """An operator that campaigns in a thread of its own, as its service account. ``serve``: the aggregated API as well."""
    loop = asyncio.new_event_loop()
    made: list[Operator] = []
    ready = threading.Event()

    async def run() -> None:
        cluster = kubeconfig.load(plane.kubeconfig)
        async with (
            HttpApi(cluster, impersonate=Accounts().operator, write_seconds=terms.request) as api,
            contextlib.AsyncExitStack() as stack,
        ):
            made.append(Operator(api, identity, terms=terms))
            ready.set()
            work = asyncio.ensure_future(made[0].run())
            try:
                if serve:
                    await made[0].synced()
                    view = WorkloadView(made[0].cluster.pods, None, made[0].place)
                    port, ca = await stack.enter_async_context(serving(api, view, "127.0.0.1", 0))
                    async with HttpApi(cluster) as administrator:
                        await put(administrator, registration("localhost", port, ca))
                await work
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    task: list[asyncio.Task[None]] = []

    def main() -> None:
        asyncio.set_event_loop(loop)
        task.append(loop.create_task(run()))
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task[0])
        loop.close()

    thread = threading.Thread(target=main, name=f"operator-{identity}")
    thread.start()
    ready.wait(10)
    try:
        if serve:
            until(lambda: _registered(plane), "the APIService is there")
            plane.kubectl("wait", "--for=condition=Available", "--timeout=30s", f"apiservice/{APISERVICE}")
        yield made[0]
    finally:
        if serve:
            plane.kubectl("delete", "apiservice", APISERVICE)
        loop.call_soon_threadsafe(task[0].cancel)
        thread.join(20)


def _registered(plane: ControlPlane) -> bool:
    return APISERVICE in plane.kubectl("get", "apiservices", "-o", "name")
