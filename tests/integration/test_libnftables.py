"""nft within the process says and does what the tool does."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import Iterator

import pytest

from isoplane.node.network.engines import libnftables
from isoplane.node.network.process import run
from isoplane.node.network.protocol import FabricFailure
from support import require

pytestmark = pytest.mark.root
RULES = """table {table} {{
  set s {{
    type ipv4_addr . inet_service
    elements = {{ 10.0.0.1 . 80, 10.0.0.2 . 443 }}
  }}
  chain c {{
    type filter hook forward priority filter
    ip saddr 192.0.2.1 tcp dport 22 counter accept
    icmpv6 type nd-neighbor-solicit return
  }}
}}
"""


@pytest.fixture
def table() -> Iterator[str]:
    require("nft", root=True)
    name = f"inet lnft{os.getpid()}"
    subprocess.run(["nft", f"add table {name}"], check=True)
    yield name
    subprocess.run(["nft", f"delete table {name}"], check=True)


@pytest.fixture(params=["library", "tool"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    libnftables._library.cache_clear()
    if request.param == "tool":
        monkeypatch.setattr(libnftables, "LIBRARY", "libnowhere.so.1")
    yield request.param
    libnftables._library.cache_clear()


async def test_what_is_loaded_is_listed_as_the_tool_lists_it(
    table: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await libnftables.load(RULES.format(table=table))
        await asyncio.gather(
            *(libnftables.load(f"add element {table} s {{ 10.0.1.{n} . 80 }}\n") for n in range(1, 20))
        )
        found = await libnftables.listing(table)
    assert found.count("10.0.1.") == 19
    assert found == (await run("nft", "-s", "-n", "list", "table", *table.split())).decode()
    assert len(caplog.messages) == (way == "tool"), "that the library is absent is told once"


async def test_a_refused_change_changes_nothing_and_says_why(table: str, way: str) -> None:
    await libnftables.load(RULES.format(table=table))
    before = await libnftables.listing(table)
    with pytest.raises(FabricFailure, match="No such file or directory"):
        await libnftables.load(f"flush chain {table} c\nadd element {table} nowhere {{ 10.0.0.1 }}\n")
    with pytest.raises(FabricFailure, match="syntax error"):
        await libnftables.load(f"flush chain {table} c\nfrobnicate\n")
    assert await libnftables.listing(table) == before
    with pytest.raises(FabricFailure, match="No such file or directory"):
        await libnftables.listing(f"{table}nowhere")
