"""The form in which a kind is described: everything that the plane has to know of it, in one value.

``objects/resources`` has one module a built-in kind; a custom resource is made of its definition while the plane runs.  What
discovery, routing, OpenAPI, storage, validation, tables, garbage collection and quota's counts do with a kind is read from
here, through the :class:`~isoplane.objects.scheme.Scheme` that they are handed.  Functions of objects only: what needs the
store is an admission plug-in of the server, what acts on the kind is a controller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from isoplane.objects.columns.printer import PLAIN, Printer
from isoplane.objects.metadata import Object
from isoplane.objects.rules.report import Report
from isoplane.objects.schema.kind import Schema
from isoplane.objects.schema.sources import Definition

STANDARD_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
READ_VERBS = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Subresource:
    """What stands below an object. ``kind`` is that of its body, of the resource's own group unless ``group`` is given."""

    kind: str
    verbs: tuple[str, ...] = ("update",)
    group: str | None = None
    version: str = ""


def status_of(kind: str) -> dict[str, Subresource]:
    """The subresource ``status``, which most kinds have that somebody works on."""
    return {"status": Subresource(kind, ("get", "patch", "update"))}


@dataclass(frozen=True, slots=True)
class Selectable:
    """A field that lists and watches can be narrowed by (``--field-selector``). Not deeper than two steps."""

    path: str
    at: str = ""
    """Where its value stands, when not at ``path``."""
    absent: str = ""
    """The text of a value that is not there: ``false`` of a boolean."""
    indexed: bool = False
    """Whether it is selective enough to keep a map from value to objects."""


def _nothing(obj: Object) -> None:
    """A kind of which nothing has to be filled in."""


def _correct(obj: dict[str, Any], report: Report) -> None:
    """A kind whose schema says everything."""


def _anything(obj: dict[str, Any], old: dict[str, Any], report: Report) -> None:
    """A kind of which everything may change."""


def _all_written(old: Object, new: Object) -> None:
    """A kind whose author writes everything but its status."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a schema cannot say: ``check`` takes the object; ``check_update`` the new and the old one.

    Both run on objects whose types are right and note what is wrong in the report.
    """

    check: Callable[[dict[str, Any], Report], None] = _correct
    check_update: Callable[[dict[str, Any], dict[str, Any], Report], None] = _anything
    of: tuple[str, ...] = ()
    """The fields that alone decide ``check``: it gets nothing else, and what they hold is checked once, however many have it."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How the server treats the objects of a kind in their life. All hooks change the object they are given, and nothing else."""

    generation: bool = False
    """Whether changes of the spec are counted."""
    initial_status: Mapping[str, Any] | None = None
    """The status of a new object. None: as its author wrote it."""
    node: tuple[str, str] | None = None
    """Where the node's name stands. Such objects are deleted gracefully: the node confirms with grace 0."""
    returns_deleted: bool = False
    """Whether a deletion answers with the object rather than with a Status."""
    undeletable: frozenset[str] = frozenset()
    """Names of objects that nobody may delete."""
    prepare: Callable[[Object], None] = _nothing
    """Fill in what is the server's to give to a new object."""
    keep: Callable[[Object, Object], None] = _all_written
    """(old, new): take from the old object what an ordinary update does not write."""
    marked: Callable[[Object], None] = _nothing
    """An object is told to go."""
    own_finalizers: tuple[str, str] | None = None
    """Where finalizers stand beside those of the metadata."""


@dataclass(frozen=True)
class Resource:
    """One served kind. Two are equal when they are served at the same place.

    ``group`` is '' for core; ``subresources`` are by name.
    """

    group: str
    version: str
    plural: str
    kind: str = field(compare=False)
    namespaced: bool = field(default=True, compare=False)
    short_names: tuple[str, ...] = field(default=(), compare=False)
    categories: tuple[str, ...] = field(default=(), compare=False)
    subresources: Mapping[str, Subresource] = field(default_factory=dict, compare=False)
    verbs: tuple[str, ...] = field(default=STANDARD_VERBS, compare=False)

    computed: bool = field(default=False, compare=False)
    """Whether it has no rows in the store: its objects are derived on every read."""
    announced: bool = field(default=False, compare=False)
    """Whether clients look for it and it is not served yet: its list is empty, and who writes one is told so."""
    custom: bool = field(default=False, compare=False)
    """Whether clients know it as a custom resource: merge patch instead of strategic merge patch."""
    makes_workloads: bool = field(default=False, compare=False)
    """Whether its objects own workloads that they make, which then wait for quota rather than being refused."""
    carried_out: bool = field(default=False, compare=False)
    """Whether strings of its spec end on the host, in a command line, a file's name or an environment."""
    action_group: str = field(default="", compare=False)
    """The group in which clients look for its subresources, where that is another one."""
    collected: bool = field(default=True, compare=False)
    """Whether its objects own or are owned. Events are neither: they go by age, or with their namespace."""
    counted_as: str = field(default="", compare=False)
    """The bare name by which a quota may count its objects, beside ``count/…``."""

    default: Callable[[dict[str, Any]], None] = field(default=_nothing, compare=False, repr=False)
    """Fill in, in place, what the author left out; runs before validation and trusts no type."""
    rules: Rules = field(default=Rules(), compare=False, repr=False)
    strategy: Strategy = field(default=Strategy(), compare=False, repr=False)
    printer: Printer = field(default=PLAIN, compare=False, repr=False)
    selectable: tuple[Selectable, ...] = field(default=(), compare=False)
    """Beyond metadata.name and metadata.namespace."""
    definitions: Mapping[str, Definition] = field(default_factory=dict, compare=False, repr=False)
    """Its schema (OpenAPI v3 components, with x-kubernetes-group-version-kind), where ``objects/schema`` has none."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def qualified(self) -> str:
        """``pods`` or ``virtualmachines.kubevirt.io``, as errors and quotas name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def list_kind(self) -> str:
        return self.kind + "List"

    @cached_property
    def schema(self) -> Schema:
        """What its objects look like. Its properties raise LookupError for a kind without a schema."""
        return Schema(self.group, self.version, self.kind, self.definitions)

    @cached_property
    def selected(self) -> tuple[tuple[str, str, str], ...]:
        """(section, field or '', the text of an absent value) of each selectable field, in their order."""
        split = ((field.at or field.path).partition(".") for field in self.selectable)
        return tuple(
            (section, below, field.absent) for (section, _, below), field in zip(split, self.selectable, strict=True)
        )
