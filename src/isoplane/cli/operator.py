"""``isoplane operator``: quota with preemption for Pods and VMs on an existing Kubernetes, run from here or printed for it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import typer

from isoplane.cli.terminal import command_line, fail, say
from isoplane.client import kubeconfig
from isoplane.client.http import HttpApi
from isoplane.client.problems import KubeconfigProblem
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError
from isoplane.objects.kinds import NAMESPACES
from isoplane.objects.metadata import Object
from isoplane.operator.cluster import is_managed
from isoplane.operator.install import Discovery, NotServed, install, uninstall
from isoplane.operator.manifests import laptop
from isoplane.operator.names import Accounts
from isoplane.operator.operator import Operator, Terms
from isoplane.operator.policies import GROUP_VERSION
from isoplane.operator.serving import registration, serving
from isoplane.operator.view import WorkloadView

app = command_line(group=True)

KUBECONFIG = typer.Option(None, "--kubeconfig", help="The cluster's kubeconfig; $KUBECONFIG or ~/.kube/config.")
CONTEXT = typer.Option("", "--context", help="The context of the kubeconfig; its current one.")


@app.callback()
def _group() -> None:
    """Decide quota for Pods and VMs on an existing Kubernetes."""


@app.command()
def run(
    file: Path | None = KUBECONFIG,
    context: str = CONTEXT,
    no_install: bool = typer.Option(False, "--no-install", help="Apply no kinds, rights and policies first."),
    lease_seconds: float = typer.Option(
        10.0, "--lease-seconds", min=1.0, help="How long another operator waits for this one."
    ),
    serve_api: str = typer.Option(
        "",
        "--serve-api",
        metavar="HOST:PORT",
        help="Serve kubectl get workloads, at an address that the cluster can reach.",
    ),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log more."),
) -> None:
    """Run the operator here, in the foreground, against a cluster: it acts as its own service account there.

    Prints one line that starts with `ready` when it campaigns. SIGTERM and ^C stop it: what runs goes on, new Pods of
    managed namespaces wait.
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    terms = Terms(lease_seconds, lease_seconds * 0.7, lease_seconds * 0.1)
    host, _, port = serve_api.rpartition(":")
    if serve_api and not (host and port.isdigit()):
        fail(f"--serve-api {serve_api}: must be HOST:PORT, such as laptop.example.com:8443")
    address = (host, int(port)) if serve_api else None
    _with_cluster(_run(_cluster(file, context), not no_install, terms, address))


@app.command(name="uninstall")
def remove(file: Path | None = KUBECONFIG, context: str = CONTEXT) -> None:
    """Take the operator out of a cluster: policies first, then every waiting Pod is released, then the rest.

    TenantQuotas, QuotaPolicies and Cohorts stay; delete their CustomResourceDefinitions to be rid of them.
    """
    _with_cluster(_uninstall(_cluster(file, context)))


def _cluster(file: Path | None, context: str) -> kubeconfig.Cluster:
    try:
        return kubeconfig.load(file or kubeconfig.default_path(), context)
    except KubeconfigProblem as error:
        fail(str(error))


def _with_cluster(work: object) -> None:
    assert asyncio.iscoroutine(work)
    try:
        asyncio.run(work)
    except (ApiError, NotServed, OSError, TimeoutError) as error:
        fail(str(error) or "the cluster did not answer in time")


async def _run(cluster: kubeconfig.Cluster, installs: bool, terms: Terms, address: tuple[str, int] | None) -> None:
    async with HttpApi(cluster) as administrator, AsyncExitStack() as stack:
        if not await Discovery(administrator).serves(GROUP_VERSION, "MutatingAdmissionPolicy"):
            raise NotServed(
                f"this cluster does not serve MutatingAdmissionPolicy in {GROUP_VERSION}, and cannot reach a webhook on this "
                "machine: run the operator in the cluster (isoplane operator manifests)"
            )
        if installs:
            await install(administrator, laptop())
        api = await stack.enter_async_context(
            HttpApi(cluster, impersonate=Accounts().operator, write_seconds=terms.request)
        )
        identity = f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        operator = Operator(api, identity, terms=terms)
        task = asyncio.create_task(operator.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        if address is not None:
            await operator.synced()
            view = WorkloadView(operator.cluster.pods, None, operator.place)
            port, ca = await stack.enter_async_context(serving(api, view, *address))
            await install(administrator, registration(address[0], port, ca))
        typer.echo(f"ready: deciding quota for {cluster.server} as {Accounts().operator}")
        try:
            await task
        except asyncio.CancelledError:
            say("stopped: what runs goes on; new Pods of managed namespaces wait until an operator runs again")


async def _uninstall(cluster: kubeconfig.Cluster) -> None:
    async with HttpApi(cluster) as administrator:
        managed: list[Object] = [obj for obj in (await administrator.list(NAMESPACES)).items if is_managed(obj)]
        async with HttpApi(cluster) as api:
            there = [*registration("localhost", 443, b""), *laptop()]
            released = await uninstall(api, there, map(metadata.name, managed))
    say(f"removed; {released} waiting Pods were released")
