"""A container's lifecycle hooks: postStart and preStop, by exec, httpGet or sleep.

A hook runs beside whatever else happens; the controller's deadlines hold without it.  What a stop hook is, is kept in the
attempt's record, so that a plane that did not start the container can run it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from isoplane.node.runtime.protocol import ExecResult, RuntimeFailure

Exec = Callable[[Sequence[str], float], Awaitable[ExecResult]]
_HOOK_LIMIT = 600.0


class HookFailure(Exception):
    """A hook did not succeed; the message says how."""


def declared(recipe: Mapping[str, Any], name: str, address: str) -> dict[str, Any] | None:
    """A hook as it is to be run (``postStart`` or ``preStop``), with ports and hosts filled in; None when there is none."""
    hook = (recipe.get("lifecycle") or {}).get(name)
    if not hook:
        return None
    found = dict(hook)
    if (http := hook.get("httpGet")) is not None:
        ports = {p.get("name"): p.get("containerPort") for p in recipe.get("ports") or ()}
        port = http.get("port")
        found["httpGet"] = {**http, "port": ports.get(port, port), "host": http.get("host") or address or "127.0.0.1"}
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
    except (OSError, ValueError) as error:
        raise HookFailure(str(error)) from None


async def _get(http: Mapping[str, Any]) -> None:
    """One HTTP GET; any answer at all below 400 will do."""
    host, port, path = str(http["host"]), int(http["port"]), str(http.get("path") or "/")
    secure = str(http.get("scheme") or "HTTP").upper() == "HTTPS"
    reader, writer = await asyncio.open_connection(host, port, ssl=_unverified() if secure else None)
    try:
        headers = "".join(f"{h.get('name')}: {h.get('value')}\r\n" for h in http.get("httpHeaders") or ())
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n{headers}Connection: close\r\n\r\n".encode())
        await writer.drain()
        status = (await reader.readline()).split()
        if len(status) < 2 or not status[1].isdigit() or int(status[1]) >= 400:
            raise HookFailure(f"GET {path} was answered {b' '.join(status[1:]).decode(errors='replace') or 'nothing'}")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _unverified() -> Any:
    """TLS as the kubelet does it for hooks: encrypted, the certificate not checked."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
