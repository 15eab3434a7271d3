"""Label and field selectors compiled against records: what lists and watches ask of every candidate."""

from __future__ import annotations

from dataclasses import dataclass

from isoplane.objects.errors import BadRequest
from isoplane.objects.kinds import Resource
from isoplane.objects.selectors import EVERYTHING, FieldSelector, Selector, parse, parse_fields
from isoplane.store.fields import position
from isoplane.store.record import Record

_NAME, _NAMESPACE = -1, -2
Term = tuple[int, bool, str]
"""(place in ``Record.fields``, or -1 name, -2 namespace; wanted equal?; value)."""


@dataclass(frozen=True, slots=True)
class Filter:
    """A conjunction of a label selector and field terms; hashable, so that equal watches share one evaluation."""

    labels: Selector = EVERYTHING
    terms: tuple[Term, ...] = ()

    @property
    def everything(self) -> bool:
        return not self.terms and not self.labels.requirements and not self.labels.nothing

    def matches(self, record: Record) -> bool:
        for place, equal, value in self.terms:
            if (field_value(record, place) == value) is not equal:
                return False
        return self.labels.matches(record.labels)

    @property
    def handle(self) -> tuple[int, str] | None:
        """The first equality term, by which the filter can be found from a record instead of tested against it."""
        return next(((place, value) for place, equal, value in self.terms if equal), None)

    @property
    def only_name(self) -> str | None:
        """The one name that can match, when the filter says so."""
        return next((value for place, equal, value in self.terms if equal and place == _NAME), None)


ALL = Filter()


def field_value(record: Record, place: int) -> str:
    if place >= 0:
        return record.fields[place]
    return record.name if place == _NAME else record.namespace


def compile_filter(resource: Resource, label_selector: str = "", field_selector: str = "") -> Filter:
    """The filter of two selector texts. Raises BadRequest when one cannot be read or a field is not selectable."""
    if not label_selector and not field_selector:
        return ALL
    try:
        labels = parse(label_selector) if label_selector else EVERYTHING
        fields = parse_fields(field_selector) if field_selector else FieldSelector()
    except ValueError as error:
        raise BadRequest(str(error)) from error
    return Filter(labels, tuple(_term(resource, ".".join(path), equal, value) for path, equal, value in fields.terms))


def _term(resource: Resource, path: str, equal: bool, value: str) -> Term:
    if path == "metadata.name":
        return (_NAME, equal, value)
    if path == "metadata.namespace":
        return (_NAMESPACE, equal, value)
    place = position(resource, path)
    if place is None:
        raise BadRequest(f'"{path}" is not a known field selector: field label not supported: {path}')
    return (place, equal, value)
