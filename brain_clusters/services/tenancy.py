"""What a caller that sees only the clusters with some tags may call its own clusters.

It may use its own tags, and words below them: who has ``acme`` may say ``acme/eu``. Any other word could be the tag of
somebody else, who would then see the cluster, and whose jobs could be led to it. Other tags are for those who see all.
"""

from __future__ import annotations

from collections.abc import Sequence

from brain_clusters.db import scope
from brain_clusters.errors import Fault, InvalidInput


def sees(tags: Sequence[str]) -> bool:
    """Return whether the caller at hand sees a cluster with ``tags``."""
    own = scope.tags()
    return not own or not set(own).isdisjoint(tags)


def tags_of_new(stated: Sequence[str], usual: Sequence[str]) -> list[str]:
    """Return the tags of a new cluster: those stated, else ``usual``; of a caller with a tag, that one beside them.

    Raises InvalidInput for tags that are not the caller's, and where it has several and states none.
    """
    own = scope.tags()
    if not own:
        return list(stated or usual)
    _check(stated, ())
    if len(own) > 1 and not sees(stated):
        _refuse(f"state which of your tags the cluster gets: {_listed(own)}")
    return list(stated) if sees(stated) else [own[0], *stated]


def tags_changed(before: Sequence[str], stated: Sequence[str]) -> list[str]:
    """Return the tags that a cluster gets in place of ``before``.

    Raises InvalidInput when the caller would lose it, give it to somebody else, or take it from somebody.
    """
    if not scope.tags():
        return list(stated)
    _check(stated, before)
    if not sees(stated):
        _refuse(f"a cluster keeps at least one of your tags: {_listed(scope.tags())}")
    lost = [tag for tag in before if tag not in stated and not _is_own(tag)]
    if lost:
        _refuse(f"these tags are not yours to take away: {_listed(lost)}")
    return list(stated)


def tags_declared(before: Sequence[str], stated: Sequence[str]) -> list[str]:
    """Return the tags of a cluster whose file states ``stated``; the same file made it, with a tag of its caller's.

    Raises InvalidInput as ``tags_changed``.
    """
    own = scope.tags()
    return tags_changed(before, stated if sees(stated) or len(own) > 1 else [own[0], *stated])


def _check(stated: Sequence[str], before: Sequence[str]) -> None:
    foreign = [tag for tag in stated if tag not in before and not _is_own(tag)]
    if foreign:
        told = f"{_listed(foreign)} is not yours to give; use {_listed(scope.tags())}, or words below, such as"
        _refuse(f"{told} {scope.tags()[0] + '/eu'!r}")


def _is_own(tag: str) -> bool:
    return any(tag == one or tag.startswith(f"{one}/") for one in scope.tags())


def _listed(tags: Sequence[str]) -> str:
    return ", ".join(repr(tag) for tag in tags)


def _refuse(told: str) -> None:
    raise InvalidInput("the tags are not valid", [Fault("/tags", told)])
