"""A ledger as the ``QuotaLedger`` object that is stored, and back. Says how many bytes one may have, and nothing of rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from isoplane.objects import metadata
from isoplane.objects.metadata import Object
from isoplane.operator.kinds import QUOTALEDGERS
from isoplane.operator.ledger import InFlight, Ledger, LedgerVictim, Limit, Move, Reservation
from isoplane.operator.names import PART_OF

MAX_BYTES = 256 * 1024
"""Of one ledger: a batch is cut so that it fits."""


class UnreadableLedger(ValueError):
    """A QuotaLedger that somebody edited into something else."""


def encode(ledger: Ledger) -> Object:
    """The object to write; with a resourceVersion where the ledger was read, so that the write compares and swaps."""
    meta: dict[str, Any] = {"name": ledger.name, "labels": dict(PART_OF)}
    if ledger.version:
        meta["resourceVersion"] = ledger.version
    spec = {
        "epoch": ledger.epoch,
        "leader": ledger.leader,
        "podsRevision": ledger.pods_revision,
        "namespaces": [{"name": name, "generation": number} for name, number in sorted(ledger.namespaces.items())],
        "limits": [_limit(limit) for limit in ledger.limits],
        "admissions": [_admission(entry) for entry in ledger.in_flight.values()],
        "reservations": [_reservation(entry) for entry in ledger.reservations.values()],
        "moves": [_move(move) for move in ledger.moves.values()],
    }
    return {"apiVersion": QUOTALEDGERS.api_version, "kind": QUOTALEDGERS.kind, "metadata": meta, "spec": spec}


def size(ledger: Ledger) -> int:
    """Bytes of the object."""
    return len(orjson.dumps(encode(ledger)))


def decode(obj: Mapping[str, Any]) -> Ledger:
    """Raises UnreadableLedger."""
    spec = obj.get("spec") or {}
    name = metadata.name(obj)
    try:
        return Ledger(
            name=name,
            version=str(obj["metadata"]["resourceVersion"]),
            epoch=int(spec["epoch"]),
            leader=str(spec["leader"]),
            pods_revision=int(spec["podsRevision"]),
            in_flight={a.uid: a for a in map(_to_admission, spec.get("admissions") or ())},
            reservations={r.uid: r for r in map(_to_reservation, spec.get("reservations") or ())},
            limits=tuple(
                Limit(e["namespace"], e["quota"], int(e["generation"]), _amounts(e)) for e in spec.get("limits") or ()
            ),
            namespaces={e["name"]: int(e["generation"]) for e in spec.get("namespaces") or ()},
            moves={m.namespace: m for m in map(_to_move, spec.get("moves") or ())},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnreadableLedger(f"QuotaLedger {name}: spec: {type(error).__name__}: {error}") from error


def _limit(limit: Limit) -> Object:
    return {
        "namespace": limit.namespace, "quota": limit.quota, "generation": limit.generation, "hard": dict(limit.hard),
    }  # fmt: skip


def _admission(entry: InFlight) -> Object:
    return {
        "uid": entry.uid, "namespace": entry.namespace, "name": entry.name, "version": entry.version,
        "amounts": dict(entry.amounts),
    }  # fmt: skip


def _reservation(entry: Reservation) -> Object:
    victims = [{"uid": v.uid, "id": v.id, "version": v.version} for v in entry.victims]
    return {
        "uid": entry.uid, "namespace": entry.namespace, "name": entry.name, "victims": victims,
        "since": metadata.rfc3339(entry.since, micro=True), "expires": metadata.rfc3339(entry.expires, micro=True),
        "plans": entry.plans,
    }  # fmt: skip


def _move(move: Move) -> Object:
    return {
        "namespace": move.namespace, "to": move.to, "generation": move.generation, "podsRevision": move.pods_revision,
        "admissions": [_admission(a) for a in move.in_flight],
        "reservations": [_reservation(r) for r in move.reservations],
    }  # fmt: skip


def _amounts(entry: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(value) for name, value in (entry.get("hard") or entry.get("amounts") or {}).items()}


def _to_admission(entry: Mapping[str, Any]) -> InFlight:
    return InFlight(entry["uid"], entry["namespace"], entry["name"], int(entry["version"]), _amounts(entry))


def _to_reservation(entry: Mapping[str, Any]) -> Reservation:
    victims = tuple(LedgerVictim(v["uid"], v["id"], int(v["version"])) for v in entry.get("victims") or ())
    since, expires = metadata.posix(entry.get("since")) or 0.0, metadata.posix(entry.get("expires")) or 0.0
    return Reservation(
        entry["uid"], entry["namespace"], entry["name"], victims, since, expires, int(entry.get("plans") or 0)
    )


def _to_move(entry: Mapping[str, Any]) -> Move:
    return Move(
        entry["namespace"],
        entry["to"],
        int(entry["generation"]),
        int(entry["podsRevision"]),
        tuple(map(_to_admission, entry.get("admissions") or ())),
        tuple(map(_to_reservation, entry.get("reservations") or ())),
    )
