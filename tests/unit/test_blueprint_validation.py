"""The strict Cerberus: types, text, hints, bounds."""

from __future__ import annotations

from typing import Any

import pytest

from brain_clusters.blueprints.messages import KeyFault
from brain_clusters.blueprints.validation import MAX_FAULTS, check

SCHEMA: dict[str, Any] = {
    "name": {"type": "string", "minlength": 1, "maxlength": 20, "required": True},
    "workers": {"type": "integer", "min": 1, "max": 5, "default": 2},
    "share": {"type": "number"},
    "kind": {"type": "string", "allowed": ["small", "large"]},
    "code": {"type": "string", "regex": "^[a-z]+$", "meta": {"must": "be small letters"}},
    "wait": {"type": ["number", "string"], "check_with": "duration"},
    "tags": {"type": "list", "maxlength": 5, "schema": {"type": "string"}},
    "free": {"type": "dict"},
    "inner": {"type": "dict", "schema": {"deep": {"type": "boolean", "default": False}}, "default": {}},
    "when": {
        "type": ["list", "dict"],
        "conditions": {"idle": {"type": "string", "check_with": "duration"}, "asked": {"type": "boolean"}},
    },
}


def faults(**stated: object) -> dict[str, str]:
    return {fault.pointer: fault.message for fault in check({"name": "x", **stated}, SCHEMA)[1]}


def test_a_sound_document_gets_its_defaults_at_every_level() -> None:
    assert check({"name": "x"}, SCHEMA) == ({"name": "x", "workers": 2, "inner": {"deep": False}}, [])


def test_the_document_given_is_not_changed() -> None:
    given = {"name": "x", "inner": {}}
    check(given, SCHEMA)
    assert given == {"name": "x", "inner": {}}


def test_all_faults_are_reported_at_once() -> None:
    _, found = check({"workers": 9, "kind": "big", "inner": {"deep": 1}}, SCHEMA)
    assert [fault.pointer for fault in found] == ["/inner/deep", "/kind", "/name", "/workers"]


@pytest.mark.parametrize(
    ("stated", "pointer", "message"),
    [
        ({"workers": True}, "/workers", "'workers' must be a whole number, not true"),
        ({"workers": 1.0}, "/workers", "'workers' must be a whole number, not 1.0"),
        ({"share": False}, "/share", "'share' must be a number, not false"),
        ({"name": 5}, "/name", "'name' must be text, not 5; put it in quotes to make it text"),
        ({"name": None}, "/name", "'name' is empty; give it a value, or remove the key"),
        ({"name": ""}, "/name", "'name' must not be empty; give it a value, or remove it"),
        ({"name": "x" * 21}, "/name", "'name' must have at most 20 characters, not 21"),
        ({"workers": 0}, "/workers", "'workers' must be at least 1, not 0"),
        ({"workers": 10**5000}, "/workers", "'workers' must be at most 5, not so large a number"),
        ({"kind": "larg"}, "/kind", "'kind' must be one of small, large, not 'larg'; did you mean 'large'?"),
        ({"code": "a\n"}, "/code", "'code' must be small letters, not 'a'"),
        ({"tags": ["a", 1]}, "/tags/1", "entry 2 of 'tags' must be text, not 1; put it in quotes to make it text"),
        ({"nam": 1}, "/nam", "unknown key 'nam'; did you mean 'name'?"),
        ({"inner": {"zzz": 1}}, "/inner/zzz", "unknown key 'zzz'; known here: deep"),
        ({"when": ["idel"]}, "/when/0/idel", "unknown key 'idel'; did you mean 'idle'?"),
        ({"when": [{"asked": True}, "asked"]}, "/when/1/asked", "'asked' is stated twice; keep one of the two"),
        ({"when": [5]}, "/when/0", "entry 1 of 'when' must be a word or 'key: value', not 5"),
        ({"name": "a\x00b"}, "/name", "'name' holds a NUL character; remove it"),
        ({"free": {"a": ["\ud800"]}}, "/free/a/0", "entry 1 of 'a' holds half a surrogate pair; remove it"),
        ({"free": {"a": float("nan")}}, "/free/a",
         "'a' is NaN or infinite, which is not a number; give a finite number"),
        ({"free": {"a\x00": 1}}, "/free", "a key here holds a NUL character; change the key"),
        ({"free": {"a": {1, 2}}}, "/free/a", "'a' is not JSON data; give JSON data"),
    ],
)  # fmt: skip
def test_a_fault_says_what_is_wrong_and_what_to_do(stated: dict[str, Any], pointer: str, message: str) -> None:
    assert faults(**stated) == {pointer: message}


def test_words_and_mappings_are_both_conditions() -> None:
    assert faults(when=["asked", {"idle": "1 hour"}]) == {}
    assert faults(when={"asked": True, "idle": "1 hour"}) == {}


def test_x_keys_are_ignored_where_asked_for_and_only_there() -> None:
    stated = {"name": "x", "x-note": 1, "inner": {"x-deep": {}}, "when": [{"x-a": 1}]}
    filled, found = check(stated, SCHEMA, ignore_x_keys=True)
    assert found == []
    assert "x-note" not in filled
    assert filled["inner"] == {"deep": False}
    assert {fault.pointer for fault in check(stated, SCHEMA)[1]} == {"/x-note", "/inner/x-deep", "/when/0/x-a"}


def test_a_fault_of_a_key_is_told_from_a_fault_of_its_value() -> None:
    _, found = check({"name": 1, "nmae": 1}, SCHEMA)
    assert [isinstance(fault, KeyFault) for fault in found] == [False, True]


@pytest.mark.parametrize("document", [None, [], "text", 5, True])
def test_only_a_mapping_is_a_document(document: object) -> None:
    filled, found = check(document, SCHEMA)
    assert filled == {}
    assert [fault.pointer for fault in found] == [""]


def test_a_deep_document_is_a_fault_and_not_a_recursion_error() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    [message] = faults(free=deep).values()
    assert "nested more than 64 levels" in message
    while deep:  # taken apart here: the interpreter would do it recursively
        deep = deep["a"]


@pytest.mark.parametrize(
    "stated",
    [
        {"tags": [1] * 100_000},
        {"when": ["a"] * 100_000},
        {"inner": {f"k{n}": 1 for n in range(100_000)}},
        {f"k{n}": 1 for n in range(100_000)},
        {f"k{n}": 1 for n in range(900)},
        {"free": {"k" * 500_000 + str(n): "\x00" for n in range(200)}},
        {"k" * 500_000: 1, "kind": "v" * 500_000, "free": {"a": ["\x00"] * 10_000}},
    ],
    ids=["list", "conditions", "inner keys", "keys", "unknown keys", "long keys", "long values"],
)
def test_hostile_input_is_never_amplified(stated: dict[str, Any]) -> None:
    _, found = check({"name": "x", **stated}, SCHEMA)
    assert 1 <= len(found) <= MAX_FAULTS + 1
    assert all(len(fault.pointer) + len(fault.message) < 1_500 for fault in found)
