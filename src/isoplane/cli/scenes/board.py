"""The side-by-side table of a demo: pods and VMs, live, with how long each transition took."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from isoplane.client.informer import Informers
from isoplane.objects.metadata import Object
from isoplane.objects.resources.workload import transitions_text
from isoplane.workload.registry import adapter_for, workload_resources
from isoplane.workload.view import workload_object

COLOURS = {
    "Running": "green",
    "Succeeded": "green",
    "Failed": "red",
    "Stopping": "yellow",
    "Gated": "magenta",
    "Unknown": "red",
}
REFRESH = 4


class Board:
    """Shows the workloads of a plane. On a terminal the table is redrawn in place; elsewhere each change is a line."""

    def __init__(self, informers: Informers, namespaces: Sequence[str], console: Console) -> None:
        self._informers = informers
        self._namespaces = frozenset(namespaces)
        self.console = console
        self._live: Live | None = None
        self._stages: dict[str, str] = {}
        self._began = time.monotonic()

    def watch(self) -> None:
        """Begin to listen; call before the informers start or after, once."""
        for resource in workload_resources():
            self._informers.of(resource).on_change(lambda key, old, new: self._changed())

    def views(self) -> list[Object]:
        """The Workload objects of the shown namespaces, in a stable order."""
        found: list[Object] = []
        for resource in workload_resources():
            adapter = adapter_for(resource)
            assert adapter is not None
            for obj in self._informers.of(resource).items():
                if obj["metadata"]["namespace"] in self._namespaces:
                    found.append(workload_object(adapter, obj))
        found.sort(key=lambda view: (view["metadata"]["namespace"], view["spec"]["kind"], view["spec"]["name"]))
        return found

    def table(self) -> Table:
        """The table as it is now."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("NAMESPACE", "KIND", "NAME", "STAGE", "READY", "NODE", "IP", "PRIORITY", "TRANSITIONS"):
            table.add_column(column, no_wrap=column != "TRANSITIONS")
        for view in self.views():
            spec, status = view["spec"], view["status"]
            stage = status["stage"]
            kind = {"VirtualMachineInstance": "VMI"}.get(spec["kind"], spec["kind"])
            table.add_row(
                view["metadata"]["namespace"],
                kind,
                spec["name"],
                f"[{COLOURS.get(stage, 'cyan')}]{stage}[/]",
                "yes" if status["ready"] else "no",
                status["node"] or "-",
                status["ip"] or "-",
                str(spec["priority"]),
                transitions_text(view["status"]["transitions"]),
            )
        return table

    def _changed(self) -> None:
        if self._live is not None:
            return
        for view in self.views():
            name = f"{view['spec']['kind']} {view['metadata']['namespace']}/{view['spec']['name']}"
            stage = view["status"]["stage"] + (" (ready)" if view["status"]["ready"] else "")
            if self._stages.get(name) != stage:
                self._stages[name] = stage
                self.console.print(f"  {time.monotonic() - self._began:6.2f} s  {name}: {stage}", highlight=False)

    async def until(self, done: Callable[[list[Object]], bool], timeout: float, what: str) -> None:
        """Show the table until ``done``. Raises TimeoutError that says what was waited for."""
        deadline = time.monotonic() + timeout
        if sys.stdout.isatty():
            with Live(self.table(), console=self.console, refresh_per_second=REFRESH, transient=True) as self._live:
                await self._wait(done, deadline, what, self._live)
            self._live = None
        else:
            await self._wait(done, deadline, what, None)

    async def _wait(self, done: Callable[[list[Object]], bool], deadline: float, what: str, live: Live | None) -> None:
        while not done(self.views()):
            if time.monotonic() > deadline:
                self.console.print(self.table())
                raise TimeoutError(f"waited too long for {what}")
            if live is not None:
                live.update(self.table())
            await asyncio.sleep(0.05)

    def show(self) -> None:
        """Print the table once, as it stands."""
        self.console.print(self.table())


async def patiently(attempt: Callable[[], Awaitable[str]], timeout: float) -> str:
    """Try until it works; raises the last error when the time is over."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return await attempt()
        except Exception:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
