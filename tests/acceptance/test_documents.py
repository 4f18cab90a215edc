"""Every command of the documents is run, in order, by a reader who has one system; what it prints is what is shown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from brain_clusters.embedded.binaries import find_valkey
from brain_clusters.ports import free_port
from tests.acceptance.brain import until
from tests.documents.blocks import DOCUMENTS, ROOT, Block, blocks
from tests.documents.reader import Reader

# The first waits for a whole system, and a document is many commands.
pytestmark = pytest.mark.timeout(300)
# The quick start first: the others build on it.
WITH_COMMANDS = sorted(
    (path for path in DOCUMENTS if any(block.is_run for block in blocks(path))),
    key=lambda path: (path != ROOT / "README.md", path),
)


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Redis that is the reader's own, without a password, as on a laptop."""
    port = free_port()
    server = subprocess.Popen(
        [str(find_valkey()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        cwd=tmp_path_factory.mktemp("redis"), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with redis.Redis(port=port) as client:
        until(lambda: _answers(client), "the reader's Redis answers")
    yield port
    server.terminate()
    server.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, redis_port: int) -> Iterator[Reader]:
    """A reader whose system runs."""
    if sys.platform != "linux":
        pytest.skip("the documents are for Linux")
    found = Reader(tmp_path_factory.mktemp("reader"), redis_port)
    found.start()
    yield found
    found.stop()


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_does_what_it_says(reader: Reader, path: Path) -> None:
    reader.begin()
    found = blocks(path)
    for block, following in zip(found, [*found[1:], None], strict=True):
        if "file" in block.notes:
            reader.write(block)
        elif block.is_run:
            reader.run(block, _shown(following))


def _shown(following: Block | None) -> Block | None:
    return following if following is not None and "shows" in following.notes else None
