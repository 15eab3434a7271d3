"""``isoplane vm``: start, stop, restart, pause and unpause virtual machines through the API; attach to a serial console."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import typer

from isoplane.cli.terminal import FINDING, command_line, default_data_dir, fail, find_kubeconfig

app = command_line("Start, stop, restart, pause and watch virtual machines.", group=True)

_NAME = typer.Argument(..., help="The virtual machine.")
_NAMESPACE = typer.Option("default", "--namespace", "-n", help="Its namespace.")
_KUBECONFIG = typer.Option(
    None,
    "--kubeconfig",
    help="Which API server.",
    show_default="$KUBECONFIG, else the kubeconfig of the data directory",
)
DETACH = b"\x1d"
"""Ctrl-], as with telnet and virsh."""


@app.command()
def start(name: str = _NAME, namespace: str = _NAMESPACE, kubeconfig: Path | None = _KUBECONFIG) -> None:
    """Start a VirtualMachine."""
    _act("virtualmachines", name, namespace, "start", {}, kubeconfig)
    typer.echo(f"VM {name} was scheduled to start")


@app.command()
def stop(
    name: str = _NAME,
    namespace: str = _NAMESPACE,
    kubeconfig: Path | None = _KUBECONFIG,
    grace_period: int | None = typer.Option(
        None, "--grace-period", help="Seconds until it is destroyed.", show_default="its own"
    ),
) -> None:
    """Stop a VirtualMachine: press its power button, destroy it after its grace period."""
    body = {} if grace_period is None else {"gracePeriod": grace_period}
    _act("virtualmachines", name, namespace, "stop", body, kubeconfig)
    typer.echo(f"VM {name} was scheduled to stop")


@app.command()
def restart(name: str = _NAME, namespace: str = _NAMESPACE, kubeconfig: Path | None = _KUBECONFIG) -> None:
    """Stop a VirtualMachine and start it again."""
    _act("virtualmachines", name, namespace, "restart", {}, kubeconfig)
    typer.echo(f"VM {name} was scheduled to restart")


@app.command()
def pause(name: str = _NAME, namespace: str = _NAMESPACE, kubeconfig: Path | None = _KUBECONFIG) -> None:
    """Freeze a running instance."""
    _act("virtualmachineinstances", name, namespace, "pause", {}, kubeconfig)
    typer.echo(f"VMI {name} was scheduled to pause")


@app.command()
def unpause(name: str = _NAME, namespace: str = _NAMESPACE, kubeconfig: Path | None = _KUBECONFIG) -> None:
    """Let a frozen instance run on."""
    _act("virtualmachineinstances", name, namespace, "unpause", {}, kubeconfig)
    typer.echo(f"VMI {name} was scheduled to unpause")


@app.command()
def console(
    name: str = _NAME,
    namespace: str = _NAMESPACE,
    kubeconfig: Path | None = _KUBECONFIG,
    data: Path | None = typer.Option(None, "--data", help="Data directory of the plane on this machine."),
) -> None:
    """Attach to the serial console of a machine that runs on this host. Ctrl-] detaches."""
    obj = _ask(_instance(name, namespace, kubeconfig))
    # Whoever talks to a plane by its own kubeconfig names its data directory by that.
    places = [data] if data else [find_kubeconfig(kubeconfig).parent, default_data_dir()]
    paths = [place.absolute() / "qemu" / "machines" / obj["metadata"]["uid"] / "console.sock" for place in places]
    _attach(name, next((path for path in paths if path.exists()), paths[0]))


def _act(plural: str, name: str, namespace: str, action: str, body: dict[str, Any], kubeconfig: Path | None) -> None:
    from isoplane.objects.kinds import VIRTUALMACHINEINSTANCES, VIRTUALMACHINES

    resource = VIRTUALMACHINES if plural == VIRTUALMACHINES.plural else VIRTUALMACHINEINSTANCES

    async def call() -> dict[str, Any]:
        async with _api(kubeconfig) as api:
            done: dict[str, Any] = await api.subresource(resource, name, namespace, action, body)
            return done

    _ask(call())


async def _instance(name: str, namespace: str, kubeconfig: Path | None) -> dict[str, Any]:
    from isoplane.objects.kinds import VIRTUALMACHINEINSTANCES

    async with _api(kubeconfig) as api:
        found: dict[str, Any] = await api.get(VIRTUALMACHINEINSTANCES, name, namespace)
        return found


def _api(kubeconfig: Path | None) -> Any:
    from isoplane.client.http import HttpApi

    return HttpApi.from_kubeconfig(find_kubeconfig(kubeconfig))


def _ask(call: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    from isoplane.client.problems import KubeconfigProblem
    from isoplane.objects.errors import ApiError

    try:
        return asyncio.run(call)
    except KubeconfigProblem as error:
        fail(str(error))
    except ApiError as error:
        fail(error.message, FINDING)


def _attach(name: str, path: Path) -> None:
    """Copy between this terminal and the console's socket until either side ends."""
    link = socket.socket(socket.AF_UNIX)
    # A unix socket's path has 107 bytes at most: go there and use the short name.
    with contextlib.chdir(path.parent) if path.parent.is_dir() else contextlib.nullcontext():
        try:
            link.connect(path.name)
        except OSError as error:
            fail(
                f"the console of {name} is not at {path} ({error.strerror}): it must run on this host, "
                "under the plane whose data directory --data names, and nobody else may be attached",
                FINDING,
            )
    typer.echo(f"Connected to {name}. Escape character is ^]", err=True)
    terminal = sys.stdin.fileno()
    saved = termios.tcgetattr(terminal) if os.isatty(terminal) else None
    try:
        if saved is not None:
            tty.setraw(terminal)
        _copy(link, terminal)
    finally:
        if saved is not None:
            termios.tcsetattr(terminal, termios.TCSADRAIN, saved)
        link.close()


def _copy(link: socket.socket, terminal: int) -> None:
    sources: list[socket.socket | int] = [link, terminal]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if link in ready:
            data = link.recv(65536)
            if not data:
                return
            os.write(sys.stdout.fileno(), data)
        if terminal in ready:
            typed = os.read(terminal, 1024)
            if not typed:
                sources.remove(terminal)
            if DETACH in typed:
                return
            link.sendall(typed)
