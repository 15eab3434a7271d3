"""CONTRACT: what the API needs of the node behind it: logs and exec, which live in no object.

The node's runtime implements it; the server only speaks the wire format around it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from isoplane.objects.errors import Unavailable
from isoplane.objects.kinds import Resource


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The query of a log request. ``tail_lines`` and ``limit_bytes`` None: no limit; ``since_seconds`` None: all."""

    container: str = ""
    follow: bool = False
    tail_lines: int | None = None
    since_seconds: float | None = None
    previous: bool = False
    timestamps: bool = False
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ExecOptions:
    """The query of an exec request."""

    command: Sequence[str]
    container: str = ""
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


class ExecSession(Protocol):
    """One running command. Output ends with ``wait`` returning its exit code."""

    async def write_stdin(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...

    async def resize(self, width: int, height: int) -> None: ...

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1 stdout or 2 stderr, data) until both are closed."""
        ...

    async def wait(self) -> int: ...

    async def close(self) -> None:
        """Kill the command when it still runs; the client is gone."""
        ...


class NodeBackend(Protocol):
    """Raises ``objects.errors``: NotFound (no such container), BadRequest (not started yet), Unavailable."""

    def logs(self, resource: Resource, namespace: str, name: str, options: LogOptions) -> AsyncGenerator[bytes, None]:
        """The log of a container, or a VM's serial console, in pieces; with ``follow`` until the workload ends."""
        ...

    def check_exec(self, resource: Resource, namespace: str, name: str, options: ExecOptions) -> None:
        """Whether such a command could be run at all; raises what ``exec`` would."""
        ...

    async def exec(self, resource: Resource, namespace: str, name: str, options: ExecOptions) -> ExecSession: ...


_NOTHING_RUNS = "no node is attached to this server, so nothing can be executed"


class NoNode:
    """Stands in until a node is attached: says so instead of answering."""

    async def logs(
        self, resource: Resource, namespace: str, name: str, options: LogOptions
    ) -> AsyncGenerator[bytes, None]:
        raise Unavailable("no node is attached to this server, so it has no logs")
        yield b""

    def check_exec(self, resource: Resource, namespace: str, name: str, options: ExecOptions) -> None:
        raise Unavailable(_NOTHING_RUNS)

    async def exec(self, resource: Resource, namespace: str, name: str, options: ExecOptions) -> ExecSession:
        raise Unavailable(_NOTHING_RUNS)
