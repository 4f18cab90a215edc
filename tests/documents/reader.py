"""A reader who types what a document shows: one folder, one system, the programs that the document names."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from brain_clusters.embedded import remove_data
from brain_clusters.ports import free_port
from tests.acceptance.brain import QUICK

from .blocks import Block
from .shown import missing

PATIENCE_SECONDS = 60.0
_PROGRAMS = {"./brain": ["-P", "-m", "brain_clusters"], "bin/brain-clusters": ["-P", "-m", "brain_clusters"]}
_PROGRAMS |= {"bin/python": [], "bin/python3": []}
# All variables but the shell's own, which are arrays or cannot be written.
_KEEP = "declare -p | grep -vE '^declare -[^ ]*[aAir]' > .variables"
# A reader sees that an answer is a problem; the shell does not.
_CURL = '#!/bin/sh\nexec {curl} ${{READER_CURL---fail-with-body}} "$@"\n'


class Reader:
    """Runs blocks in ``folder``, which must be empty. redis_port: where the reader's own Redis listens."""

    def __init__(self, folder: Path, redis_port: int) -> None:
        self.folder = folder
        self._port = free_port()
        self._redis_port = redis_port
        for name, arguments in _PROGRAMS.items():
            self._program(folder / name, f'#!/bin/sh\nexec {shlex.join([sys.executable, *arguments])} "$@"\n')
        self._program(folder / "bin/curl", _CURL.format(curl=shutil.which("curl")))

    def _program(self, path: Path, text: str) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("BRAIN_")}
        return kept | QUICK | {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}", "BRAIN_HOME": str(self.folder / ".brain"),
            "BRAIN_API_PORT": str(self._port), "XDG_CONFIG_HOME": str(self.folder / "config"), "NO_COLOR": "1",
        }  # fmt: skip

    def start(self) -> None:
        """Start the system, as the README says."""
        done = self._shell("./brain up --detach")
        assert done.returncode == 0, done.stdout

    def stop(self) -> None:
        """Stop the system, as the README says, and delete its data."""
        done = self._shell("./brain down")
        remove_data(self.folder / ".brain")
        assert done.returncode == 0, done.stdout

    def begin(self) -> None:
        """Begin another document, in another shell."""
        (self.folder / ".variables").unlink(missing_ok=True)

    def write(self, block: Block) -> None:
        """Write a block's text to the file that its note names."""
        path = self.folder / block.notes["file"]
        path.parent.mkdir(exist_ok=True)
        path.write_text(self._translated(block.text))

    def run(self, block: Block, shown: Block | None) -> None:
        """Run a block; compare how it ends, and what it prints with what ``shown`` shows."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        if "given" in block.notes:
            given = self._shell(self._translated(block.notes["given"]))
            assert given.returncode == 0, f"{block.where}: {given.stdout}"
        while True:
            done = self._run(block)
            wrong = self._wrong(block, done, shown)
            if wrong is None:
                return
            once_more = "until shown" in block.notes and time.monotonic() < deadline
            assert once_more, f"{block.where}: {wrong}; it printed:\n{done.stdout}"
            time.sleep(0.2)

    def _run(self, block: Block) -> subprocess.CompletedProcess[str]:
        text = self._translated(block.text)
        if "refused" in block.notes:
            text = f"export READER_CURL=\n{text}"
        if block.language != "python":
            return self._shell(text)
        (self.folder / ".program.py").write_text(text)
        return self._shell("python .program.py")

    def _wrong(self, block: Block, done: subprocess.CompletedProcess[str], shown: Block | None) -> str | None:
        wanted = int(block.notes.get("exit", "0"))
        if done.returncode != wanted:
            return f"it exited with {done.returncode} and not with {wanted}"
        lacking = missing(shown.text, self._told(done.stdout), shown.language) if shown else None
        return f"it did not print {lacking!r}" if lacking is not None else None

    def _shell(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run a script as the next words of one shell: its variables stay."""
        script = f"set -eo pipefail\ntrap {shlex.quote(_KEEP)} EXIT\n[ ! -f .variables ] || . ./.variables\n{text}"
        return subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self._environment(), text=True, timeout=2 * PATIENCE_SECONDS,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip

    def _translated(self, text: str) -> str:
        for host in ("localhost", "127.0.0.1"):
            text = text.replace(f"{host}:8080", f"{host}:{self._port}")
        return text.replace("localhost:6379", f"localhost:{self._redis_port}")

    def _told(self, printed: str) -> str:
        return printed.replace(f":{self._port}", ":8080")
