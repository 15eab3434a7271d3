"""Small makers of ledger states, shared by the quota tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.quota.ledger import Ledger
from isoplane.quota.model import Ask, Charge, Policy, Quota


def charge(uid: str, tenant: str = "a", priority: int = 0, **amounts: int) -> Charge:
    """``cpu=500`` stands for requests.cpu, ``mem`` for requests.memory, ``pods`` for pods."""
    names = {"cpu": "requests.cpu", "mem": "requests.memory"}
    return Charge(
        uid=uid,
        id=f"pod/{tenant}/{uid}",
        tenant=tenant,
        amounts={names.get(k, k): v for k, v in amounts.items()},
        priority=priority,
        scopes=frozenset({"NotTerminating", "NotBestEffort"}),
    )


def ask(
    uid: str, tenant: str = "a", priority: int = 0, *, fields: Mapping[str, Any] | None = None, **amounts: int
) -> Ask:
    return Ask(charge(uid, tenant, priority, **amounts), **(fields or {}))


def ledger(hard: Mapping[str, int], threshold: int | None = None, **policy: Any) -> Ledger:
    """One tenant ``a`` with one quota ``q``."""
    made = Ledger()
    made.set_quotas("a", [Quota("q", dict(hard))])
    if threshold is not None or policy:
        made.set_policy("a", Policy(threshold=threshold, **policy))
    return made
