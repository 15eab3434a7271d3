"""A container's lifecycle hooks: postStart and preStop, by exec, httpGet or sleep.

A hook runs beside whatever else happens; the controller's deadlines hold without it.  What the hooks are is kept in the
attempt's record, so that a plane that did not start the container can run them: a postStart hook whose end is not noted
there is run again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from isoplane.node import ask_http, destinations
from isoplane.node.runtime.protocol import ExecResult, RuntimeFailure
from isoplane.workload.shape import HttpGet

Exec = Callable[[Sequence[str], float], Awaitable[ExecResult]]
_HOOK_LIMIT = 600.0


class HookFailure(Exception):
    """A hook did not succeed; the message says how."""


def declared(recipe: Mapping[str, Any], name: str, address: str) -> dict[str, Any] | None:
    """A hook as it is to be run (``postStart`` or ``preStop``), port and own address filled in; None when there is none."""
    hook = (recipe.get("lifecycle") or {}).get(name)
    if not hook:
        return None
    found = dict(hook)
    if (http := hook.get("httpGet")) is not None:
        ports = {p.get("name"): p.get("containerPort") for p in recipe.get("ports") or ()}
        port = http.get("port")
        found["httpGet"] = {**http, "port": ports.get(port, port), "address": address}
    return found


async def run(hook: Mapping[str, Any], execute: Exec) -> None:
    """Run one hook to its end. Raises HookFailure."""
    try:
        async with asyncio.timeout(_HOOK_LIMIT):
            if (command := hook.get("exec")) is not None:
                result = await execute(tuple(command.get("command") or ()), _HOOK_LIMIT)
                if result.exit_code != 0:
                    said = result.output.decode(errors="replace").strip()[-500:]
                    raise HookFailure(f"the command ended with exit code {result.exit_code}: {said}")
            elif (http := hook.get("httpGet")) is not None:
                await _get(http)
            elif (pause := hook.get("sleep")) is not None:
                await asyncio.sleep(float(pause.get("seconds") or 0))
    except RuntimeFailure as failure:
        raise HookFailure(failure.message) from None
    except TimeoutError:
        raise HookFailure(f"it did not end within {_HOOK_LIMIT:.0f} s") from None
    except (OSError, ValueError, ask_http.AskFailure, destinations.Refused) as error:
        raise HookFailure(str(error)) from None


async def _get(http: Mapping[str, Any]) -> None:
    """One HTTP GET; any answer at all below 400 will do."""
    path = str(http.get("path") or "/")
    question = HttpGet(
        port=int(http["port"]),
        path=path,
        scheme=str(http.get("scheme") or "HTTP"),
        host=str(http.get("host") or ""),
        headers=tuple((str(h.get("name")), str(h.get("value") or "")) for h in http.get("httpHeaders") or ()),
    )
    status = await ask_http.get(question, str(http.get("address") or ""))
    if status >= 400:
        raise HookFailure(f"GET {path} was answered {status}")
