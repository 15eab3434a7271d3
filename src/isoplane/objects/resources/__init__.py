"""The built-in kinds, one module each: its names and verbs, defaults, rules, columns, selectable fields and strategy.

A new kind is a new module here, with one :class:`~isoplane.objects.resource.Resource`, and its schema in ``objects/schema``.
Nothing else has to be told: :data:`BUILT_IN` is what stands in this folder.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from isoplane.objects.resource import Resource


def _found() -> tuple[Resource, ...]:
    found = []
    for module in pkgutil.iter_modules(__path__):
        own = [
            value for value in vars(import_module(f"{__name__}.{module.name}")).values() if isinstance(value, Resource)
        ]
        if len(own) != 1:
            raise ImportError(f"{__name__}.{module.name} must describe one kind, not {len(own)}")
        found += own
    return tuple(sorted(found, key=lambda resource: (resource.group, resource.version, resource.plural)))


BUILT_IN: tuple[Resource, ...] = _found()
"""Every built-in kind, the core group first."""
