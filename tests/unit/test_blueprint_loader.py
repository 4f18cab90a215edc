"""YAML text to data: what scalars mean, where values stand, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from brain_clusters.blueprints import loader
from brain_clusters.blueprints.loader import MAX_BYTES, load


@pytest.fixture(params=["libyaml", "python"], autouse=True)
def _parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(loader, "_Events", yaml.SafeLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("PyYAML was built without libyaml")


def value_of(text: str) -> Any:
    document = load(text)
    assert document.faults == []
    assert document.root is not None
    return document.root.plain()


def fault_of(text: str | bytes) -> tuple[str, int | None, int | None]:
    document = load(text)
    assert len(document.faults) == 1
    fault = document.faults[0]
    return fault.message, fault.line, fault.column


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("yes", "yes"), ("no", "no"), ("off", "off"), ("y", "y"),
        ("true", True), ("False", False), ("~", None), ("null", None), ("", None),
        ("2024-01-31", "2024-01-31"), ("12:30:45", "12:30:45"), ("010", 10), ("0o10", 8), ("0x1F", 31),
        ("1_000", "1_000"), ("1.5", 1.5), ("-3", -3), ("+3", 3), (".5", 0.5), ("1e3", 1000.0), ("1.2.3", "1.2.3"),
        ("'1'", "1"), ('"true"', "true"), ("!!str 1", "1"), ("!!float 1", 1), ("! 1", "1"), ("-", "-"),
    ],
)  # fmt: skip
def test_scalars_mean_what_the_core_schema_of_yaml_1_2_says(text: str, value: object) -> None:
    if text == "-":
        text = "'-'"
    found = value_of(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_positions_are_those_of_scalars_and_of_the_keys_of_containers() -> None:
    document = load("a:\n  b:\n    - x\n    - {c: 1}\nd: word\n")
    assert document.position("/a/b") == (2, 3)
    assert document.position("/a/b/0") == (3, 7)
    assert document.position("/a/b/1/c") == (4, 11)
    assert document.position("/d") == (5, 4)
    assert document.position("/d", of_key=True) == (5, 1)
    assert document.position("/a/missing") == (1, 1)


def test_pointers_reach_keys_with_slashes_and_tildes() -> None:
    assert load("a/b~c: 1").position("/a~1b~0c") == (1, 8)


def test_an_alias_repeats_a_value() -> None:
    assert value_of("a: &x {b: [1]}\nc: *x") == {"a": {"b": [1]}, "c": {"b": [1]}}


@pytest.mark.parametrize(
    ("text", "said", "line", "column"),
    [
        ("a: 1\nb: 2\na: 3", "'a' is already stated in line 1", 3, 1),
        ("a: 1\n2: x", "key 2 is not text", 2, 1),
        ("true: x", "key true is not text", 1, 1),
        ("a:\n  ? [b]\n  : c", "a key must be text", 2, 5),
        ("a: &k b\n*k : c", "a key must be text, not an alias", 2, 1),
        ("a: !!python/object/apply:os.system [x]", "tag is not allowed", 1, 4),
        ("a: !!timestamp 2024-01-01", "tag is not allowed", 1, 4),
        ("a: !!int b", "does not fit", 1, 4),
        ("a: !!seq {}", "tag is not allowed", 1, 4),
        ("a: .nan", "NaN", 1, 4),
        ("a: -.inf", "infinity", 1, 4),
        ("a: 1e999", "too large", 1, 4),
        ("a: 9223372036854775808", "64 bits", 1, 4),
        ("a:\n  <<: {b: 1}", "merge keys", 2, 3),
        ("a: *nobody", "no anchor", 1, 4),
        ("a: &a [*a]", "contain itself", 1, 8),
        ("a: 1\n---\nb: 2", "second document", 2, 1),
        ("%TAG ! tag:x:\n--- a", "directives", 1, 1),
        ("a: [1\nb: 2", "not valid YAML", 2, 2),
        ("", "empty", 1, 1),
        ("# only a comment\n", "empty", 1, 1),
        ("\ufeffa: 1", "byte order mark", 1, 1),
        ("a: 1\nb: \x07", "U+0007", 2, 4),
        ("a: \ud800", "U+D800", 1, 4),
        (b"\xef\xbb\xbfa: 1", "UTF-8 byte order mark", 1, 1),
        ("a: 1".encode("utf-16"), "UTF-16", 1, 1),
        (b"a: 1\nb: \xff", "not UTF-8", 2, 4),
        (b"a: \x00", "U+0000", 1, 4),
    ],
)  # fmt: skip
def test_what_is_refused_says_why_and_where(text: str | bytes, said: str, line: int, column: int) -> None:
    message, *place = fault_of(text)
    assert said in message
    assert place == [line, column]


def test_several_faults_are_found_in_one_reading() -> None:
    document = load("a: 1\na: 2\nb: .nan\n3: c\n")
    assert [fault.line for fault in document.faults] == [2, 3, 4]


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "more than 5000 values"),
        (CHAIN, "32 levels"),
        ("[" * 5_000, "32 levels"),
        ("[\n" * 5_000, "32 levels"),
        ("{a: " * 5_000, "32 levels"),
        ("- " * 5_000, "32 levels"),
        ("\n".join(" " * depth + "a:" for depth in range(600)), "32 levels"),
        ("a" * (10 * 1024 * 1024), "256 KiB"),
        (b"a" * (10 * 1024 * 1024), "256 KiB"),
        ("é" * (MAX_BYTES // 2 + 1), "256 KiB"),
        ("- x\n" * 60_000, "5000 values"),
        ("- &a x\n" * 30_000, "5000 values"),
        ("&a x: 1\n" * 30_000, "more faults"),
        ("[" + "a," * 100_000 + "]", "5000 values"),
        ("a: " + "9" * 100_000, "64 bits"),
        ("a: 0x" + "f" * 100_000, "64 bits"),
        ("a: 0." + "9" * 100_000, "too long"),
        ("? " + "k" * 201 + "\n: 1", "200 characters"),
        ("%TAG !a! b\n" * 20_000 + "--- a", "directives"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "bytes",
)
def test_bombs_end_in_one_fault_with_a_position(text: str | bytes, said: str) -> None:
    document = load(text)
    assert said in document.faults[-1].message
    assert all(fault.line and fault.column for fault in document.faults)
    assert sum(len(fault.message) for fault in document.faults) < 50_000


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(), st.binary(), st.text(alphabet="[]{}:,&*!|>-?#%@'\" \nab01.")))
def test_any_text_ends_in_data_or_faults(text: str | bytes) -> None:
    document = load(text)
    assert document.faults or document.root is not None
