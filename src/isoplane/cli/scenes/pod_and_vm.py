"""The first demo: a Pod, a VirtualMachineInstance and a VirtualMachine come up side by side, serve, and are stopped."""

from __future__ import annotations

import time

import httpx
from rich.console import Console

from isoplane.cli.scenes.board import Board, patiently
from isoplane.cli.scenes.theatre import Stage, example, stage
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES
from isoplane.objects.metadata import Object

NAMESPACE = "shop"
UP_SECONDS = 60.0
DOWN_SECONDS = 60.0


async def run(console: Console, simulated: bool) -> None:
    """Play it. Raises TimeoutError or AssertionError when something does not happen as it must."""
    began = time.monotonic()
    async with stage(console, simulated=simulated) as scene:
        board = Board(scene.plane.informers, [NAMESPACE], console)
        board.watch()
        scene.say("One API: apply a Pod, a VirtualMachineInstance and a VirtualMachine")
        await scene.apply(example("01-pod-and-vm"))
        scene.say("One controller brings both kinds up, side by side")
        await board.until(_all_ready, UP_SECONDS, "the Pod and both VMs to be running and ready")
        board.show()
        if not simulated:
            await _fetch(scene, board)
        scene.say("Delete them: SIGTERM for the container, the ACPI power button for the guests")
        await scene.plane.api.delete(PODS, "web", NAMESPACE)
        await scene.plane.api.delete(VIRTUALMACHINEINSTANCES, "guest", NAMESPACE)
        await scene.plane.api.delete(VIRTUALMACHINES, "keeper", NAMESPACE)
        await board.until(lambda views: not views, DOWN_SECONDS, "everything to stop")
        console.print("  all stopped gracefully, nothing left")
    console.print(f"\n[bold green]Done[/] in {time.monotonic() - began:.1f} s.", highlight=False)


def _all_ready(views: list[Object]) -> bool:
    return len(views) == 3 and all(v["status"]["stage"] == "Running" and v["status"]["ready"] for v in views)


async def _fetch(scene: Stage, board: Board) -> None:
    scene.say("Fetch a page from the container and from a guest")
    for view in board.views():
        if view["spec"]["name"] == "keeper":
            continue
        url = f"http://{view['status']['ip']}:8080/"

        async def page(url: str = url) -> str:
            async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
                response = await client.get(url)
                response.raise_for_status()
                return response.text

        text = await patiently(page, 20)
        heading = text.split("<h1>", 1)[-1].split("</h1>", 1)[0]
        scene.console.print(
            f"  {view['spec']['kind']} {view['spec']['name']} at {url} says: {heading}", highlight=False
        )
