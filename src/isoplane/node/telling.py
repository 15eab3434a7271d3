"""Tells people, in Events, what the node does with a workload. The words are ``workload.wording``'s; the controller says when."""

from __future__ import annotations

from collections.abc import Iterable

from isoplane.node.runtime.protocol import ImageListener, ImageNews, ImageStep, RuntimeFailure
from isoplane.node.seams import Events
from isoplane.node.track import Desired, Track
from isoplane.workload import wording
from isoplane.workload.shape import Unit, UnitObserved, Verdict
from isoplane.workload.wording import Told

OOM_KILLED = "OOMKilled"


class Teller:
    """The voice of one node's workload controller."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def say(self, desired: Desired, told: Told, unit: Unit | None = None) -> None:
        """One Event about a workload, or about one of its units."""
        path = desired.adapter.wording.path(unit) if unit is not None else ""
        self._events(desired.object, told.type, told.reason, told.message, path)

    def warn(self, desired: Desired, reason: str, message: str) -> None:
        self.say(desired, Told(wording.WARNING, reason, message))

    def verdict(self, desired: Desired, verdict: Verdict) -> None:
        """Why this node ends a workload."""
        self.warn(desired, verdict.reason, verdict.message)

    def started(self, desired: Desired, unit: Unit) -> None:
        for told in desired.adapter.wording.started(unit):
            self.say(desired, told, unit)

    def stopping(self, desired: Desired, unit_name: str, why: str, track: Track, *, killed: bool) -> None:
        """A unit is asked to end, or ended: each told once an attempt, however often it is done."""
        unit = _unit(desired, unit_name)
        if unit is None:
            return
        words = desired.adapter.wording
        told = words.killed(unit, why) if killed else words.asked_to_stop(unit, why)
        known = track.stops_told.setdefault(unit_name, set())
        if told.reason not in known:
            known.add(told.reason)
            self.say(desired, told, unit)

    def ended(self, desired: Desired, seen: UnitObserved, track: Track) -> None:
        """Tell once what no exit code says: that memory ran out, that the hook of a start failed."""
        unit = _unit(desired, seen.name)
        killed = seen if seen.reason == OOM_KILLED else seen.before
        if killed is not None and killed.reason == OOM_KILLED and track.ended.get(seen.name, -1) < killed.attempt:
            track.ended[seen.name] = killed.attempt
            if seen.name in track.told:  # else it was started by an earlier process, which told it
                message = f"{seen.name} used more memory than it may, and was killed"
                self.say(desired, Told(wording.WARNING, OOM_KILLED, message), unit)
        if seen.hook_failure and track.hook_told.get(seen.name) != seen.attempt:
            track.hook_told[seen.name] = seen.attempt
            message = f"PostStartHook failed: {seen.hook_failure}"
            self.say(desired, Told(wording.WARNING, "FailedPostStartHook", message), unit)

    def images(self, desired: Desired) -> ImageListener:
        """Who hears how a workload's images come: the first unit that uses one is told of the pull, the others find it."""

        def listen(news: ImageNews) -> None:
            users = [unit for unit in desired.workload.units if unit.image == news.image]
            # An image of a volume or of a further disk is no unit's own.
            for place, unit in enumerate(users or [None]):
                match news.step:
                    case ImageStep.PULLING if place == 0:
                        self.say(desired, wording.pulling(news.image), unit)
                    case ImageStep.PULLED if place == 0:
                        told = wording.pulled(news.image, news.seconds, news.waited, news.size)
                        self.say(desired, told, unit)
                    case ImageStep.PRESENT | ImageStep.PULLED:
                        self.say(desired, wording.present(news.image), unit)

        return listen

    def failed(
        self,
        desired: Desired,
        failure: Exception,
        reason: str,
        units: Iterable[Unit],
        *,
        again: bool,
    ) -> None:
        """A step failed for ``units``; ``again``: not for the first time."""
        image = failure.image if isinstance(failure, RuntimeFailure) else ""
        if not image:
            unit = next(iter(units), None)
            self.say(desired, desired.adapter.wording.failed(reason, str(failure)), unit)
            return
        user = next((unit for unit in desired.workload.units if unit.image == image), None)
        for told in wording.not_pulled(image, reason, str(failure), again=again):
            self.say(desired, told, user)

    def backing_off(self, desired: Desired, unit_name: str, where: str) -> None:
        told = wording.backing_off(unit_name, desired.workload.resource.singular, where)
        self.say(desired, told, _unit(desired, unit_name))

    def unhealthy(self, desired: Desired, unit: Unit, kind: str, message: str) -> None:
        self.say(desired, wording.unhealthy(kind, message), unit)


def _unit(desired: Desired, name: str) -> Unit | None:
    return next((unit for unit in desired.workload.units if unit.name == name), None)
