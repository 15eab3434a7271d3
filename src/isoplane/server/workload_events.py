"""Events of a Workload are those of the object it shows: a selector that names the one is read as one that names the other.

So `kubectl describe workload` tells them, which asks for the Events whose involvedObject is what it describes.
"""

from __future__ import annotations

from dataclasses import replace

from isoplane.http.request_options import ListOptions
from isoplane.objects.kinds import EVENTS, WORKLOADS, Resource
from isoplane.objects.selectors import parse_fields
from isoplane.workload.registry import workload_resources

_KIND, _NAME, _VERSION = (("involvedObject", field) for field in ("kind", "name", "apiVersion"))


def translated(resource: Resource, options: ListOptions) -> ListOptions:
    """The options of a list or watch, naming what the named Workload shows; all others as they are."""
    if resource is not EVENTS or WORKLOADS.kind not in options.field_selector:
        return options
    try:
        terms = parse_fields(options.field_selector).terms
    except ValueError:
        return options  # whoever reads it next says what is wrong
    if (_KIND, True, WORKLOADS.kind) not in terms:
        return options
    name = next((value for path, equal, value in terms if equal and path == _NAME), "")
    prefix, _, source = name.partition(".")
    shown = next((r for r in workload_resources() if prefix == (r.short_names[0] if r.custom else r.singular)), None)
    if shown is None:
        return options
    new: dict[tuple[str, ...], str] = {_KIND: shown.kind, _NAME: source, _VERSION: shown.api_version}
    told = [(path, equal, new.get(path, value) if equal else value) for path, equal, value in terms]
    selector = ",".join(f"{'.'.join(path)}{'=' if equal else '!='}{value}" for path, equal, value in told)
    return replace(options, field_selector=selector)
