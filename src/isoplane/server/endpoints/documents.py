"""Documents that are made once: version, aggregated discovery, OpenAPI v3."""

from __future__ import annotations

import platform
from functools import cached_property, lru_cache

import orjson

from isoplane.objects import openapi
from isoplane.server.endpoints import discovery

KUBERNETES = (1, 33)
"""The Kubernetes minor version whose API is served; clients choose their behaviour by it."""


class Documents:
    """Built on first use, then served as bytes. ``release`` is isoplane's own version."""

    def __init__(self, release: str) -> None:
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

    @cached_property
    def _aggregated(self) -> dict[bool, bytes]:
        return {core: orjson.dumps(discovery.aggregated(core=core)) for core in (True, False)}

    def aggregated(self, *, core: bool) -> bytes:
        return self._aggregated[core]

    @cached_property
    def openapi_index(self) -> bytes:
        return openapi.index()

    def openapi(self, group: str, version: str) -> bytes:
        """The OpenAPI v3 document of one group-version. Raises NotFound when it is not served."""
        return _openapi(group, version)


@lru_cache(maxsize=4)
def _openapi(group: str, version: str) -> bytes:
    """Kept for a few groups only: clients fetch a document once and cache it by its hash."""
    return openapi.document(group, version)
