"""Texts that hold several YAML documents."""

from __future__ import annotations

import pytest

from brain_clusters.blueprints.clusterfile import MOST_PARTS, parse_documents
from brain_clusters.errors import InvalidInput


def test_too_many_documents_are_refused_before_any_of_them_is_parsed() -> None:
    wrong = "cluster: {id: ''}\n---\n"

    with pytest.raises(InvalidInput) as caught:
        parse_documents([wrong * MOST_PARTS, "cluster: {id: a, blueprint: shop}"])

    (fault,) = caught.value.faults  # none of those that a look at the texts would have found
    assert fault.pointer == "/documents"
    assert f"hold {MOST_PARTS + 1} YAML documents" in fault.message


def test_as_many_as_may_be_are_parsed() -> None:
    text = "".join(f"cluster: {{id: c-{place}, blueprint: shop}}\n---\n" for place in range(MOST_PARTS))

    assert len(parse_documents([text])) == MOST_PARTS
