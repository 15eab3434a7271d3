"""What a client wants back (Accept) and whether we have it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from isoplane.objects.errors import NotAcceptable

META_GROUP = "meta.k8s.io"
DISCOVERY_GROUP = "apidiscovery.k8s.io"


@dataclass(frozen=True, slots=True)
class Media:
    """One acceptable representation. ``shape`` is '' for the object itself, else Table, PartialObjectMetadata,
    PartialObjectMetadataList or APIGroupDiscoveryList, in ``version`` of its group."""

    shape: str = ""
    version: str = ""


PLAIN = Media()
_SHAPES = {
    ("Table", META_GROUP, "v1"),
    ("Table", META_GROUP, "v1beta1"),
    ("PartialObjectMetadata", META_GROUP, "v1"),
    ("PartialObjectMetadataList", META_GROUP, "v1"),
    ("APIGroupDiscoveryList", DISCOVERY_GROUP, "v2"),
}
_JSON = ("application/json", "application/*", "*/*")


@lru_cache(maxsize=512)
def accepted(header: str) -> Media:
    """The first representation in preference order that we serve. Raises NotAcceptable when there is none."""
    if not header:
        return PLAIN
    for media in _ordered(header):
        kind, parameters = media
        if kind not in _JSON:
            continue
        shape = parameters.get("as")
        if shape is None:
            return PLAIN
        group, version = parameters.get("g", ""), parameters.get("v", "")
        if (shape, group, version) in _SHAPES:
            return Media(shape, version)
    raise NotAcceptable(
        "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io"
    )


def _ordered(header: str) -> list[tuple[str, dict[str, str]]]:
    """The media ranges of an Accept header by descending quality, then as written."""
    found: list[tuple[float, int, str, dict[str, str]]] = []
    for index, part in enumerate(header.split(",")):
        kind, *rest = (piece.strip() for piece in part.split(";"))
        parameters = {
            key.strip().lower(): value.strip().strip('"') for key, _, value in (r.partition("=") for r in rest)
        }
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            quality = 0.0
        if quality > 0:
            found.append((-quality, index, kind.lower(), parameters))
    return [(kind, parameters) for _, _, kind, parameters in sorted(found, key=lambda f: f[:2])]
