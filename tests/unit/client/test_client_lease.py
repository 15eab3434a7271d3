"""Leases on injected clocks: never two at once, and nobody trusts another machine's clock."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.client.lease import LeaseLock
from isoplane.objects.errors import AlreadyExists, Conflict, NotFound, Unavailable
from isoplane.objects.kinds import Resource


class OneLease:
    """An Api that holds one object, with optimistic concurrency, and can be cut off for some clients."""

    def __init__(self) -> None:
        self.stored: dict[str, Any] | None = None
        self.version = 0
        self.down = False

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]:
        if self.down:
            raise Unavailable("down")
        if self.stored is None:
            raise NotFound("no lease")
        return copy.deepcopy(self.stored)

    async def create(self, resource: Resource, obj: dict[str, Any], **_: Any) -> dict[str, Any]:
        if self.stored is not None:
            raise AlreadyExists("there")
        return self._store(obj)

    async def update(self, resource: Resource, obj: dict[str, Any], **_: Any) -> dict[str, Any]:
        if self.down:
            raise Unavailable("down")
        assert self.stored is not None
        if obj["metadata"]["resourceVersion"] != self.stored["metadata"]["resourceVersion"]:
            raise Conflict("changed")
        return self._store(obj)

    def _store(self, obj: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.stored = copy.deepcopy(obj)
        self.stored["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.stored)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def candidate(api: OneLease, name: str, clock: Clock, skew: float = 0.0) -> LeaseLock:
    return LeaseLock(api, "kube-system", "plane", name, clock=lambda: clock.now + skew, monotonic=clock)  # type: ignore[arg-type]


async def test_the_first_holds_and_the_second_waits_until_it_ends() -> None:
    api, clock = OneLease(), Clock()
    one, two = candidate(api, "one", clock), candidate(api, "two", clock, skew=-5000)
    assert await one.attempt()
    assert not await two.attempt()
    clock.now += 9
    assert not await two.attempt()
    clock.now += 7
    assert not one.holding
    assert await two.attempt()
    assert not await one.attempt()
    assert api.stored is not None
    assert api.stored["spec"]["leaseTransitions"] == 1


async def test_a_renewed_lease_is_not_taken() -> None:
    api, clock = OneLease(), Clock()
    one, two = candidate(api, "one", clock), candidate(api, "two", clock)
    for _ in range(20):
        assert await one.attempt()
        assert not await two.attempt()
        clock.now += 4


async def test_who_cannot_renew_gives_up_before_another_may_take_over() -> None:
    api, clock = OneLease(), Clock()
    one, two = candidate(api, "one", clock), candidate(api, "two", clock)
    assert await one.attempt()
    assert not await two.attempt()
    clock.now += 10.5
    api.down = True
    assert not await one.attempt()
    api.down = False
    assert not await two.attempt()


async def test_a_released_lease_is_free_soon() -> None:
    api, clock = OneLease(), Clock()
    one, two = candidate(api, "one", clock), candidate(api, "two", clock)
    assert await one.attempt()
    await one.release()
    assert not one.holding
    assert await two.attempt()


def test_durations_that_could_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="two candidates"):
        LeaseLock(OneLease(), "n", "l", "me", duration=5, renew_deadline=10)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 8), st.booleans()), max_size=60))
async def test_never_two_at_once(steps: list[tuple[int, float, bool]]) -> None:
    api, clock = OneLease(), Clock()
    candidates = [candidate(api, name, clock, skew) for name, skew in (("a", 0), ("b", 900), ("c", -900))]
    for who, passes, down in steps:
        clock.now += passes
        api.down = down and api.stored is not None
        await candidates[who].attempt()
        assert sum(c.holding for c in candidates) <= 1
