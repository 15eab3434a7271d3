"""An API server alone (no node, no controllers) for the api_*.py and quota_*.py benchmarks: DATA LISTEN [--admission].

Prints its kubeconfig when it serves. ``--admission``: with all of the plane's admission plug-ins; else with none.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from isoplane.plane import admission_plugins
from isoplane.server.apiserver import ApiServer
from isoplane.server.quota_admission import QuotaAdmission


async def main() -> None:
    data, listen = Path(sys.argv[1]), sys.argv[2]
    plugins = admission_plugins(QuotaAdmission()) if "--admission" in sys.argv else []
    server = ApiServer(data, listen, data / "kubeconfig", admission=plugins)
    await server.start()
    print(data / "kubeconfig", flush=True)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    uvloop.run(main())
