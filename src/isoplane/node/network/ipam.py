"""Which address a workload gets: the choice (pure) and its record (SQLite), so that none is ever given out twice.

A lease belongs to a workload's uid and survives restarts of the plane.  A released address rests in quarantine, so that what
still remembers its old owner (a connection, a rule not yet withdrawn) does not meet a new one.  The choice goes round the
range instead of back to its start, which puts the longest possible time between two owners of one address.  Leases say
nothing about links: whether those exist is the fabric's business.
"""

from __future__ import annotations

import ipaddress
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path

from isoplane.node.formats import ADDRESSES_NUMBER
from isoplane.node.network.ipv6 import Network6, interface_address
from isoplane.node.network.protocol import FabricFailure
from isoplane.node.network.settings import Ranges, Wiring
from isoplane.workload.shape import InterfaceType

RESERVED_AT_START = 2
"""The network's own address and the gateway."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (
  uid TEXT PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, wiring TEXT NOT NULL,
  number INTEGER NOT NULL, six INTEGER NOT NULL DEFAULT 0, UNIQUE (wiring, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS resting (
  wiring TEXT NOT NULL, number INTEGER NOT NULL, until REAL NOT NULL, PRIMARY KEY (wiring, number)) WITHOUT ROWID;
"""


def choose(first: int, last: int, taken: Callable[[int], bool], after: int) -> int | None:
    """The next free number in [first, last] after ``after``, round and round; None when every one is taken."""
    start = after + 1 if first <= after + 1 <= last else first
    numbers = chain(range(start, last + 1), range(first, start))
    return next((number for number in numbers if not taken(number)), None)


def mac_of(address: str) -> str:
    """A locally administered MAC that names its IPv4 address, as CNI plugins make it: 0a:58 and the four bytes."""
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


@dataclass(frozen=True, slots=True)
class Lease:
    """An address that belongs to a workload. ``number`` counts from the start of its wiring's range."""

    uid: str
    namespace: str
    name: str
    type: InterfaceType
    wiring: Wiring
    number: int
    network: ipaddress.IPv4Network
    network6: Network6 | None = None
    """A /64; None for a workload without an IPv6 address."""

    @property
    def address(self) -> str:
        return str(self.network[self.number])

    @property
    def address6(self) -> str:
        """'' for a workload without."""
        return interface_address(self.network6, self.mac) if self.network6 else ""

    @property
    def mac(self) -> str:
        return mac_of(self.address)

    @property
    def port_number(self) -> int:
        """OpenFlow port and conntrack zone at once; known before the port exists. 0 for routed endpoints."""
        return self.number if self.wiring is Wiring.BRIDGED else 0


class Ipam:
    """The record of one node. Thread-safe. ``clock`` gives POSIX seconds."""

    def __init__(self, path: Path, quarantine: float = 60, clock: Callable[[], float] = time.time) -> None:
        self._path, self._quarantine, self._clock = path, quarantine, clock
        self._lock = threading.RLock()
        self._ranges: Mapping[Wiring, ipaddress.IPv4Network] = {}
        self._ranges6: Mapping[Wiring, Network6] = {}
        self._leases: dict[str, Lease] = {}
        self._leased: dict[Wiring, set[int]] = {wiring: set() for wiring in Wiring}
        self._resting: dict[Wiring, dict[int, float]] = {wiring: {} for wiring in Wiring}
        """Number → when it may be given out again, the soonest first."""
        self._cursor = dict.fromkeys(Wiring, 0)
        self._connection: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the record, or make one. FabricFailure when it is unreadable or damaged. Fine when it is open."""
        if self._connection is not None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            opened = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            # A killed process loses nothing in WAL mode; a lost power supply takes the links away along with the leases.
            opened.execute("PRAGMA journal_mode=WAL")
            opened.execute("PRAGMA synchronous=NORMAL")
            (number,) = opened.execute("PRAGMA user_version").fetchone()
            if number > ADDRESSES_NUMBER:
                opened.close()
                raise FabricFailure(
                    f"the record of addresses {self._path} has format {number}, this version reads {ADDRESSES_NUMBER}: "
                    "run the version that wrote it"
                )
            opened.executescript(_SCHEMA)
            if "six" not in {row[1] for row in opened.execute("PRAGMA table_info(lease)")}:  # format 1
                opened.execute("ALTER TABLE lease ADD COLUMN six INTEGER NOT NULL DEFAULT 0")
            opened.execute(f"PRAGMA user_version={ADDRESSES_NUMBER}")
        except OSError as error:
            raise FabricFailure(f"the record of addresses {self._path} cannot be opened: {error}") from error
        except sqlite3.Error as error:
            raise FabricFailure(
                f"the record of addresses {self._path} cannot be opened: {error}; if it is damaged, run `isoplane down` "
                "(which stops the workloads), remove it and start again"
            ) from error
        self._connection = opened

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise FabricFailure(f"the record of addresses {self._path} is not open")
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def range(self) -> str:
        """The node's range as remembered; '' before one was settled."""
        return self._setting("range")

    @property
    def range6(self) -> str:
        """The node's IPv6 range as remembered, also while it is not in use; '' before there was one."""
        return self._setting("range6")

    def _setting(self, key: str) -> str:
        row = self._db.execute("SELECT value FROM setting WHERE key=?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def settle(self, ranges: Ranges) -> None:
        """Use this range from now on. FabricFailure when leases of another range are in use."""
        with self._lock:
            previous = self.range
            self._settle_six(ranges)
            rows = self._db.execute("SELECT uid, namespace, name, kind, wiring, number, six FROM lease").fetchall()
            if previous and previous != str(ranges.whole) and rows:
                raise FabricFailure(
                    f"the range {ranges.whole} is asked for, but {len(rows)} workloads have addresses of {previous}: "
                    "delete them first, or keep the range"
                )
            self._db.execute("INSERT OR REPLACE INTO setting VALUES ('range', ?)", (str(ranges.whole),))
            self._ranges = ranges.by_wiring()
            if previous and previous != str(ranges.whole):
                self._db.execute("DELETE FROM resting")
            self._load(rows)

    def _settle_six(self, ranges: Ranges) -> None:
        """A lease has an IPv6 address for life, or none; without a range all lose theirs and do not get it back."""
        six, previous = ranges.six, self.range6
        self._ranges6 = {Wiring.ROUTED: six.routed, Wiring.BRIDGED: six.bridged} if six else {}
        if six is None:
            self._db.execute("UPDATE lease SET six=0")
            return
        (used,) = self._db.execute("SELECT count(*) FROM lease WHERE six=1").fetchone()
        if previous and previous != str(six.whole) and used:
            raise FabricFailure(
                f"the range {six.whole} is asked for, but {used} workloads have addresses of {previous}: "
                "delete them first, or keep the range"
            )
        self._db.execute("INSERT OR REPLACE INTO setting VALUES ('range6', ?)", (str(six.whole),))

    def _load(self, rows: Sequence[tuple[str, str, str, str, str, int, int]]) -> None:
        self._leased = {wiring: set() for wiring in Wiring}
        self._resting = {wiring: {} for wiring in Wiring}
        for wiring, number, until in self._db.execute("SELECT wiring, number, until FROM resting ORDER BY until"):
            self._resting[Wiring(wiring)][number] = until
        self._leases = {}
        for uid, namespace, name, kind, wiring_text, number, six in rows:
            wiring = Wiring(wiring_text)
            network6 = self._ranges6.get(wiring) if six else None
            self._leases[uid] = Lease(
                uid, namespace, name, InterfaceType(kind), wiring, number, self._ranges[wiring], network6
            )
            self._leased[wiring].add(number)
        self._cursor = {wiring: max((*self._leased[wiring], *self._resting[wiring]), default=0) for wiring in Wiring}

    def _is_taken(self, wiring: Wiring) -> Callable[[int], bool]:
        leased, resting, now = self._leased[wiring], self._resting[wiring], self._clock()
        for number in [*takewhile(lambda one: resting[one] <= now, resting)]:
            del resting[number]
        return lambda number: number in leased or number in resting

    def lease(self, uid: str, namespace: str, name: str, type: InterfaceType, wiring: Wiring) -> Lease:
        """The workload's lease, made durable before it is told. FabricFailure when the range is used up."""
        with self._lock:
            if known := self._leases.get(uid):
                return known
            network = self._ranges[wiring]
            last = network.num_addresses - 2
            number = choose(RESERVED_AT_START, last, self._is_taken(wiring), self._cursor[wiring])
            if number is None:
                resting = len(self._resting[wiring])
                raise FabricFailure(
                    f"no free address in {network} for {namespace}/{name}: {last - 1 - resting} in use, {resting} released "
                    "a moment ago and resting; delete workloads or configure a larger range"
                )
            network6 = self._ranges6.get(wiring)
            made = Lease(uid, namespace, name, type, wiring, number, network, network6)
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("DELETE FROM resting WHERE wiring=? AND number=?", (wiring.value, number))
                row = (uid, namespace, name, type.value, wiring.value, number, int(network6 is not None))
                self._db.execute("INSERT INTO lease VALUES (?,?,?,?,?,?,?)", row)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise FabricFailure(
                    f"the address of {namespace}/{name} could not be recorded in {self._path}: {error}"
                ) from error
            self._leases[uid] = made
            self._leased[wiring].add(number)
            self._cursor[wiring] = number
            return made

    def _undo(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def release(self, uid: str) -> None:
        """Give an address back, to rest before its next owner. Unknown uids are fine."""
        with self._lock:
            lease = self._leases.get(uid)
            if lease is None:
                return
            until = self._clock() + self._quarantine
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute("DELETE FROM lease WHERE uid=?", (uid,))
                self._db.execute(
                    "INSERT OR REPLACE INTO resting VALUES (?,?,?)", (lease.wiring.value, lease.number, until)
                )
                self._db.execute("DELETE FROM resting WHERE until<=?", (self._clock(),))
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                raise FabricFailure(
                    f"the address {lease.address} could not be released in {self._path}: {error}"
                ) from error
            del self._leases[uid]
            self._leased[lease.wiring].discard(lease.number)
            self._resting[lease.wiring][lease.number] = until

    def get(self, uid: str) -> Lease | None:
        return self._leases.get(uid)

    def leases(self) -> Sequence[Lease]:
        with self._lock:
            return tuple(self._leases.values())
