"""Keeps the engines in line with the policies: on every change, after every failure, and when somebody meddles.

One pass: ask for the rules of the moment (compiled and rendered elsewhere), load what forbids on every engine before what allows
on any, cut the connections that are now denied, and only then tell that the revision is enforced.  An engine that refuses keeps
its last good rules, and the pass is tried again.  Whether rules are still in place is looked up every few seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field

from isoplane.node.network.background import Background
from isoplane.node.network.engines.protocol import Connection, Engine, EngineFailure, Look
from isoplane.node.runtime.protocol import NetworkInterface

log = logging.getLogger(__name__)
MOST_DEBOUNCE = 1.0
FIRST_LOOK = 0.3
"""Seconds after loading at which an engine learns what its rules look like on the host, once nothing else changes."""


@dataclass(frozen=True, slots=True)
class EngineRules:
    """What one engine is to load. ``update`` leads to ``text`` from the text whose ``revision`` is ``base``."""

    text: str
    update: str | None = None
    base: str = ""

    @property
    def revision(self) -> str:
        """What the engine marks its rules with: of its own text alone, so that it changes with nothing else."""
        return revision_of(self.text)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The rules of one revision for every engine, by engine name."""

    revision: str
    """16 hexadecimal digits; the same for the same rules."""
    rules: Mapping[str, EngineRules]
    closing: Mapping[str, str] = field(default_factory=dict)
    """Whole texts that allow only what both the last revision and this one allow: loaded everywhere first.

    Empty when one engine is concerned, for there a change is atomic by itself."""
    endpoints: Mapping[str, str] | None = None
    """uid → the revision of that workload's own rules, for those that have any; the others' ports stay closed.

    None: every workload is told the revision of the whole."""
    forbids: bool = True
    """Whether anything that the last revision allowed may be denied by this one, so that connections must be looked at."""
    permits: Callable[[Connection], bool] = lambda connection: True
    """Whether a connection of a plugged-in workload may exist under these rules."""


@dataclass(frozen=True, slots=True)
class EnforcementStatus:
    """What to tell people. ``failures``: engine name → why it does not have the wanted rules."""

    revision: str
    failures: Mapping[str, str]
    drifts: int
    """How often rules were found changed by others and were put back, since the start."""
    cut: int
    """How many connections were cut because a change forbade them, since the start."""
    loaded_at: float | None = None
    """When ``revision`` was loaded on every engine, on the event loop's clock; None before the first."""


def revision_of(*texts: str) -> str:
    """A revision for rules that have no better one: 16 hexadecimal digits of their content."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


class Enforcer:
    """One node's enforcement. ``compile`` gives the rules for what is plugged in; ``interfaces`` says what that is.

    Times in seconds: ``debounce`` lets changes that come together be one, ``drift`` is the longest time for which changed rules
    stay unnoticed, ``retry`` grows from its first to its second value while an engine refuses.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        compile: Callable[[Sequence[NetworkInterface]], Awaitable[Rendered]],
        interfaces: Callable[[], Awaitable[Sequence[NetworkInterface]]],
        *,
        debounce: float = 0.005,
        drift: float = 8.0,
        retry: tuple[float, float] = (0.25, 15.0),
        on_enforced: Callable[[frozenset[str]], None] = lambda uids: None,
    ) -> None:
        self._engines, self._compile, self._interfaces = tuple(engines), compile, interfaces
        self._debounce, self._drift, self._retry = debounce, drift, retry
        self._on_enforced = on_enforced
        self._wanted, self._done = 0, 0
        self._wake = asyncio.Event()
        self._finished = asyncio.Condition()
        self._passes = Background()
        self._loaded: dict[str, tuple[str, str]] = {}
        """Engine → (revision, complete text) that it has; nothing while that is unknown."""
        self._enforced: dict[str, str] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._revision = ""
        self._loaded_at: float | None = None
        self._failures: dict[str, str] = {}
        self._drifts, self._cut = 0, 0
        self._owed = False
        """Whether connections must be looked at once the rules are loaded."""
        self._left: set[str] = set()
        """Addresses of workloads that are gone, whose connections could not be cut yet."""
        self._uncut = ""
        """Why that failed the last time."""
        self._rested = 0.0
        """When the next pass may begin: under a storm of changes a third of the time is left to others."""
        self._looked: dict[str, float] = {}
        """Engine → when its rules were looked at; nothing before the first time since they were last loaded."""

    async def start(self) -> None:
        """Close every port that no rules guard yet, then keep enforcing. EngineFailure when a tool lacks."""
        for engine in self._engines:
            await engine.start()
        self.poke()
        self._passes.start(self._run())

    async def close(self) -> None:
        """Stop; the loaded rules stay and keep working."""
        await self._passes.close()

    async def clear(self) -> None:
        """Stop and remove every rule (``isoplane down``). What cannot be reached goes with the fabric's teardown."""
        await self.close()
        for engine in self._engines:
            try:
                await engine.clear()
            except EngineFailure as failure:
                log.warning("%s: rules could not be removed one by one: %s", engine.name, failure)

    def poke(self) -> None:
        """Something changed: policies, labels, or what is plugged in."""
        self._wanted += 1
        self._wake.set()

    def reset(self) -> None:
        """The switch was started anew and is empty: load everything again."""
        self._loaded.clear()
        self._looked.clear()
        self.poke()

    def changed(self, uid: str) -> None:
        """A workload was plugged in or out."""
        self.poke()

    async def request(self) -> None:
        """Poke, and wait until a pass that began afterwards is through. Whether it succeeded, ``status`` tells."""
        self.poke()
        mine = self._wanted
        async with self._finished:
            await self._finished.wait_for(lambda: self._done >= mine)

    def enforced(self, uid: str) -> str | None:
        """The revision of the rules that guard this workload's port on every engine; None while it is closed."""
        return self._enforced.get(uid)

    @property
    def status(self) -> EnforcementStatus:
        return EnforcementStatus(self._revision, dict(self._failures), self._drifts, self._cut, self._loaded_at)

    async def _run(self) -> None:
        delay = self._retry[0]
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(delay if self._failures else self._until_look()):
                    await self._wake.wait()
            if self._wake.is_set():
                await asyncio.sleep(max(self._debounce, self._rested - asyncio.get_running_loop().time()))
            elif not self._failures:
                await self._look()
                continue
            self._wake.clear()
            target = self._wanted
            began = asyncio.get_running_loop().time()
            await self._attempt()
            ended = asyncio.get_running_loop().time()
            self._rested = ended + min((ended - began) / 2, MOST_DEBOUNCE)
            delay = min(delay * 2, self._retry[1]) if self._failures else self._retry[0]
            async with self._finished:
                self._done = target
                self._finished.notify_all()

    async def _attempt(self) -> None:
        try:
            interfaces = await self._interfaces()
            rendered = await self._compile(interfaces)
        except Exception as error:  # whatever a renderer stumbles over must not end the enforcement
            log.exception("the rules cannot be made")
            self._failures = {"compile": f"the rules cannot be made: {error}"}
            return
        if self._failures.pop("compile", None):
            log.info("the rules can be made again")
        self._owed |= rendered.forbids and rendered.revision != self._revision
        try:
            if await self._load(rendered):
                await self._settle(interfaces, rendered)
                if not self._uncut:
                    self._failures.pop("enforcer", None)
        except Exception as error:  # nor must what an engine stumbles over: whoever waits would wait for ever
            log.exception("the rules cannot be enforced")
            self._failures["enforcer"] = f"the rules cannot be enforced: {error}"

    async def _load(self, rendered: Rendered) -> bool:
        """Every engine gets what forbids before any gets what allows. False when one of them refused."""
        before = dict(self._failures)
        stale = [engine for engine in self._engines if self._text(engine) != rendered.rules[engine.name].text]
        between = [one for one in stale if one.name in rendered.closing and one.name in self._loaded]
        closed = await asyncio.gather(*(self._apply(one, EngineRules(rendered.closing[one.name])) for one in between))
        if not all(closed):
            return False
        await asyncio.gather(*(self._apply(one, rendered.rules[one.name]) for one in stale))
        for name in before.keys() - self._failures.keys():
            log.info("%s takes the rules again", name)
        return not any(one.name in self._failures for one in self._engines)

    def _text(self, engine: Engine) -> str | None:
        """What the engine has; None while that is unknown."""
        return self._loaded[engine.name][1] if engine.name in self._loaded else None

    async def _apply(self, engine: Engine, rules: EngineRules) -> bool:
        revision = rules.revision
        update = rules.update if rules.base and rules.base == self._loaded.get(engine.name, ("",))[0] else None
        try:
            await engine.apply(rules.text, revision, update)
        except EngineFailure as failure:
            if engine.name not in self._failures:
                log.error("%s keeps its last rules: %s", engine.name, failure)
            self._failures[engine.name] = str(failure)
            return False
        self._failures.pop(engine.name, None)
        self._loaded[engine.name] = (revision, rules.text)
        self._looked.pop(engine.name, None)
        return True

    async def _settle(self, interfaces: Sequence[NetworkInterface], rendered: Rendered) -> None:
        """Cut what is now denied, and what belonged to workloads that are gone; then tell."""
        addresses = {interface.uid: interface.addresses for interface in interfaces}
        ours = {one for own in addresses.values() for one in own}
        gone = {one for uid, own in self._addresses.items() for one in own if one not in addresses.get(uid, ())}
        gone |= self._left - ours
        if self._owed or gone:
            try:
                await self._cut_denied(ours, gone, rendered.permits)
                self._owed, self._uncut, gone = False, "", set()
            except EngineFailure as failure:
                self._may_live_on(str(failure))
        self._left = gone
        if self._loaded_at is None or self._revision != rendered.revision:
            self._loaded_at = asyncio.get_running_loop().time()
        self._addresses, self._revision = addresses, rendered.revision
        told = self._enforced
        own = rendered.endpoints
        self._enforced = {
            uid: rendered.revision if own is None else own[uid] for uid in addresses if own is None or uid in own
        }
        fresh = frozenset(uid for uid, revision in self._enforced.items() if told.get(uid) != revision)
        if fresh:
            self._on_enforced(fresh)

    def _may_live_on(self, why: str) -> None:
        """The rules guard every port all the same: that is told, and with it that something they deny may go on."""
        if self._uncut != why:
            log.error("connections that are denied now may live on: %s", why)
        self._owed, self._uncut = True, why
        self._failures["enforcer"] = f"connections that are denied now may live on: {why}"

    async def _cut_denied(self, ours: set[str], gone: set[str], permits: Callable[[Connection], bool]) -> None:
        def denied(one: Connection) -> bool:
            if one.source in gone or one.destination in gone:
                return True
            return (one.source in ours or one.destination in ours) and not permits(one)

        done = await asyncio.gather(
            *(self._cut_on(engine, ours | gone, denied) for engine in self._engines), return_exceptions=True
        )
        self._cut += sum(one for one in done if isinstance(one, int))
        for one in done:
            if isinstance(one, BaseException):
                raise one

    async def _cut_on(self, engine: Engine, addresses: Set[str], denied: Callable[[Connection], bool]) -> int:
        found = [one for one in await engine.connections(addresses) if denied(one)]
        if found:
            await engine.cut(found)
        return len(found)

    def _until_look(self) -> float:
        """Seconds until an engine is to be looked at: soon when it was loaded, else every ``drift``."""
        now = asyncio.get_running_loop().time()
        soon = min(self._drift, FIRST_LOOK)
        left = (
            self._looked[one.name] + self._drift - now if one.name in self._looked else soon for one in self._engines
        )
        return max(0.0, min(left, default=self._drift))

    async def _look(self) -> None:
        """Put back what others changed, on the engines whose time it is."""
        clock = asyncio.get_running_loop().time
        for engine in self._engines:
            known = self._looked.get(engine.name)
            if engine.name not in self._loaded or (known is not None and clock() < known + self._drift):
                continue
            try:
                await self._look_at(engine)
            except EngineFailure as failure:
                log.error("%s cannot be looked at: %s", engine.name, failure)
                del self._loaded[engine.name]
                self.poke()
            self._looked[engine.name] = clock()

    async def _look_at(self, engine: Engine) -> None:
        seen = await engine.look()
        if seen is Look.INTACT:
            return
        if seen is Look.CHANGED:
            log.warning("%s: the rules were changed by somebody else; putting them back", engine.name)
        await self._apply(engine, EngineRules(self._loaded[engine.name][1]))
        if seen is Look.CHANGED:
            self._drifts += 1
            self._owed = True  # what began meanwhile, or lived on, may be forbidden
            self.poke()
        # At once, so that another plane that does the same does not make this one unsure for ever.
        await engine.look()
