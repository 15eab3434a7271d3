"""The ledger of a capacity domain: what one leader has decided and may still happen. Values and their changes, without I/O.

A domain is a namespace, or the cohort it belongs to; its ledger is one ``QuotaLedger`` that changes by compare-and-swap only.
Admitted = the ungated live workloads that a leader sees + those in flight here.  The rules, each with what it closes:

    write, then act           a gate comes off by a patch that carries the uid and the resourceVersion written here: of two
                              leaders that decide at once, one fails to write
    no stale cache            dropping an admission from flight records the revision at which its Pod was seen ungated
                              (``pods_revision``); nobody decides before its cache of Pods has reached it, and a new leader
                              writes its epoch before it lists: else a cache that still shows the Pod gated gives its place away
    one patch an entry        the patch carries the version in the entry; trying again with a newer one needs a new write here:
                              else a leader that sleeps could act on an admission that was taken back
    no retraction of what     an admission stays in flight until its Pod is ungated or gone, or until whoever takes it back has
    may still happen          written that Pod, so that an older patch fails
    victims likewise          a deletion carries uid and version of its entry; giving a victim up writes the victim first
    one domain at a time      a namespace is closed in one ledger, with what is in flight there, before it is opened in another
    the limit that binds      is the one in the ledger: it is changed by a write, and decisions are made for the limits written
    a lost ledger             is made again only after nobody can have a patch under way: lease + request time-out

Revisions are compared as numbers, which Kubernetes promises for one resource of one server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

Amounts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class InFlight:
    """An admission that was written, and whose gate comes off by a patch with this very version of the Pod."""

    uid: str
    namespace: str
    name: str
    version: int
    amounts: Amounts = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class LedgerVictim:
    """A Pod or VMI that leaves for a reservation: it is deleted at this very version, or not at all."""

    uid: str
    id: str
    version: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room that is kept for a waiting workload while its victims leave. Times in POSIX seconds."""

    uid: str
    namespace: str
    name: str
    victims: tuple[LedgerVictim, ...] = ()
    since: float = 0
    expires: float = 0
    plans: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """The hard limits of one TenantQuota as they are in force, and of which generation of it."""

    namespace: str
    quota: str
    generation: int
    hard: Amounts = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Move:
    """A namespace that was closed here and is on its way to another domain, with what is in flight."""

    namespace: str
    to: str
    generation: int
    pods_revision: int = 0
    in_flight: tuple[InFlight, ...] = ()
    reservations: tuple[Reservation, ...] = ()


@dataclass(frozen=True, slots=True)
class Ledger:
    """One domain's ledger. ``version``: of the stored object, '' before it is stored."""

    name: str
    version: str = ""
    epoch: int = 0
    leader: str = ""
    pods_revision: int = 0
    in_flight: Mapping[str, InFlight] = field(default_factory=dict, hash=False)
    reservations: Mapping[str, Reservation] = field(default_factory=dict, hash=False)
    limits: tuple[Limit, ...] = ()
    namespaces: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Namespaces decided here → how often each has moved."""
    moves: Mapping[str, Move] = field(default_factory=dict, hash=False)

    def hard(self, namespace: str) -> tuple[Limit, ...]:
        """The limits in force in a namespace."""
        return tuple(limit for limit in self.limits if limit.namespace == namespace)


class Deposed(Exception):
    """Another leader has written a higher epoch: whoever sees this stops deciding."""


def take_over(ledger: Ledger, epoch: int, leader: str) -> Ledger:
    """The ledger of a new leader: to be written before it lists the Pods. Raises Deposed."""
    if epoch < ledger.epoch or (epoch == ledger.epoch and leader != ledger.leader):
        raise Deposed(f"{ledger.leader} leads with epoch {ledger.epoch}")
    return replace(ledger, epoch=epoch, leader=leader)


def may_decide(ledger: Ledger, epoch: int, leader: str, cache_revision: int) -> bool:
    """Whether a leader whose cache of Pods is at ``cache_revision`` may decide on this ledger."""
    return (ledger.epoch, ledger.leader) == (epoch, leader) and cache_revision >= ledger.pods_revision


def admit(ledger: Ledger, admissions: Iterable[InFlight]) -> Ledger:
    """Put admissions in flight: their gates come off once this is stored. A reservation is ended apart (:func:`unreserve`)."""
    new = {admission.uid: admission for admission in admissions}
    if foreign := {a.namespace for a in new.values()} - ledger.namespaces.keys():
        raise ValueError(f"ledger {ledger.name}: {sorted(foreign)} are not decided here")
    return replace(ledger, in_flight={**ledger.in_flight, **new})


def landed(ledger: Ledger, seen: Mapping[str, int]) -> Ledger:
    """Drop admissions whose Pods were seen ungated, or gone, at these revisions (uid → revision)."""
    done = {uid: revision for uid, revision in seen.items() if uid in ledger.in_flight}
    if not done:
        return ledger
    return replace(
        ledger,
        in_flight={uid: entry for uid, entry in ledger.in_flight.items() if uid not in done},
        pods_revision=max(ledger.pods_revision, *done.values()),
    )


def retried(ledger: Ledger, uid: str, version: int) -> Ledger:
    """An admission whose patch met a newer Pod: the next one carries ``version``, once this is stored."""
    entry = ledger.in_flight[uid]
    return replace(ledger, in_flight={**ledger.in_flight, uid: replace(entry, version=version)})


def retracted(ledger: Ledger, uid: str, written: int) -> Ledger:
    """Take an admission back, after its Pod was written at revision ``written``, so that no older patch can succeed."""
    entry = ledger.in_flight[uid]
    if written <= entry.version:
        raise ValueError(f"Pod {entry.namespace}/{entry.name} was not written since its admission at {entry.version}")
    return landed(ledger, {uid: written})


def reserve(ledger: Ledger, reservation: Reservation) -> Ledger:
    """Keep room for a waiting workload. Its victims are deleted once this is stored."""
    if reservation.namespace not in ledger.namespaces:
        raise ValueError(f"ledger {ledger.name}: {reservation.namespace} is not decided here")
    return replace(ledger, reservations={**ledger.reservations, reservation.uid: reservation})


def unreserve(ledger: Ledger, uid: str, written: Mapping[str, int]) -> Ledger:
    """End a reservation. Its victims that still run were written at these revisions (uid → revision), or are gone."""
    reservation = ledger.reservations[uid]
    for victim in reservation.victims:
        if victim.uid in written and written[victim.uid] <= victim.version:
            raise ValueError(f"{victim.id} was not written since it was chosen at {victim.version}")
    return replace(ledger, reservations={key: r for key, r in ledger.reservations.items() if key != uid})


def set_limits(ledger: Ledger, limits: Iterable[Limit]) -> Ledger:
    """Put limits in force: in the order of their names, so that equal limits are equal ledgers."""
    return replace(ledger, limits=tuple(sorted(limits, key=lambda limit: (limit.namespace, limit.quota))))


def first_open(ledger: Ledger, namespace: str) -> Ledger:
    """Decide a namespace here that was decided nowhere: only in the namespace's own ledger, when that is created."""
    if ledger.version:
        raise ValueError(f"ledger {ledger.name} exists: namespace {namespace} is opened by a move only")
    return replace(ledger, namespaces={**ledger.namespaces, namespace: 0})


def reopened(ledger: Ledger, namespace: str) -> Ledger:
    """Decide a namespace again that no ledger knows: the one it had moved to is lost, and nothing can be under way any more."""
    return replace(ledger, namespaces={**ledger.namespaces, namespace: ledger.namespaces.get(namespace, 0)})


def dropped(ledger: Ledger, namespace: str) -> Ledger:
    """Forget a namespace that is under quota no longer."""
    return replace(
        ledger,
        namespaces={name: number for name, number in ledger.namespaces.items() if name != namespace},
        in_flight={uid: a for uid, a in ledger.in_flight.items() if a.namespace != namespace},
        reservations={uid: r for uid, r in ledger.reservations.items() if r.namespace != namespace},
        limits=tuple(limit for limit in ledger.limits if limit.namespace != namespace),
    )


def close(ledger: Ledger, namespace: str, to: str) -> Ledger:
    """Decide a namespace here no longer; what is in flight waits in the move for the ledger ``to``."""
    generation = ledger.namespaces[namespace] + 1
    move = Move(
        namespace,
        to,
        generation,
        ledger.pods_revision,
        tuple(a for a in ledger.in_flight.values() if a.namespace == namespace),
        tuple(r for r in ledger.reservations.values() if r.namespace == namespace),
    )
    return replace(dropped(ledger, namespace), moves={**ledger.moves, namespace: move})


def open_moved(ledger: Ledger, move: Move) -> Ledger:
    """Decide a namespace here from now on. ``ledger`` must have been read before the move was seen in the other one.

    Opening what is open already, or what has moved on since, changes nothing.
    """
    onward = ledger.moves.get(move.namespace)
    known = ledger.namespaces.get(move.namespace, onward.generation if onward is not None else -1)
    if move.to != ledger.name:
        raise ValueError(f"ledger {ledger.name}: {move.namespace} moves to {move.to}")
    if known >= move.generation:
        return ledger
    return replace(
        ledger,
        namespaces={**ledger.namespaces, move.namespace: move.generation},
        in_flight={**ledger.in_flight, **{a.uid: a for a in move.in_flight}},
        reservations={**ledger.reservations, **{r.uid: r for r in move.reservations}},
        pods_revision=max(ledger.pods_revision, move.pods_revision),
        moves={name: other for name, other in ledger.moves.items() if name != move.namespace},
    )


def moved(ledger: Ledger, move: Move) -> Ledger:
    """Forget a move that has arrived."""
    if ledger.moves.get(move.namespace) != move:
        return ledger
    return replace(ledger, moves={name: other for name, other in ledger.moves.items() if name != move.namespace})
