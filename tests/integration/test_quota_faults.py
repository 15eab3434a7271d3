"""A fault in one namespace's write stays there: amounts beyond 64 bits, a throw at every step, trail and Events that fail."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isoplane.objects.errors import ApiError, InsufficientStorage, Invalid, QuotaExceeded
from isoplane.objects.kinds import NAMESPACES, PODS, QUOTAPOLICIES, RESOURCEQUOTAS, VIRTUALMACHINEINSTANCES
from isoplane.quota.audit import Entry
from isoplane.server.quota_admission import rows
from isoplane.server.quota_admission.accounts import RowAccounts
from isoplane.server.quota_admission.session import Session
from quota_plane_support import QuotaPlane, pod, quota_plane


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[QuotaPlane]:
    async with quota_plane(tmp_path) as made:
        await made.priority("high", 1000)
        await made.tenant("a", {"cpu": "1"}, evictionThreshold=500)
        await made.tenant("b", {"cpu": "1"})
        yield made


@pytest.mark.parametrize(
    ("resource", "quantity"), [("cpu", "9E"), ("cpu", "9223372036854775808m"), ("memory", "8Ei"), ("cpu", "1e30")]
)
async def test_an_amount_beyond_64_bits_is_refused_with_its_path(
    plane: QuotaPlane, resource: str, quantity: str
) -> None:
    with pytest.raises(Invalid, match=r"spec\.containers\[0\]\.resources\.\w+(\[\w+\])?"):
        await plane.pod("huge", **{"cpu": "100m", resource: quantity})
    await plane.pod("next", cpu="100m")
    await plane.pod("other", "b")


@pytest.mark.parametrize("field", ["guaranteed", "borrowingLimit", "lendingLimit"])
async def test_so_is_one_of_a_policy_and_of_a_quota(plane: QuotaPlane, field: str) -> None:
    with pytest.raises(Invalid, match="64 bits"):
        await plane.api.create(
            QUOTAPOLICIES, {"metadata": {"name": "default", "namespace": "b"}, "spec": {field: {"cpu": "9E"}}}
        )
    with pytest.raises(Invalid, match="64 bits"):
        await plane.quota("b", {"cpu": "9E"}, "q2")


async def test_sums_beyond_64_bits_are_kept_exactly(plane: QuotaPlane) -> None:
    """Each amount fits; what they add up to does not. No limit names memory, and yet it is counted."""
    for number in range(3):
        await plane.pod(f"p{number}", cpu="10m", memory="7Ei")
    with pytest.raises(QuotaExceeded):
        await plane.pod("more", cpu="2", memory="7Ei")
    total = plane.accounts().whole("a").used["requests.memory"]
    assert total == 3 * 7 * 2**60 > 2**64
    await plane.api.delete(PODS, "p0", "a", grace_seconds=0)
    assert plane.accounts().whole("a").used["requests.memory"] == 2 * 7 * 2**60
    await plane.pod("other", "b")


async def test_a_refusal_whose_entry_cannot_be_written_stops_nobody(
    plane: QuotaPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = Entry.to_dict

    def fails(entry: Entry) -> dict[str, Any]:
        if entry.tenant == "a":
            raise ValueError("this line cannot be written")
        return original(entry)

    monkeypatch.setattr(Entry, "to_dict", fails)
    with pytest.raises(QuotaExceeded):
        await plane.pod("huge", cpu="2")
    await plane.pod("other", "b")
    await plane.pod("next", cpu="100m")
    assert "was dropped" in caplog.text
    told = [rows.decode_entry(row)["workload"] for row in plane.store.state.rows(rows.AUDIT).values()]
    assert told == ["pod/b/other"]


async def test_an_event_that_cannot_be_written_stops_nobody(
    plane: QuotaPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("this event cannot be written")

    monkeypatch.setattr(Session, "_write_event", fails)
    await plane.pod("low", cpu="1")
    await plane.pod("high", cpu="1", priority="high")
    assert (await plane.api.get(PODS, "low", "a"))["metadata"].get("deletionTimestamp")
    assert "the Event" in caplog.text


class Faults:
    """Throws at one step of a transaction's quota work: at the n-th call of any method of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.thrown = False
        for owner in (Session, RowAccounts):
            for name, method in [(n, m) for c in reversed(owner.__mro__) for n, m in vars(c).items()]:
                if callable(method) and not name.startswith("__"):
                    monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        if isinstance(method, type):
            return method

        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.left is not None:
                self.left -= 1
                if self.left == 0:
                    self.left, self.thrown = None, True
                    raise RuntimeError("a fault")
            return method(*args, **kwargs)

        return counted

    @contextlib.contextmanager
    def at(self, step: int) -> Iterator[None]:
        self.left, self.thrown = step, False
        try:
            yield
        finally:
            self.left = None


async def test_a_throw_at_every_step_stays_in_its_own_write(
    plane: QuotaPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A create that preempts, and a deletion that releases somebody: whatever throws, everybody else's writes go on."""
    caplog.set_level(logging.CRITICAL)
    faults = Faults(monkeypatch)
    monkeypatch.setattr(Session, "_event", Session.__mro__[1]._event)  # Events have a test of their own
    step = 0
    while True:
        step += 1
        await plane.pod("low", cpu="1")
        thrown = False
        with faults.at(step), contextlib.suppress(ApiError, RuntimeError):
            await plane.api.create(PODS, pod("high", "a", cpu="1", priority="high"))
        thrown |= faults.thrown
        await plane.vmi("other", "b", run=False)
        with faults.at(step), contextlib.suppress(ApiError, RuntimeError):
            await plane.api.delete(PODS, "low", "a", grace_seconds=0)
        thrown |= faults.thrown
        await plane.api.delete(VIRTUALMACHINEINSTANCES, "other", "b", grace_seconds=0)
        for resource in (PODS, VIRTUALMACHINEINSTANCES):
            for obj in (await plane.api.list(resource, "a")).items:
                await plane.api.delete(resource, obj["metadata"]["name"], "a", grace_seconds=0)
        for tenant in ("a", "b"):
            accounts = plane.accounts()
            assert not list(accounts.charges(tenant)), step
            assert not list(accounts.waiting(tenant)), step
            assert (await plane.used(tenant))["cpu"] == "0", step
        if not thrown:
            break
    assert step > 50, "the transaction has many steps; were they counted?"


async def test_somebody_who_cannot_be_released_does_not_fail_the_write_that_made_room(
    plane: QuotaPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await plane.api.create(NAMESPACES, {"metadata": {"name": "c"}})
    await plane.pod("low", cpu="1")
    await plane.pod("high", cpu="1", priority="high", bind=False)

    def fails(*_: object) -> None:
        raise ValueError("this object cannot be written")

    monkeypatch.setattr(Session, "_write_gate", fails)
    await plane.api.delete(PODS, "low", "a", grace_seconds=0)
    assert (await plane.api.get(PODS, "high", "a"))["spec"].get("schedulingGates")
    assert "could not be released" in caplog.text
    monkeypatch.undo()
    quota = await plane.api.get(RESOURCEQUOTAS, "q", "a")
    quota["spec"]["hard"]["cpu"] = "2"
    await plane.api.update(RESOURCEQUOTAS, quota)
    assert not (await plane.api.get(PODS, "high", "a"))["spec"].get("schedulingGates")


def test_rows_hold_sums_of_any_size() -> None:
    entry = Entry(1.0, "refuse", "pod/a/x", "u", "a", "exceeded", short={"quota/q cpu": 10**30})
    assert rows.decode_entry(rows.encode_entry(7, entry)) == {"n": 7, **entry.to_dict()}


async def test_a_wake_up_that_always_fails_ends(
    plane: QuotaPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A reservation has ended, so that its namespace is woken; whoever comes in there cannot be written at all."""
    await plane.pod("low", cpu="1")
    await plane.pod("high", cpu="1", priority="high", bind=False)
    plane.now += 200

    def fails(*_: object) -> None:
        raise InsufficientStorage("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Session, "_write_gate", fails)
        await plane.pod("small", "b", cpu="1")
        await plane.api.patch(PODS, "low", "a", {"metadata": {"labels": {"x": "y"}}})
        await plane.quota("a", {"cpu": "2"}, "q2")
    assert caplog.text.count("waking who waits in a") == 1
    assert [w.charge.id for w in plane.accounts().waiting("a")] == ["pod/a/high"]
