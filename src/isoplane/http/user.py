"""Who asks: a name and groups, however they were proven. What a user may do is not said here."""

from __future__ import annotations

from dataclasses import dataclass, replace

ADMIN_GROUP = "system:masters"
"""Its members may do everything, whatever the authorization."""
AUTHENTICATED_GROUP = "system:authenticated"
"""Everybody who has proven who they are."""


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. ``groups`` contains ``system:masters`` for administrators. ``extra``: what else is known, by key."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def authenticated(self) -> User:
        """The same, in the group of those who have proven who they are."""
        if AUTHENTICATED_GROUP in self.groups:
            return self
        return replace(self, groups=(*self.groups, AUTHENTICATED_GROUP))


SYSTEM = User("system:isoplane", (ADMIN_GROUP,))
"""The plane itself: controllers and the node agent in the same process."""
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
"""Whoever shows no credentials."""
