"""Manifests that set one field of each kind that used to be ignored: nothing that they say is silent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES, Resource
from isoplane.objects.validation import unknown_fields, validate
from isoplane.workload.fields import machine, pod
from isoplane.workload.fields.table import Honoured, expand
from isoplane.workload.machine_offer import KNOWN
from isoplane.workload.registry import adapter_for

CASES = Path(__file__).parents[2] / "cases"


def leaves(value: Any, path: str) -> Iterator[str]:
    """Each place that the manifest sets: an empty map may ask for something by being there, an empty list does not."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from leaves(inner, f"{path}[{name}]" if "/" in name else f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path


def covered(path: str, by: set[str]) -> bool:
    return any(path == one or path.startswith((f"{one}.", f"{one}[")) for one in by)


@pytest.mark.parametrize(
    ("resource", "name", "honoured"),
    [(PODS, "silent-pod.yaml", pod.HONOURED), (VIRTUALMACHINEINSTANCES, "silent-vmi.yaml", machine.HONOURED)],
    ids=["Pod", "VirtualMachineInstance"],
)
def test_each_field_is_honoured_warned_of_or_refused(resource: Resource, name: str, honoured: Honoured) -> None:
    obj = yaml.safe_load((CASES / name).read_text())
    assert unknown_fields(resource, obj) == []
    adapter = adapter_for(resource)
    assert adapter is not None
    refused = {path for path, _ in adapter.impossible(obj, KNOWN)} | {cause.field for cause in validate(resource, obj)}
    warned = {line.partition(": ")[0] for line in adapter.ineffective(obj)}
    works = {path for patterns in honoured.values() for path in expand(patterns)}
    silent = [
        leaf
        for leaf in leaves({key: obj[key] for key in ("metadata", "spec")}, "")
        if leaf != "metadata.name" and not covered(leaf, refused | warned) and not honours(works, leaf)
    ]
    assert silent == []
    assert refused
    assert warned


def honours(works: set[str], leaf: str) -> bool:
    """The tables say of a map with names of the user's own (resources) that it counts as a whole."""
    written = re.sub(r"\[\d+\]", "[]", leaf)
    above, _, _ = written.rpartition(".")
    return written in works or f"{above}[]" in works or any(one.startswith(written) for one in works)
