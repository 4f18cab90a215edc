"""Who calls, and what that one may do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Role(StrEnum):
    """What a caller may do; each may all that the one before it may.

    A viewer reads. An operator creates, scales, hibernates and submits, too. An admin deletes, and manages blueprints
    and keys.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Return whether this role may do what ``needed`` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller. name: for people, as histories tell it; key_id: of the key that let it in, None without one.

    payloads: whether it may read what jobs are given and give back. tags: it sees the clusters that have one of them;
    none of them means all clusters. method: how it proved itself: key, session, token or local. session_id: of the
    session, where that is how; until: when what it proved itself by ends, None where that has no end of its own.
    """

    name: str
    role: Role
    payloads: bool = False
    tags: tuple[str, ...] = ()
    key_id: str | None = None
    method: str = "key"
    session_id: str | None = None
    until: datetime | None = None

    @property
    def sees_all(self) -> bool:
        """Return whether its view is not narrowed to some clusters."""
        return not self.tags


LOCAL = Identity(name="local", role=Role.ADMIN, payloads=True, method="local")
