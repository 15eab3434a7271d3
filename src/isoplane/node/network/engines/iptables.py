"""iptables and ipset: new sets first, then the rules in one transaction for each family, then what is stale goes.

Renderers name chains ``ISP-…`` and sets ``isp-…``; on a host every plane has names of its own, with its tag.  Our chains are
jumped to once from the built-in ones, first in each, and return what they do not drop.  A chain of our own keeps cut connections
cut (see nft_guard for why).  The two families are two transactions: when the second is refused the first stands, and the caller
tries again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

from isoplane.node.network.engines import counts, tracked
from isoplane.node.network.engines.nft_guard import QUIET_SECONDS
from isoplane.node.network.engines.protocol import Connection, EngineFailure, Look
from isoplane.node.network.process import find, run
from isoplane.node.network.protocol import FabricFailure
from isoplane.policy.iptables import HOOKS, PREFIX, Steps

_SECTIONS = ("## ipset", "## iptables", "## ip6tables", "## ipset afterwards")
_RENDERED = re.compile(r"\b(isp|ISP)-")
_RESTORE = {4: "iptables-restore", 6: "ip6tables-restore"}
_SAVE = {4: "iptables-save", 6: "ip6tables-save"}
_BUSY = re.compile(r"Error in line (\d+): .*(?:Device or resource busy|in use by a kernel component)")
BUSY_TRIES, BUSY_SECONDS = 80, 0.025
"""How often, and after which time, what a listing of the same set held up is tried again."""
_ENTRANCES = {chain: f"ISP-ENTER-{built_in}" for table, built_in, chain in HOOKS if table == "filter"}
"""The renderer's chain of a hook → ours before it, which lets pass at once what belongs to a connection that was let through."""
_HOOKS = tuple((table, built_in, _ENTRANCES.get(chain, chain)) for table, built_in, chain in HOOKS)


def join(steps: Steps) -> str:
    """One text of the four steps."""
    parts = (steps.before, steps.v4, steps.v6, steps.after)
    return "".join(f"{title}\n{part}" for title, part in zip(_SECTIONS, parts, strict=True))


def split(text: str) -> Steps:
    """The four steps of one text. ValueError when it is none of ours."""
    parts: dict[str, list[str]] = {title: [] for title in _SECTIONS}
    title = ""
    for line in text.splitlines():
        if line in parts:
            title = line
        elif title:
            parts[title].append(line + "\n")
        else:
            raise ValueError(f"these are no rules for iptables: {line[:80]!r}")
    return Steps(*("".join(parts[title]) for title in _SECTIONS))


class IptablesEngine:
    """Implements ``Engine`` for routed endpoints. ``guarded``: prefixes of interfaces that are closed by default.

    ``bridge``: the interface behind which another engine's endpoints are, '' for none.
    """

    name = "iptables"

    def __init__(self, tag: str, guarded: Sequence[str], bridge: str = "") -> None:
        self._tag, self._guarded = tag, tuple(guarded)
        self._interfaces = [*(f"{prefix}+" for prefix in guarded), *([bridge] if bridge else [])]
        self._applied, self._digest = "", ""

    async def start(self) -> None:
        try:
            for tool in ("ipset", *_RESTORE.values(), *_SAVE.values()):
                find(tool)
        except FabricFailure as failure:
            raise EngineFailure(f"iptables: {failure}") from failure
        if not await self.revision():
            await self._load(self._named(self._closed()), "", whole=True)

    def _closed(self) -> Steps:
        arriving = "".join(f"-A ISP-GUARD -i {prefix}+ -j DROP\n" for prefix in self._guarded)
        leaving = "".join(f"-A ISP-FORWARD -o {prefix}+ -j DROP\n" for prefix in self._guarded)
        text = (
            f"*raw\n:ISP-GUARD - [0:0]\n{arriving}COMMIT\n"
            f"*filter\n:ISP-FORWARD - [0:0]\n:ISP-INPUT - [0:0]\n{leaving}COMMIT\n"
        )
        return Steps("", text, text, "")

    def _named(self, steps: Steps) -> Steps:
        """With this plane's names."""
        return Steps(*(self._own(part) for part in (steps.before, steps.v4, steps.v6, steps.after)))

    def _own(self, text: str) -> str:
        return _RENDERED.sub(rf"\g<1>{self._tag}-", text)

    async def _run(self, tool: str, *arguments: str, stdin: str | None = None) -> str:
        try:
            return (await run(tool, *arguments, stdin=None if stdin is None else stdin.encode())).decode()
        except FabricFailure as failure:
            raise EngineFailure(f"iptables: {failure}") from failure

    async def apply(self, text: str, revision: str, update: str | None = None) -> None:
        whole = update is None
        try:
            steps = self._named(split(text if update is None else update))
        except ValueError as error:
            raise EngineFailure(f"iptables: {error}") from error
        await self._load(steps, revision, whole)
        self._applied, self._digest = revision, ""
        if whole:
            await self._collect(self._named(split(text)), revision)

    async def _load(self, steps: Steps, revision: str, whole: bool) -> None:
        before = self._quiet_sets() + (await self._over_existing(steps.before) if whole else steps.before)
        await self._change_sets(before)
        await asyncio.gather(
            self._restore(4, self._marked(steps.v4, revision), whole), self._restore(6, steps.v6, whole)
        )
        if steps.after:
            await self._change_sets(steps.after)

    async def _restore(self, family: int, text: str, whole: bool) -> None:
        lines = text + (self._begun(family) + await self._jumps(family) if whole else "")
        if lines:
            await self._run(_RESTORE[family], "--noflush", "-w", "10", stdin=lines)

    async def _change_sets(self, text: str) -> None:
        """``ipset restore``. A set that somebody lists at this moment can be neither exchanged nor destroyed: go on there."""
        lines = text.splitlines(keepends=True)
        for left in reversed(range(BUSY_TRIES)):
            try:
                await self._run("ipset", "restore", stdin="".join(lines))
                return
            except EngineFailure as failure:
                busy = _BUSY.search(str(failure))
                if busy is None or not left:
                    raise
                lines = lines[int(busy[1]) - 1 :]
            await asyncio.sleep(BUSY_SECONDS)

    def _marked(self, text: str, revision: str) -> str:
        """With an empty chain that carries the revision in its name, in the transaction of the rules themselves."""
        if not revision or revision == self._applied:
            return text
        stale = f":{self._marker(self._applied)} - [0:0]\n-X {self._marker(self._applied)}\n" if self._applied else ""
        begin, mark = "*filter\n", f"*filter\n:{self._marker(revision)} - [0:0]\n{stale}"
        return text.replace(begin, mark, 1) if begin in text else f"{text}{mark}COMMIT\n"

    def _marker(self, revision: str) -> str:
        return f"ISP{self._tag}-R-{revision}"

    async def _over_existing(self, text: str) -> str:
        """Sets that exist are exchanged for new ones, for members that somebody added would stay otherwise."""
        names = set((await self._run("ipset", "list", "-n")).split())
        spare, lines = (
            f"isp{self._tag}-spare",
            [f"create isp{self._tag}-spare hash:ip -exist", f"destroy isp{self._tag}-spare"],
        )
        current = ""
        for line in text.splitlines():
            verb, name, *rest = line.split()
            if verb == "create":
                if current:
                    lines += [f"swap {spare} {current}", f"destroy {spare}"]
                current = name if name in names else ""
            lines.append(" ".join([verb, spare if current else name, *rest]))
        if current:
            lines += [f"swap {spare} {current}", f"destroy {spare}"]
        return "".join(f"{line}\n" for line in lines)

    def _quiet_sets(self) -> str:
        return "".join(
            f"create isp{self._tag}-quiet{family} hash:ip,port,ip family {kind} timeout {QUIET_SECONDS} -exist\n"
            for family, kind in ((4, "inet"), (6, "inet6"))
        )

    def _begun(self, family: int) -> str:
        """The entrances, and the chain that keeps cut connections cut."""
        lines = ["*filter", *(f":{name} - [0:0]" for name in ("ISP-BEGUN", "ISP-FIRST", *_ENTRANCES.values()))]
        for chain, entrance in _ENTRANCES.items():
            lines.append(f"-A {entrance} -m conntrack --ctstatus CONFIRMED -j RETURN")
            lines.append(f"-A {entrance} -m conntrack --ctstate NEW -j ISP-BEGUN")
            lines.append(f"-A {entrance} -j {chain}")
        for interface in self._interfaces:
            lines.append(f"-A ISP-BEGUN -i {interface} -g ISP-FIRST")
            lines.append(f"-A ISP-BEGUN -o {interface} -g ISP-FIRST")
        lines += [
            "-A ISP-FIRST -p tcp -m tcp ! --syn -j DROP",
            f"-A ISP-FIRST -m set --match-set isp-quiet{family} src,src,dst -j DROP",
            "COMMIT",
        ]
        return self._own("".join(f"{line}\n" for line in lines))

    async def _jumps(self, family: int) -> str:
        """The jumps to our chains that are not there yet, each first in its built-in chain."""
        saved = (await self._run(_SAVE[family])).splitlines()
        lines = []
        for table, built_in, chain in _HOOKS:
            jump = f"{built_in} -j {self._own(chain)}"
            if f"-A {jump}" not in saved:
                lines += [f"*{table}", f"-I {jump.replace(' -j', ' 1 -j')}", "COMMIT"]
        return "".join(f"{line}\n" for line in lines)

    async def _collect(self, steps: Steps, revision: str) -> None:
        """Remove chains and sets of ours that nothing names any more."""
        for family, text in ((4, steps.v4), (6, steps.v6)):
            kept = set(re.findall(r"^:(\S+)", text + self._begun(family), re.MULTILINE))
            await self._remove_chains(family, kept | {self._marker(revision)})
        await self._remove_sets(set(re.findall(r"^create (\S+)", steps.before + self._quiet_sets(), re.MULTILINE)))

    async def _remove_chains(self, family: int, kept: Set[str]) -> None:
        table, stale = "", []
        for line in (await self._run(_SAVE[family])).splitlines():
            table = line if line.startswith("*") else table
            name = line[1:].split()[0] if line.startswith((f":ISP{self._tag}-", f":isp{self._tag}-")) else ""
            if name and name not in kept:
                stale.append((table, name))
        # all are emptied before any goes: they jump to each other
        for verb in (":{} - [0:0]", "-X {}"):
            text = "".join(f"{table}\n{verb.format(name)}\nCOMMIT\n" for table, name in stale)
            if text:
                await self._run(_RESTORE[family], "--noflush", "-w", "10", stdin=text)

    async def _remove_sets(self, kept: Set[str]) -> None:
        listed = (await self._run("ipset", "list", "-n")).split()
        stale = [name for name in listed if name.startswith(f"isp{self._tag}-") and name not in kept]
        if stale:
            await self._change_sets("".join(f"destroy {name}\n" for name in stale))

    async def revision(self) -> str:
        saved = await self._run(_SAVE[4], "-t", "filter")
        found = re.search(rf"^:{self._marker('')}([0-9a-f]{{16}}) ", saved, re.MULTILINE)
        return found[1] if found else ""

    async def look(self) -> Look:
        lines = []
        for family in (4, 6):
            for line in (await self._run(_SAVE[family])).splitlines():
                if f"ISP{self._tag}-" in line or f"isp{self._tag}-" in line:
                    lines.append(f"{family} {line.partition(' [')[0] if line.startswith(':') else line}")
        quiet = f"isp{self._tag}-quiet"
        ours = f" isp{self._tag}-"
        sets = [line for line in (await self._run("ipset", "save")).splitlines() if ours in line and quiet not in line]
        # the kernel's hash tables grow: what they were made with is no rule
        sets = [re.sub(r" (hashsize|bucketsize|initval|maxelem|packets|bytes) \S+", "", line) for line in sets]
        digest = hashlib.sha256("\n".join([*lines, *sorted(sets)]).encode()).hexdigest()
        if not self._digest:
            self._digest = digest
        return Look.INTACT if digest == self._digest else Look.CHANGED

    async def connections(self, addresses: Set[str]) -> Sequence[Connection]:
        return await tracked.connections(addresses)

    async def cut(self, connections: Sequence[Connection]) -> None:
        if quiet := self._hush(connections):
            await self._run("ipset", "restore", stdin=quiet)
        await tracked.cut(connections)

    def _hush(self, connections: Iterable[Connection]) -> str:
        lines = []
        for one in connections:
            if one.protocol in ("UDP", "SCTP"):
                name = f"isp{self._tag}-quiet{6 if ':' in one.source else 4}"
                port = f"{one.protocol.lower()}:{one.destination_port}"
                lines.append(f"add {name} {one.destination},{port},{one.source} -exist\n")
        return "".join(lines)

    async def counts(self) -> Mapping[tuple[str, str], int]:
        """Of both families together."""
        own, saved = (f"{PREFIX}{self._tag}-", f"{PREFIX}-"), await self._run("ipset", "save")
        found = Counter(await asyncio.to_thread(counts.of_ipset, saved, *own))
        for family in (4, 6):
            saved = await self._run(_SAVE[family], "-c", "-t", "filter")
            found.update(await asyncio.to_thread(counts.of_iptables, saved, *own))
        return found

    async def clear_if_any(self) -> None:
        """As ``clear``, on a host that may not have the tools, in which case it has no rules either."""
        try:
            for tool in ("ipset", *_RESTORE.values(), *_SAVE.values()):
                find(tool)
        except FabricFailure:
            return
        listed = await self._run("ipset", "list", "-n") + await self._run(_SAVE[4]) + await self._run(_SAVE[6])
        if re.search(rf"isp{self._tag}-", listed, re.IGNORECASE):
            await self.clear()

    async def clear(self) -> None:
        for family in (4, 6):
            text = ""
            saved = (await self._run(_SAVE[family])).splitlines()
            for table, built_in, chain in _HOOKS:
                jump = f"{built_in} -j {self._own(chain)}"
                text += f"*{table}\n-D {jump}\nCOMMIT\n" if f"-A {jump}" in saved else ""
            if text:
                await self._run(_RESTORE[family], "--noflush", "-w", "10", stdin=text)
            await self._remove_chains(family, frozenset())
        await self._remove_sets(frozenset())
        self._applied, self._digest = "", ""
