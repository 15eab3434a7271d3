"""``isoplane up``: serve the API and run workloads on this machine, in the foreground, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from isoplane.cli.terminal import BAD_INPUT, DATA, FINDING, command_line, default_data_dir, fail

if TYPE_CHECKING:
    from isoplane.plane import Plane

app = command_line()


class RuntimeChoice(StrEnum):
    """``--runtime``."""

    REAL = "real"
    SIMULATED = "simulated"


class Engine(StrEnum):
    """``--container-engine`` and ``--vm-engine``."""

    NFTABLES = "nftables"
    IPTABLES = "iptables"
    OPENVSWITCH = "openvswitch"


@app.command()
def up(
    data: Path | None = DATA,
    listen: str = typer.Option("127.0.0.1:6443", "--listen", metavar="HOST:PORT", help="Where to serve the API."),
    kubeconfig: Path | None = typer.Option(
        None, "--kubeconfig", help="Where to write the kubeconfig.", show_default="DATA/kubeconfig"
    ),
    encryption_key: Path | None = typer.Option(
        None, "--encryption-key", metavar="FILE", help="Key file that encrypts Secrets.", show_default="DATA/keys"
    ),
    runtime: RuntimeChoice = typer.Option(
        RuntimeChoice.REAL, "--runtime", help="Run for real, or simulate on a clock (no root)."
    ),
    container_engine: Engine = typer.Option(
        Engine.NFTABLES, "--container-engine", help="What enforces policy on containers."
    ),
    vm_engine: Engine = typer.Option(Engine.OPENVSWITCH, "--vm-engine", help="What enforces policy on VMs."),
    cluster_cidr: str = typer.Option(
        "", "--cluster-cidr", metavar="RANGE", help="Workloads' IPv4 range.", show_default="one that no route overlaps"
    ),
    cluster_cidr6: str = typer.Option(
        "",
        "--cluster-cidr6",
        metavar="RANGE|none",
        help="Their IPv6 range, or none.",
        show_default="a unique local one",
    ),
    images: Path | None = typer.Option(None, "--images", help="Image store to use.", show_default="DATA/images"),
    node_name: str = typer.Option("", "--node-name", help="This node's name.", show_default="the host's"),
    allow_probe_host: bool = typer.Option(
        False, "--allow-probe-host", help="Permit `host` in probes and hooks (never this node's own addresses)."
    ),
    allowed_unsafe_sysctls: list[str] = typer.Option(
        [], "--allowed-unsafe-sysctls", metavar="NAME|PREFIX*", help="Permit Pods this sysctl beyond the safe ones."
    ),
    stop_workloads: bool = typer.Option(False, "--stop-workloads", help="On SIGTERM stop the workloads too."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what the plane does."),
) -> None:
    """Serve the Kubernetes API and run workloads on this machine, in the foreground.

    Prints one line that starts with `ready` when it serves. SIGTERM stops it cleanly and leaves the workloads running.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    from isoplane.node.parts import NodeOptions
    from isoplane.plane import PlaneOptions

    simulated = runtime is RuntimeChoice.SIMULATED
    if not simulated and os.geteuid() != 0:
        fail(
            "--runtime real needs root (network namespaces, mounts, cgroups); "
            "run it with sudo, or try --runtime simulated"
        )
    options = PlaneOptions(
        data_dir=(data or default_data_dir()).absolute(),
        listen=listen,
        kubeconfig=kubeconfig.absolute() if kubeconfig else None,
        encryption_key=encryption_key.absolute() if encryption_key else None,
        node=NodeOptions(
            simulated=simulated,
            container_engine=container_engine.value,
            vm_engine=vm_engine.value,
            cidr=cluster_cidr,
            cidr6=cluster_cidr6,
            images=images.absolute() if images else None,
            unsafe_sysctls=_sysctls(allowed_unsafe_sysctls),
        ),
        node_name=node_name,
        allow_probe_host=allow_probe_host,
    )
    try:
        import uvloop

        code = uvloop.run(_serve(options, stop_workloads))
    except KeyboardInterrupt:
        code = 0
    raise typer.Exit(code)


def _sysctls(patterns: list[str]) -> tuple[str, ...]:
    from isoplane.workload.sysctls import check_pattern

    for pattern in patterns:
        try:
            check_pattern(pattern)
        except ValueError as error:
            fail(f"--allowed-unsafe-sysctls: {error}")
    return tuple(patterns)


async def _serve(options: object, stop_workloads: bool) -> int:
    from isoplane.http.listener import ListenError
    from isoplane.node.formats import RecordsRefused
    from isoplane.node.network.protocol import FabricFailure
    from isoplane.node.runtime.protocol import RuntimeFailure
    from isoplane.objects.errors import ApiError
    from isoplane.plane import Plane, PlaneOptions
    from isoplane.server.kubeconfig import KubeconfigError
    from isoplane.store.errors import StoreError
    from isoplane.watchdog import Watchdog, on_signals

    assert isinstance(options, PlaneOptions)
    asked = asyncio.Event()
    on_signals(asked.set)
    watchdog = Watchdog()
    watchdog.start()
    try:
        plane = Plane(options, watchdog)

        def serving() -> None:
            told = f"kubeconfig {options.kubeconfig_path}"
            print(f"ready: {plane.server.url}, node {plane.node_name}, {told}", flush=True)

        starting = asyncio.ensure_future(plane.start(serving))
        stopped = asyncio.ensure_future(asked.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            if not plane.server.not_ready:
                await _stop_workloads(plane, stop_workloads)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return 0
        starting.result()
    except ValueError as error:
        typer.echo(f"isoplane: {error}", err=True)
        return BAD_INPUT
    except (
        StoreError, RecordsRefused, ListenError, KubeconfigError, RuntimeFailure, FabricFailure, ApiError, OSError
    ) as error:  # fmt: skip
        typer.echo(f"isoplane: {error}", err=True)
        return FINDING
    await asked.wait()
    await _stop_workloads(plane, stop_workloads)
    await plane.stop()
    watchdog.stop()
    return 0


async def _stop_workloads(plane: Plane, wanted: bool) -> None:
    if wanted:
        print("stopping the workloads", file=sys.stderr, flush=True)
        await plane.stop_workloads()
