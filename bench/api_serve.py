"""An API server alone (no node, no controllers) for the api_*.py benchmarks: DATA LISTEN, prints its kubeconfig."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from isoplane.server.plane import ApiServer


async def main() -> None:
    data, listen = Path(sys.argv[1]), sys.argv[2]
    server = ApiServer(data, listen, data / "kubeconfig")
    await server.start()
    print(data / "kubeconfig", flush=True)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    uvloop.run(main())
