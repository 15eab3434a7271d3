"""Documents that are made seldom: version, aggregated discovery, OpenAPI. The served kinds may change while the plane runs."""

from __future__ import annotations

import platform
from collections.abc import Callable

import orjson

from isoplane.objects import openapi
from isoplane.objects.scheme import Scheme
from isoplane.server.endpoints import discovery, openapi_v2

KUBERNETES = (1, 33)
"""The Kubernetes minor version whose API is served; clients choose their behaviour by it."""
KEPT = 8
"""Documents in memory: clients fetch one once and cache it by its hash."""


class Documents:
    """Built on first use, then served as bytes. ``release`` is isoplane's own version."""

    def __init__(self, release: str, scheme: Scheme) -> None:
        self.scheme = scheme
        self._generation = scheme.generation
        self._made: dict[tuple[object, ...], bytes] = {}
        major, minor = KUBERNETES
        self.version = orjson.dumps(
            {
                "major": str(major),
                "minor": str(minor),
                "gitVersion": f"v{major}.{minor}.0+isoplane-{release}",
                "gitCommit": "",
                "gitTreeState": "clean",
                "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": f"python{platform.python_version()}",
                "compiler": platform.python_implementation().lower(),
                "platform": f"linux/{'arm64' if platform.machine() == 'aarch64' else 'amd64'}",
            }
        )

    def aggregated(self, *, core: bool) -> bytes:
        """Discovery in its aggregated form, of ``/api`` (core) or ``/apis``."""
        return self._kept(("discovery", core), lambda: orjson.dumps(discovery.aggregated(self.scheme, core=core)))

    def openapi_index(self) -> bytes:
        return self._kept(("openapi",), lambda: openapi.index(self.scheme))

    def openapi_v2(self) -> bytes:
        return self._kept(("openapi v2",), lambda: openapi_v2.document(self.scheme))

    def openapi(self, group: str, version: str) -> bytes:
        """The OpenAPI v3 document of one group-version. Raises NotFound when it is not served."""
        return self._kept(("openapi", group, version), lambda: openapi.document(self.scheme, group, version))

    def _kept(self, what: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        """The document as it was made last, unless the served kinds have changed since."""
        if self._generation != self.scheme.generation:
            self._made.clear()
            self._generation = self.scheme.generation
        found = self._made.pop(what, None) or make()
        self._made[what] = found
        if len(self._made) > KEPT:
            del self._made[next(iter(self._made))]
        return found
