"""A model of two leaders, an API server and everything that may go late, get lost or be stale between them.

Every action is one atomic step of one party; :meth:`World.step` takes a random one and then checks the invariants.  A rule of
the ledger can be taken out by name, to show that the model finds the interleaving that it closes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from isoplane.operator import ledger as book
from isoplane.operator.ledger import InFlight, Ledger, LedgerVictim, Limit, Reservation

RULES = (
    "write-then-act",
    "no-stale-cache",
    "one-patch-an-entry",
    "write-before-retraction",
    "write-before-giving-a-victim-up",
    "close-before-open",
    "read-before-open",
    "carry-what-is-in-flight",
    "limit-of-the-ledger",
    "wait-before-rebuilding",
)
NAMESPACES = ("a", "b")
DOMAINS = ("cohort-x", "cohort-y")
TRIES = 8
"""Random actions that a step tries until one is not idle."""
ALWAYS = ("_take_over", "_list", "_follow", "_read", "_decide", "_deliver", "create_pod", "_delete_pod", "_lead")
FOCUS: dict[str, dict[str, float]] = {
    "write-then-act": {},
    "no-stale-cache": {"_settle": 4, "_lead": 3},
    "one-patch-an-entry": {
        "_retract": 6, "_retry": 8, "_lead": 1.5, "_drop": 20, "_take_over": 4, "_read": 0.2, "_follow": 4, "_list": 4,
        "_decide": 1.5, "create_pod": 0.2, "_delete_pod": 0.2,
    },
    "write-before-retraction": {"_retract": 4, "_deliver": 0.4},
    "write-before-giving-a-victim-up": {"_reserve": 3, "_unreserve": 3, "_deliver": 0.4, "_settle": 2},
    "close-before-open": {"_change_domain": 3, "_read_config": 2, "_close": 2, "_open": 2, "_forget_move": 1},
    "read-before-open": {
        "_change_domain": 8, "_read_config": 6, "_close": 4, "_open": 4, "_forget_move": 6, "_note_move": 2, "_lead": 0.1,
        "_deliver": 3, "_decide": 0.7,
    },
    "carry-what-is-in-flight": {"_change_domain": 4, "_read_config": 2, "_close": 3, "_open": 3, "_deliver": 0.5},
    "limit-of-the-ledger": {"_change_quota": 4, "_limit": 2, "_read_config": 1},
    "wait-before-rebuilding": {"_lose_ledger": 3, "_rebuild": 5, "_limit": 5, "_deliver": 0.4},
}  # fmt: skip
"""What a run without a rule does beside what it always does: the actions in whose meeting the rule stands."""
TIME_OUT = 3
"""Ticks after which a request is dead: the lease and the request time-out together."""


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True)
class Pod:
    uid: str
    namespace: str
    version: int
    gated: bool = True


@dataclass
class Message:
    """A request under way: it is carried out late, or never."""

    run: Callable[[], None]
    expires: int


@dataclass
class Leader:
    name: str
    epoch: int = 0
    listed: bool = False
    cache: dict[str, Pod] = field(default_factory=dict)
    seen: int = 0
    """How much of the history its cache has seen."""
    revision: int = 0
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    """Its cache of the TenantQuotas."""
    domains: dict[str, str] = field(default_factory=dict)
    """Its cache of who belongs to which cohort."""
    writing: dict[str, int] = field(default_factory=dict)
    """Ledgers whose write it awaits, and until when."""
    missing_since: dict[str, int] = field(default_factory=dict)
    noted_moves: list[book.Move] = field(default_factory=list)


class World:
    def __init__(self, seed: int, without: str = "") -> None:
        assert without in ("", *RULES)
        self.random = random.Random(seed)
        self.without = without
        self.revision = 0
        self.now = 0
        self.pods: dict[str, Pod] = {}
        self.history: list[tuple[int, str, Pod | None]] = []
        self.ledgers: dict[str, Ledger] = {}
        self.quotas = dict.fromkeys(NAMESPACES, 2)
        self.domains = {namespace: f"namespace-{namespace}" for namespace in NAMESPACES}
        self.messages: list[Message] = []
        self.in_force: dict[str, int] = {}
        self.ceiling: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.ghosts: dict[str, tuple[str, int]] = {}
        """Admissions that were lost with their ledger, and until when their patches may still arrive."""
        self.excused: set[str] = set()
        """Victims of reservations that were lost with their ledger."""
        self.epochs = self.sent = 0
        self.leaders = [Leader("one"), Leader("two")]
        self.admitted = 0
        self.outside = (
            self.create_pod, self._delete_pod, self._touch_pod, self._change_quota, self._change_domain, self._tick,
            self._lose_ledger,
        )  # fmt: skip
        self.inside: dict[Callable[[Leader], None], float] = {
            self._take_over: 4, self._list: 2, self._follow: 1.5, self._read: 3, self._read_config: 0.5, self._decide: 4,
            self._settle: 2, self._resend: 1, self._retry: 1.5, self._retract: 0.7, self._reserve: 0.7,
            self._unreserve: 0.7, self._limit: 1, self._close: 1, self._note_move: 1, self._open: 2,
            self._forget_move: 1, self._rebuild: 1,
        }  # fmt: skip
        names = [action.__name__ for action in (*self.outside, self._deliver, self._drop, self._lead, *self.inside)]
        if without:
            self.bias = {name: FOCUS[without].get(name, 1.0 if name in ALWAYS else 0.0) for name in names}
        else:
            # Every run favours some actions and leaves others out, so that rare meetings become common in some runs.
            self.bias = {name: self.random.choice((0, 0.3, 1, 1, 4)) for name in names}
            self.bias |= {name: max(0.3, self.bias[name]) for name in ALWAYS}
            self.bias["_lose_ledger"] *= 0.2
        for _ in range(8):
            self.create_pod()
        self._found()

    def _found(self) -> None:
        """A quiet start: the first leader leads, its ledgers are there."""
        first = self.leaders[0]
        self._lead(first)
        first = self.leaders[0]
        while len(self.ledgers) < 4:
            self._take_over(first)
            while self.messages:
                self.messages.pop().run()
        for namespace, hard in self.quotas.items():
            home = self.ledgers[f"namespace-{namespace}"]
            self._swap(book.set_limits(home, [Limit(namespace, "quota", 0, {"pods": hard})]))
        first.ledgers = dict(self.ledgers)
        self._list(first)

    # the API server

    def _write_pod(self, uid: str, pod: Pod | None) -> int:
        self.revision += 1
        if pod is None:
            del self.pods[uid]
        else:
            pod = replace(pod, version=self.revision)
            self.pods[uid] = pod
        self.history.append((self.revision, uid, pod))
        return self.revision

    def create_pod(self) -> None:
        uid = f"pod-{self.revision + 1}"
        self._write_pod(uid, Pod(uid, self.random.choice(NAMESPACES), 0))

    def _ungate(self, uid: str, version: int) -> None:
        pod = self.pods.get(uid)
        if pod is not None and pod.gated and pod.version == version:
            self._write_pod(uid, replace(pod, gated=False))
            self.admitted += 1

    def _evict(self, uid: str, version: int) -> None:
        pod = self.pods.get(uid)
        if pod is None or pod.version != version:
            return
        wanted = any(v.uid == uid for stored in self._reservations() for v in stored.victims)
        if not wanted and uid not in self.excused:
            raise Violation(f"{uid} is evicted for a reservation that was given up")
        self._write_pod(uid, None)

    def _reservations(self) -> list[Reservation]:
        found = [r for stored in self.ledgers.values() for r in stored.reservations.values()]
        return found + [r for s in self.ledgers.values() for m in s.moves.values() for r in m.reservations]

    def _swap(self, new: Ledger) -> Ledger | None:
        """Compare and swap; None when somebody else wrote."""
        old = self.ledgers.get(new.name)
        if (old.version if old is not None else "") != new.version:
            return None
        self.revision += 1
        stored = replace(new, version=str(self.revision))
        self.ledgers[new.name] = stored
        for limit in stored.limits:
            hard = limit.hard["pods"]
            if self.in_force.get(limit.namespace) != hard:
                self.in_force[limit.namespace] = hard
                self.ceiling[limit.namespace] = max(hard, self._committed(limit.namespace))
        return stored

    def _running(self, namespace: str) -> int:
        return sum(pod.namespace == namespace and not pod.gated for pod in self.pods.values())

    def _committed(self, namespace: str) -> int:
        """What runs, and what may still come to run by what is written."""
        running = {pod.uid for pod in self.pods.values() if pod.namespace == namespace and not pod.gated}
        for stored in self.ledgers.values():
            running |= {e.uid for e in stored.in_flight.values() if e.namespace == namespace and e.uid in self.pods}
            for move in stored.moves.values():
                running |= {e.uid for e in move.in_flight if e.namespace == namespace and e.uid in self.pods}
        ghosts = {uid for uid, (where, until) in self.ghosts.items() if where == namespace and until >= self.now}
        return len(running | (ghosts & self.pods.keys()))

    def check(self) -> None:
        for namespace, hard in self.in_force.items():
            running = self._running(namespace)
            ceiling = max(hard, min(self.ceiling[namespace], self._committed(namespace)))
            if running > max(hard, self.ceiling[namespace]):
                raise Violation(f"{running} run in {namespace}, {hard} may")
            self.ceiling[namespace] = ceiling

    # one step

    def step(self) -> None:
        leader = self.random.choice(self.leaders)
        choices = [(action, 0.1 * self.bias[action.__name__]) for action in self.outside]
        choices += [(self._deliver, 2.5 * self.bias["_deliver"]), (self._drop, 0.1 * self.bias["_drop"])]
        choices += [((lambda: self._lead(leader)), 0.15 * self.bias["_lead"])]
        if leader.epoch:
            for act, weight in self.inside.items():
                choices.append(((lambda act=act: act(leader)), weight * self.bias[act.__name__]))  # type: ignore[misc]
        for _ in range(TRIES):
            before = self._counter()
            (action,) = self.random.choices([c for c, _ in choices], [w for _, w in choices])
            action()
            if self._counter() != before:
                break
        self.check()

    def _counter(self) -> tuple[int, ...]:
        """What changes when an action was not idle."""
        return (self.sent, self.revision, self.now, self.epochs, *(leader.seen for leader in self.leaders))

    # what happens outside

    def _delete_pod(self) -> None:
        if self.pods:
            self._write_pod(self.random.choice(sorted(self.pods)), None)

    def _touch_pod(self) -> None:
        if self.pods:
            uid = self.random.choice(sorted(self.pods))
            self._write_pod(uid, self.pods[uid])

    def _change_quota(self) -> None:
        self.quotas[self.random.choice(NAMESPACES)] = self.random.choice((1, 2, 3))

    def _change_domain(self) -> None:
        namespace = self.random.choice(NAMESPACES)
        self.domains[namespace] = self.random.choice((f"namespace-{namespace}", *DOMAINS))

    def _tick(self) -> None:
        self.now += 1
        self.messages = [message for message in self.messages if message.expires >= self.now]

    def _lose_ledger(self) -> None:
        if self.ledgers:
            name = self.random.choice(sorted(self.ledgers))
            if not self.ledgers[name].moves:
                lost = self.ledgers[name].in_flight.values()
                self.ghosts |= {entry.uid: (entry.namespace, self.now + TIME_OUT) for entry in lost}
                self.excused |= {v.uid for r in self.ledgers[name].reservations.values() for v in r.victims}
                del self.ledgers[name]
                self.lost[name] = self.now

    # messages

    def _send(self, run: Callable[[], None]) -> None:
        self.sent += 1
        self.messages.append(Message(run, self.now + TIME_OUT))

    def _deliver(self) -> None:
        if self.messages:
            self.messages.pop(self.random.randrange(len(self.messages))).run()

    def _drop(self) -> None:
        if self.messages:
            self.messages.pop(self.random.randrange(len(self.messages)))

    def _write(self, leader: Leader, new: Ledger, then: Callable[[Ledger], None] = lambda stored: None) -> None:
        """A compare-and-swap under way; its answer may be lost, and the leader then has an old copy."""

        if leader.writing.get(new.name, -1) >= self.now:
            return  # it awaits the answer to another write of this ledger
        leader.writing[new.name] = self.now + TIME_OUT

        def run() -> None:
            stored = self._swap(new)
            leader.writing.pop(new.name, None)
            if stored is None:
                leader.ledgers.pop(new.name, None)
            elif self.random.random() < 0.85:
                leader.ledgers[new.name] = stored
                then(stored)

        self._send(run)

    # leaders

    def _lead(self, leader: Leader) -> None:
        self.epochs += 1
        fresh = Leader(leader.name, self.epochs, limits=dict(self.quotas), domains=dict(self.domains))
        self.leaders[self.leaders.index(leader)] = fresh

    def _take_over(self, leader: Leader) -> None:
        for stored in self.ledgers.values():
            if stored.epoch < leader.epoch:
                self._write(leader, book.take_over(stored, leader.epoch, leader.name))
                return
        homes = [f"namespace-{namespace}" for namespace in NAMESPACES]
        known = {n for stored in self.ledgers.values() for n in (*stored.namespaces, *stored.moves)}
        for name in [*homes, *DOMAINS]:
            if name not in self.ledgers and name not in self.lost:
                fresh = Ledger(name, epoch=leader.epoch, leader=leader.name)
                if name in homes and (namespace := name.partition("-")[2]) not in known:
                    fresh = book.first_open(fresh, namespace)
                self._write(leader, fresh)
                return

    def _list(self, leader: Leader) -> None:
        all_taken = all(s.epoch >= leader.epoch for s in self.ledgers.values())
        if leader.listed or not (all_taken or "no-stale-cache" in self.without):
            return
        self._relist(leader)

    def _relist(self, leader: Leader) -> None:
        leader.cache, leader.seen, leader.revision = dict(self.pods), len(self.history), self.revision
        leader.listed = True

    def _follow(self, leader: Leader) -> None:
        if leader.listed and leader.seen < len(self.history):
            revision, uid, pod = self.history[leader.seen]
            leader.seen, leader.revision = leader.seen + 1, revision
            if pod is None:
                leader.cache.pop(uid, None)
            else:
                leader.cache[uid] = pod

    def _read(self, leader: Leader) -> None:
        if self.ledgers:
            name = self.random.choice(sorted(self.ledgers))
            leader.ledgers[name] = self.ledgers[name]
        for name in set(self.lost) - self.ledgers.keys():
            leader.ledgers.pop(name, None)

    def _read_config(self, leader: Leader) -> None:
        leader.limits, leader.domains = dict(self.quotas), dict(self.domains)

    def _mine(self, leader: Leader) -> list[Ledger]:
        """The copies on which a leader may decide."""
        revision = 1 << 60 if "no-stale-cache" in self.without else leader.revision
        ready = [s for s in leader.ledgers.values() if book.may_decide(s, leader.epoch, leader.name, revision)]
        return ready if leader.listed else []

    def _pick(self, leader: Leader) -> Ledger | None:
        mine = self._mine(leader)
        busy = [stored for stored in mine if stored.namespaces or stored.in_flight]
        return self.random.choice(busy or mine) if mine else None

    def _hard(self, leader: Leader, stored: Ledger, namespace: str) -> int:
        if "limit-of-the-ledger" in self.without:
            return leader.limits[namespace]
        return sum(limit.hard["pods"] for limit in stored.hard(namespace))

    def _decide(self, leader: Leader) -> None:
        stored = self._pick(leader)
        if stored is None:
            return
        for namespace in stored.namespaces:
            running = {p.uid for p in leader.cache.values() if p.namespace == namespace and not p.gated}
            running |= {e.uid for e in stored.in_flight.values() if e.namespace == namespace}
            room = self._hard(leader, stored, namespace) - len(running)
            waiting = [p for p in leader.cache.values() if p.namespace == namespace and p.uid not in running]
            self.random.shuffle(waiting)
            for pod in waiting[: max(0, room)]:
                entry = InFlight(pod.uid, namespace, pod.uid, pod.version)
                if "write-then-act" in self.without:
                    self._patch(entry)
                self._write(leader, book.admit(stored, [entry]), lambda _, entry=entry: self._patch(entry))  # type: ignore[misc]
                return

    def _patch(self, entry: InFlight) -> None:
        self._send(lambda: self._ungate(entry.uid, entry.version))

    def _resend(self, leader: Leader) -> None:
        if (stored := self._pick(leader)) is not None:
            for entry in stored.in_flight.values():
                self._patch(entry)

    def _settle(self, leader: Leader) -> None:
        for stored in self._mine(leader):
            seen = {}
            for uid in stored.in_flight:
                pod = leader.cache.get(uid)
                if pod is None or not pod.gated:
                    seen[uid] = leader.revision if pod is None else pod.version
            if seen:
                self._write(leader, book.landed(stored, seen))
                return

    def _retry(self, leader: Leader) -> None:
        for stored in self._mine(leader):
            for entry in stored.in_flight.values():
                pod = leader.cache.get(entry.uid)
                if pod is not None and pod.gated and pod.version > entry.version:
                    again = replace(entry, version=pod.version)
                    if "one-patch-an-entry" in self.without:
                        self._patch(again)
                    else:
                        changed = book.retried(stored, entry.uid, pod.version)
                        self._write(leader, changed, lambda _, again=again: self._patch(again))  # type: ignore[misc]
                    return

    def _retract(self, leader: Leader) -> None:
        stored = self._pick(leader)
        if stored is None or not stored.in_flight:
            return
        entry = self.random.choice(sorted(stored.in_flight.values(), key=lambda e: e.uid))
        pod = leader.cache.get(entry.uid)
        if pod is None or not pod.gated:
            return
        if "write-before-retraction" in self.without:
            self._write(leader, book.landed(stored, {entry.uid: leader.revision}))
            return

        def written() -> None:
            there = self.pods.get(entry.uid)
            if there is not None and there.gated and there.version == pod.version:
                revision = self._write_pod(entry.uid, there)
                self._write(leader, book.retracted(stored, entry.uid, revision))

        self._send(written)

    def _reserve(self, leader: Leader) -> None:
        stored = self._pick(leader)
        if stored is None:
            return
        pods = [p for p in leader.cache.values() if p.namespace in stored.namespaces]
        waiting = [p for p in pods if p.gated and p.uid not in {*stored.in_flight, *stored.reservations}]
        running = [p for p in pods if not p.gated]
        if waiting and running:
            victim = self.random.choice(running)
            who = self.random.choice(waiting)
            place = Reservation(
                who.uid, who.namespace, who.uid, (LedgerVictim(victim.uid, victim.uid, victim.version),)
            )
            delete = lambda: self._evict(victim.uid, victim.version)  # noqa: E731
            self._write(leader, book.reserve(stored, place), lambda _: self._send(delete))

    def _unreserve(self, leader: Leader) -> None:
        stored = self._pick(leader)
        if stored is None or not stored.reservations:
            return
        place = self.random.choice(sorted(stored.reservations.values(), key=lambda r: r.uid))
        if "write-before-giving-a-victim-up" in self.without:
            self._write(leader, book.unreserve(stored, place.uid, {}))
            return

        def written() -> None:
            revisions = {}
            for victim in place.victims:
                if (pod := self.pods.get(victim.uid)) is not None:
                    revisions[victim.uid] = self._write_pod(victim.uid, pod)
            self._write(leader, book.unreserve(stored, place.uid, revisions))

        self._send(written)

    def _limit(self, leader: Leader) -> None:
        stored = self._pick(leader)
        if stored is not None and stored.namespaces:
            limits = [Limit(n, "quota", 0, {"pods": leader.limits[n]}) for n in stored.namespaces]
            if (new := book.set_limits(stored, limits)) != stored:
                self._write(leader, new)

    # moving between domains

    def _close(self, leader: Leader) -> None:
        for stored in self._mine(leader):
            for namespace in stored.namespaces:
                to = leader.domains[namespace]
                if to == stored.name:
                    continue
                closed = book.close(stored, namespace, to)
                move = closed.moves[namespace]
                if "carry-what-is-in-flight" in self.without:
                    move = replace(move, in_flight=())
                    closed = replace(closed, moves={**closed.moves, namespace: move})
                if "close-before-open" in self.without and to in leader.ledgers:
                    self._write(leader, self._opened(leader, leader.ledgers[to], move))
                self._write(leader, closed)
                return

    def _opened(self, leader: Leader, target: Ledger, move: book.Move) -> Ledger:
        opened = book.open_moved(target, move)
        if opened is target:
            return target
        limits = {limit.namespace: limit for limit in opened.limits}
        limits[move.namespace] = Limit(move.namespace, "quota", 0, {"pods": leader.limits[move.namespace]})
        return book.set_limits(opened, limits.values())

    def _note_move(self, leader: Leader) -> None:
        """A leader sees a move, and is slow to act on it."""
        leader.noted_moves += [move for stored in leader.ledgers.values() for move in stored.moves.values()]

    def _open(self, leader: Leader) -> None:
        if "read-before-open" in self.without:
            moves = self.random.sample(leader.noted_moves, len(leader.noted_moves))
            targets = {name: s for name, s in self.ledgers.items() if s.epoch == leader.epoch}
        else:
            targets = {stored.name: stored for stored in self._mine(leader)}
            moves = [
                move for stored in self.ledgers.values() for move in stored.moves.values()
            ]  # read after the target
        for move in moves:
            if move.to in targets:
                target = targets[move.to]
                opened = self._opened(leader, target, move)
                if opened is not target:
                    self._write(leader, opened)
                    return

    def _forget_move(self, leader: Leader) -> None:
        for stored in self._mine(leader):
            for move in stored.moves.values():
                target = self.ledgers.get(move.to)
                if target is None:
                    continue
                onward = target.moves.get(move.namespace)
                known = target.namespaces.get(move.namespace, onward.generation if onward is not None else -1)
                if known >= move.generation:
                    self._write(leader, book.moved(stored, move))
                    return

    # a lost ledger

    def _rebuild(self, leader: Leader) -> None:
        for name in self.lost:
            if name in self.ledgers:
                continue
            since = leader.missing_since.setdefault(name, self.now)
            if self.now - since <= TIME_OUT and "wait-before-rebuilding" not in self.without:
                continue
            self._relist(leader)
            elsewhere = {n for s in self.ledgers.values() for n in (*s.namespaces, *s.moves)}
            homeless = [n for n in NAMESPACES if n not in elsewhere and name == f"namespace-{n}"]
            fresh = Ledger(name, epoch=leader.epoch, leader=leader.name, namespaces=dict.fromkeys(homeless, 0))
            if self._swap(fresh) is not None:
                leader.missing_since.pop(name)
                return
