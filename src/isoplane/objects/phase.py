"""The phases in which a Pod or a VirtualMachineInstance has ended: the same two words for both. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENDED = ("Succeeded", "Failed")


def has_ended(obj: Mapping[str, Any]) -> bool:
    """Whether its phase is one that it never leaves."""
    return (obj.get("status") or {}).get("phase") in ENDED
