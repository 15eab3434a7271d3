"""Who asks: a name and groups, however they were proven. What a user may do is not said here."""

from __future__ import annotations

from dataclasses import dataclass

ADMIN_GROUP = "system:masters"
"""Its members may do everything, whatever the authorization."""
AUTHENTICATED_GROUP = "system:authenticated"
"""Everybody who has proven who they are."""


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. ``groups`` contains ``system:masters`` for administrators."""

    name: str
    groups: tuple[str, ...] = ()


SYSTEM = User("system:isoplane", (ADMIN_GROUP,))
"""The plane itself: controllers and the node agent in the same process."""
