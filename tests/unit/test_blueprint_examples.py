"""The example handlers do real work."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.examples.office import deliver_webhook, send_mail, summarise_csv
from brain_clusters.examples.source_files import digest, summarise


@dataclass
class Context:
    config: Mapping[str, Any] = field(default_factory=dict)
    job_id: str = "job-1"


def written(folder: Path, name: str, text: str) -> dict[str, Any]:
    path = folder / name
    path.write_text(text)
    return digest({"path": str(path)}, Context())


def test_a_python_file_is_parsed(tmp_path: Path) -> None:
    text = '"""What it does.\n\nMore."""\nimport os\nfrom a.b import c\n\n# note\n'
    text += "def f(): ...\nclass C:\n    async def g(self): ...\n"
    found = written(tmp_path, "a.py", text)
    assert found["summary"] == "What it does."
    assert (found["functions"], found["classes"], found["imports"]) == (2, 1, ["a.b", "os"])
    assert (found["lines"], found["blank"], found["comments"], found["language"]) == (10, 2, 1, "Python")
    assert (found["bytes"], found["sha256"]) == (len(text), hashlib.sha256(text.encode()).hexdigest())
    assert found["syntax_error"] is None


def test_a_file_that_does_not_parse_says_why(tmp_path: Path) -> None:
    assert "never closed" in written(tmp_path, "a.py", "f(")["syntax_error"]


def test_a_heading_is_the_summary_of_other_files(tmp_path: Path) -> None:
    assert written(tmp_path, "a.md", "\n# The title\n\ntext")["summary"] == "The title"
    assert written(tmp_path, "a.sh", "#!/bin/sh\n# Says hello\necho hello")["summary"] == "Says hello"


def test_what_is_no_file_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a file"):
        digest({"path": str(tmp_path)}, Context())
    with pytest.raises(ValueError, match="larger than 2 MiB"):
        written(tmp_path, "a.txt", "a" * (2 * 1024 * 1024 + 1))


def test_digests_add_up(tmp_path: Path) -> None:
    digests = [
        written(tmp_path, name, text) for name, text in (("a.py", "x = 1\n"), ("b.py", "x = 1\n"), ("c.md", "# c"))
    ]
    found = summarise({"digests": digests}, Context())
    assert found["files"] == 3
    assert found["languages"]["Python"] == {"files": 2, "lines": 2, "bytes": 12}
    assert found["duplicates"] == [[str(tmp_path / "a.py"), str(tmp_path / "b.py")]]
    assert found["largest"][0]["bytes"] == 6
    assert summarise({}, Context())["files"] == 0


def test_a_csv_file_is_summed_up(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    path.write_text("city,amount\nUlm,1.5\nBonn,2.5\nKiel,\n")
    found = summarise_csv({"path": str(path)}, Context())
    figures = {"count": 2, "sum": 4.0, "mean": 2.0, "lowest": 1.5, "highest": 2.5}
    assert found == {"path": str(path), "rows": 3, "columns": {"city": {"count": 0}, "amount": figures}}


def test_mail_without_a_server_becomes_a_file_and_a_repetition_replaces_it(tmp_path: Path) -> None:
    mail = {"to": "ann@example.org", "subject": "Figures", "text": "All well."}
    for _ in range(2):
        found = send_mail(mail, Context({"outbox": str(tmp_path)}))
    assert found == {"sent": False, "file": str(tmp_path / "job-1.eml")}
    assert [path.name for path in tmp_path.iterdir()] == ["job-1.eml"]
    assert "Subject: Figures" in (tmp_path / "job-1.eml").read_text()


@contextmanager
def receiver(*statuses: int) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """Serve POST requests, one answer for each; yield (url, what was received)."""
    answers, received = list(statuses), []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answers.pop(0))
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_web_hook_is_delivered_signed_and_named_by_its_job() -> None:
    with receiver(200) as (url, received):
        assert deliver_webhook({"url": url, "body": {"a": 1}}, Context({"secret": "s"})) == {
            "status": 200,
            "attempts": 1,
        }
    headers, body = received[0]
    assert headers["X-Signature-256"] == "sha256=" + hmac.new(b"s", body, hashlib.sha256).hexdigest()
    assert headers["Idempotency-Key"] == "job-1"


def test_a_web_hook_is_repeated_when_the_receiver_is_at_fault_only() -> None:
    with receiver(503, 200) as (url, received):
        assert deliver_webhook({"url": url, "body": {}}, Context())["attempts"] == 2
    with receiver(404) as (url, received), pytest.raises(OSError, match="404"):
        deliver_webhook({"url": url, "body": {}}, Context())
    assert len(received) == 1


def test_a_web_hook_goes_to_http_only() -> None:
    with pytest.raises(ValueError, match="http"):
        deliver_webhook({"url": "file:///etc/passwd", "body": {}}, Context())
