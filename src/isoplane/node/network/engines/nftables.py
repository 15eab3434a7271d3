"""nftables: the whole table in one transaction, and a look at the kernel's change counter instead of a listing.

Renderers name their table in general; on a host every plane has a table of its own, which is put in its place here.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence, Set

from isoplane.node.network.engines import counts, libnftables, nfnetlink, nft_guard, tracked
from isoplane.node.network.engines.protocol import Connection, EngineFailure, Look
from isoplane.node.network.process import find, run
from isoplane.node.network.protocol import FabricFailure

_MARKER = re.compile(r"^\s*chain revision_([0-9a-f]{16}) \{", re.MULTILINE)
_DYNAMIC = re.compile(r"\s*elements = \{[^}]*\}")
_ELEMENTS = re.compile(r"elements = \{([^}]*)\}")


class NftablesEngine:
    """Implements ``Engine`` for routed endpoints. ``guarded``: prefixes of interfaces that are closed by default.

    ``bridge``: the interface behind which another engine's endpoints are, '' for none.
    """

    name = "nftables"

    def __init__(self, table: str, guarded: Sequence[str], bridge: str = "", rendered_table: str = "isoplane") -> None:
        self._table = f"inet {table}"
        self._rendered = re.compile(rf"\binet {re.escape(rendered_table)}\b")
        self._guarded = tuple(guarded)
        self._interfaces = [*(f"{prefix}*" for prefix in guarded), *([bridge] if bridge else [])]
        self._applied = ""
        self._generation = -1
        """The kernel's change counter when the rules were known to be ours; -1 while that is not known."""
        self._digest = ""

    async def start(self) -> None:
        try:
            find("nft")
            closed = "" if await self.revision() else self._closed()
            # Before the rules: whoever meddles with one changes the counter that tells of the other.
            await self._load(nft_guard.ruleset(self._table, self._interfaces) + closed)
        except (FabricFailure, OSError) as failure:
            raise EngineFailure(f"nftables: {failure}") from failure

    def _closed(self) -> str:
        arriving = "".join(f'    iifname "{prefix}*" drop\n' for prefix in self._guarded)
        leaving = "".join(f'    oifname "{prefix}*" drop\n' for prefix in self._guarded)
        return (
            f"add table {self._table}\ndelete table {self._table}\ntable {self._table} {{\n"
            f"  chain source_guard {{\n    type filter hook prerouting priority raw\n{arriving}  }}\n"
            f"  chain forward {{\n    type filter hook forward priority filter\n{leaving}  }}\n}}\n"
        )

    async def apply(self, text: str, revision: str, update: str | None = None) -> None:
        chosen = text if update is None else update
        marked = self._rendered.sub(self._table, chosen)
        if update is None:
            marked = nft_guard.ruleset(self._table, self._interfaces) + marked
        if update is not None and self._applied:
            marked += f"delete chain {self._table} revision_{self._applied}\n"
        marked += f"add chain {self._table} revision_{revision}\n"
        if await self._commit(marked):
            self._generation = await asyncio.to_thread(nfnetlink.generation)
        else:
            self._generation = -1
        self._applied, self._digest = revision, ""

    async def _commit(self, text: str) -> bool:
        """Load a text. False when somebody else changed a rule meanwhile."""
        before = await asyncio.to_thread(nfnetlink.generation)
        await self._load(text)
        return await asyncio.to_thread(nfnetlink.generation) == before + 1

    async def _load(self, text: str) -> None:
        try:
            await libnftables.load(text)
        except FabricFailure as failure:
            raise EngineFailure(f"nftables refuses the rules: {failure}") from failure

    async def _listing(self, table: str) -> str:
        try:
            return await libnftables.listing(table)
        except FabricFailure as failure:
            if "No such file or directory" in str(failure):
                return ""
            raise EngineFailure(f"nftables cannot be read: {failure}") from failure

    async def revision(self) -> str:
        marker = _MARKER.search(await self._listing(self._table))
        return marker[1] if marker else ""

    async def look(self) -> Look:
        try:
            now = await asyncio.to_thread(nfnetlink.generation)
        except OSError as error:
            raise EngineFailure(f"nftables cannot be read: {error}") from error
        if now == self._generation and self._digest:
            return Look.INTACT
        main, guard = await self._listing(self._table), await self._listing(nft_guard.table(self._table))
        digest = digest_of(main + _DYNAMIC.sub("", guard))
        if not main or not guard or (self._digest and digest != self._digest):
            return Look.CHANGED
        if not self._digest and now != self._generation:
            return Look.UNSURE
        # Either nobody changed a rule since ours were loaded, so that this is what they look like, or others changed theirs.
        self._digest, self._generation = digest, now
        return Look.INTACT

    async def connections(self, addresses: Set[str]) -> Sequence[Connection]:
        return await tracked.connections(addresses)

    async def cut(self, connections: Sequence[Connection]) -> None:
        if quiet := nft_guard.hush(self._table, connections):
            known = await asyncio.to_thread(nfnetlink.generation) == self._generation
            if await self._commit(quiet) and known:
                self._generation += 1
        await tracked.cut(connections)

    async def counts(self) -> Mapping[tuple[str, str], int]:
        try:
            # by the tool, in a process of its own: a long listing must not keep a change waiting
            listing = await run("nft", "-j", "list", "table", *self._table.split())
        except FabricFailure as failure:
            raise EngineFailure(f"nftables' counters cannot be read: {failure}") from failure
        return await asyncio.to_thread(counts.of_nftables, listing)

    async def clear(self) -> None:
        tables = (self._table, nft_guard.table(self._table))
        await self._load("".join(f"add table {one}\ndelete table {one}\n" for one in tables))
        self._applied, self._digest, self._generation = "", "", -1


def digest_of(listing: str) -> str:
    """Of a listing, whatever order the kernel's hash tables have their elements in."""
    elements = sorted("".join(one.split()) for block in _ELEMENTS.findall(listing) for one in block.split(","))
    rest = _ELEMENTS.sub("elements", listing)
    return hashlib.sha256("\n".join([rest, *elements]).encode()).hexdigest()
