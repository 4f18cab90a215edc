"""The documents are readable by a machine, too: each block is run, checked, or says why not."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from brain_clusters.blueprints.validator import parse_blueprint
from tests.documents.blocks import COMMANDS, DOCUMENTS, LANGUAGES, ROOT, Block, blocks, unfenced
from tests.documents.shown import missing

ALL = [block for path in DOCUMENTS for block in blocks(path)]


def named(*languages: str) -> list[Block]:
    return [block for block in ALL if block.language in languages]


def where(block: Block) -> str:
    return block.where


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_code_is_fenced(path: Path) -> None:
    assert unfenced(path) == []


def test_each_block_says_what_it_is() -> None:
    assert [f"{block.where} {block.language!r}" for block in ALL if block.language not in LANGUAGES] == []


def test_each_command_is_run_or_says_why_not() -> None:
    commands = named(*COMMANDS)
    excused = [block for block in commands if {"not run", "engines"} & set(block.notes)]
    assert sum(block.is_run for block in commands) + len(excused) == len(commands)
    # Few enough to be worth something, and each with a reason.
    assert len(excused) < len(commands) * 0.7
    for block in excused:
        assert len(block.notes.get("not run") or block.notes.get("engines") or "") > 5, block.where


def test_a_test_that_is_named_instead_is_there() -> None:
    notes = [text for block in ALL for text in block.notes.values()]
    told = {name for text in notes for name in re.findall(r"tests/[\w/]+\.py", text)}
    assert [name for name in told if not (ROOT / name).exists()] == []


def test_what_is_shown_follows_what_is_run() -> None:
    for path in DOCUMENTS:
        found = blocks(path)
        for before, block in zip([None, *found], found, strict=False):
            if "shows" in block.notes:
                assert before is not None, block.where
                assert before.is_run, block.where


@pytest.mark.parametrize("block", named("json"), ids=where)
def test_json_is_json(block: Block) -> None:
    if "shows" not in block.notes:
        json.loads(block.text)


@pytest.mark.parametrize("block", named("yaml"), ids=where)
def test_yaml_is_yaml_and_a_blueprint_is_valid(block: Block) -> None:
    for found in yaml.safe_load_all(block.text):
        if isinstance(found, Mapping) and {"metadata", "cluster", "agents"} <= set(found):
            parse_blueprint(block.text)


@pytest.mark.parametrize("block", named("python"), ids=where)
def test_python_is_python(block: Block) -> None:
    compile(block.text, block.where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


# --- what is promised ---------------------------------------------------------------------------------------------


def test_every_promise_names_tests_that_exist() -> None:
    told = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "explanation" / "failure.md").read_text()))
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert told
    assert told - set(re.findall(r"def (test_\w+)\(", sources)) == set()


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    there = {str(path.relative_to(ROOT / "docs")) for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")}
    assert {name for name in there if name != "README.md" and f"]({name}" not in index} == set()


# --- how a reader compares ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "printed", "language", "lacking"),
    [
        ("a  b\n", "x\na b\n", "text", None),
        ("a\nc\n", "a\nb\nc\n", "text", None),
        ("c\na\n", "a\nb\nc\n", "text", "a"),
        ("up from 1 to ...\n...\n", "up from 1 to 5\n", "text", None),
        ("... up ...\n", "shop: up from 1\n", "text", None),
        ("shop\n", "shops\n", "text", "shop"),
        ('{"id": ..., "b": 1}', '{"id": "x", "a": 2,\n "b": 1}', "json", None),
        ('{"id": 1}', '{"id": 12}', "json", '{"id": 1}'),
    ],
)
def test_what_is_printed_is_compared_loosely(shown: str, printed: str, language: str, lacking: str | None) -> None:
    assert missing(shown, printed, language) == lacking


@pytest.mark.parametrize(
    "text", ["<!-- shouts -->\n```sh\nls\n```\n", "<!-- run -->\n\nA sentence.\n\n```sh\nls\n```\n"]
)
def test_a_note_that_means_nothing_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"page.md:\d"):
        blocks(path)
