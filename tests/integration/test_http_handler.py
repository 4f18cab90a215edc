"""``http:`` against a real server on loopback that answers, refuses, hangs, drips, breaks off and redirects."""

from __future__ import annotations

import email.utils
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from brain_clusters.agent import wire
from brain_clusters.agent.context import JobContext
from brain_clusters.agent.errors import HandlerError, JobTimeout, Retry
from brain_clusters.agent.handlers import http
from brain_clusters.domain.addresses import parse_networks
from brain_clusters.domain.retry_after import retry_after
from brain_clusters.domain.work import HttpCall
from brain_clusters.ports import free_port
from tests.integration.cancelling import ends_when_cancelled

LOOPBACK = parse_networks(["127.0.0.0/8"])
CERTIFICATE = Path(__file__).with_name("api_example.pem")
CANARY = "canary-5f1e0c"


class Answers(BaseHTTPRequestHandler):
    """One path for each way to answer."""

    server: Site
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.path)
        word = self.path.strip("/").partition("?")[0]
        getattr(self, word)()

    do_GET = do_PUT = do_DELETE = do_POST

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def echo(self) -> None:
        told = {"method": self.command, "path": self.path, "body": self.body.decode(), "headers": dict(self.headers)}
        self.send(200, json.dumps(told).encode(), Content_Type="application/json")

    def text(self) -> None:
        self.send(200, "grüße".encode("latin-1"), Content_Type="text/plain; charset=latin-1")

    def nothing(self) -> None:
        self.send(204)

    def busy(self) -> None:
        self.send(429, b"slow down", Retry_After="7")

    def busy_until(self) -> None:
        self.send(503, Retry_After=email.utils.formatdate(time.time() + 120, usegmt=True))

    def broken(self) -> None:
        self.send(500, b"on fire")

    def refused(self) -> None:
        self.send(422, b"no such thing; you sent " + self.headers.get("Authorization", "").encode())

    def hang(self) -> None:
        self.server.closing.wait(30)

    def drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        while not self.server.closing.wait(0.05):
            self.wfile.write(b"x")
            self.wfile.flush()

    def cut(self) -> None:
        self.send(200, b"half", Content_Length="100")
        self.close_connection = True

    def big(self) -> None:
        self.send(200, b"x" * 10_000_000)

    def big_error(self) -> None:
        self.send(400, b"x" * 10_000_000)

    def there(self) -> None:
        self.send(307, Location="/echo")

    def round(self) -> None:
        self.send(307, Location="/round")

    def away(self) -> None:
        self.send(302, Location=f"http://other.example:{self.server.server_port}/echo")

    def inside(self) -> None:
        self.send(302, Location=f"http://127.0.0.1:{self.server.server_port}/echo")

    def log_message(self, *_: Any) -> None:
        pass


class Site(ThreadingHTTPServer):
    """A server on loopback. asked: the paths that were asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[str] = []
        self.closing = threading.Event()

    def handle_error(self, *_: Any) -> None:
        """Clients that leave early are what is tried here."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


def at_loopback(_host: str, _port: int) -> Sequence[str]:
    """Every name is this machine's."""
    return ["127.0.0.1"]


def context(deadline: float | None = None) -> JobContext:
    return JobContext("job-1", 1, "c1", "Group", "agent-1", {}, logging.getLogger("job"), deadline=deadline)


def ask(
    site: Site, path: str, payload: Any = None, *,
    within: JobContext | None = None, resolving: wire.Resolve = at_loopback, **call: Any,
) -> Any:  # fmt: skip
    made = HttpCall(**{"url": f"http://api.example:{site.server_port}/{path}", "timeout_seconds": 10, **call})
    return http.handler(made, LOOPBACK, resolving)(payload, within or context())


# --- what is sent -----------------------------------------------------------------------------------------------


def test_the_payload_is_the_body_and_the_job_is_named(site: Site) -> None:
    told = ask(site, "echo", {"n": [1, "ä"]}, headers={"X-Mine": "yes"})
    headers = {name.lower(): value for name, value in told["headers"].items()}
    assert (told["method"], json.loads(told["body"])) == ("POST", {"n": [1, "ä"]})
    assert headers["host"] == f"api.example:{site.server_port}"
    assert headers["idempotency-key"] == "job-1"
    assert headers["content-type"] == "application/json"
    assert headers["x-mine"] == "yes"


def test_a_request_without_a_body_has_a_flat_payload_in_its_query(site: Site) -> None:
    told = ask(site, "echo?a=1", {"q": "two words&more", "n": 3, "on": True}, method="GET")
    assert told["path"] == "/echo?a=1&q=two+words%26more&n=3&on=true"
    assert told["body"] == ""
    assert ask(site, "echo", None, method="DELETE")["path"] == "/echo"
    with pytest.raises(HandlerError, match="takes a flat mapping"):
        ask(site, "echo", {"a": {"b": 1}}, method="GET")


def test_a_header_may_refer_to_a_variable(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", CANARY)
    told = ask(site, "echo", headers={"Authorization": "Bearer env:SERVICE_TOKEN", "X-Key": "env:SERVICE_TOKEN"})
    assert told["headers"]["Authorization"] == f"Bearer {CANARY}"
    assert told["headers"]["X-Key"] == CANARY


@pytest.mark.parametrize("variable", ["NOT_THERE", "BRAIN_DATABASE_URL"])
def test_a_variable_that_is_missing_or_ours_is_a_clear_fault(
    site: Site, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRAIN_DATABASE_URL", "postgresql://secret")
    with pytest.raises(HandlerError, match=f"the header X-Key refers to env:{variable} is not set in the environment"):
        ask(site, "echo", headers={"X-Key": f"env:{variable}"})
    assert site.asked == []


def test_a_secret_is_in_no_error_and_no_log(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SERVICE_TOKEN", CANARY)
    monkeypatch.setenv("BAD_TOKEN", f"{CANARY}\r\nX-More: 1")
    headers = {"Authorization": "Bearer env:SERVICE_TOKEN"}
    with pytest.raises(HandlerError, match=r"422 .*you sent Bearer \*{8}") as echoed:
        ask(site, "refused", headers=headers)
    with pytest.raises(HandlerError, match="no header can hold") as bad:
        ask(site, "echo", headers={"X-Key": "env:BAD_TOKEN"})
    with pytest.raises(Retry) as hung:
        ask(site, "hang", headers=headers, timeout_seconds=0.1)
    for told in (echoed, bad, hung):
        assert CANARY not in "".join(map(str, (told.value, told.value.__cause__, told.getrepr())))
    assert CANARY not in caplog.text


# --- what is answered -------------------------------------------------------------------------------------------


def test_text_and_nothing_are_results_too(site: Site) -> None:
    assert ask(site, "text") == "grüße"
    assert ask(site, "nothing") is None


def test_a_server_that_is_busy_or_broken_is_asked_again_when_it_says(site: Site) -> None:
    with pytest.raises(Retry, match=r"answered 429 .*slow down") as busy:
        ask(site, "busy")
    assert busy.value.after == 7
    with pytest.raises(Retry) as later:
        ask(site, "busy_until")
    assert later.value.after is not None
    assert 100 < later.value.after <= 120
    with pytest.raises(Retry, match=r"answered 500 .*on fire") as broken:
        ask(site, "broken")
    assert broken.value.after is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("999999", 3600), ("-5", None), ("soon", None), ("", None), ("1e3", None),
     ("Thu, 01 Jan 1970 00:10:00 GMT", 500), ("Thu, 01 Jan 1970 00:00:10 GMT", 0), ("Thu, 99 Jan", None)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_at_most_an_hour(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text}, 100.0) == seconds


def test_any_other_answer_is_a_failure_with_the_start_of_its_body(site: Site) -> None:
    with pytest.raises(HandlerError, match=r"answered 422 .*no such thing"):
        ask(site, "refused")
    with pytest.raises(HandlerError, match="answered 400") as big:
        ask(site, "big_error")
    assert len(str(big.value)) < 1000


def test_an_answer_has_a_longest_length(site: Site) -> None:
    with pytest.raises(HandlerError, match="longer than 1048576 bytes"):
        ask(site, "big")


def test_a_connection_that_fails_or_breaks_off_is_tried_again(site: Site) -> None:
    with pytest.raises(Retry, match=r"api\.example cannot be reached or broke off"):
        ask(site, "cut")
    with pytest.raises(Retry, match="Connection refused"):
        ask(site, "echo", url=f"http://api.example:{free_port()}/")

    def unknown(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(Retry, match=r"the name api\.example cannot be resolved"):
        ask(site, "echo", resolving=unknown)


# --- time -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["hang", "drip"])
def test_a_server_that_takes_too_long_is_left_however_it_does_that(site: Site, path: str) -> None:
    with pytest.raises(Retry, match=r"did not answer in time: it took longer than 0\.3 s"):
        ask(site, path, timeout_seconds=0.3)
    with pytest.raises(JobTimeout):
        ask(site, path, within=context(deadline=time.time() + 0.3))


@pytest.mark.parametrize("path", ["hang", "drip"])
def test_a_request_ends_when_its_job_is_cancelled(site: Site, path: str, until: Callable[..., Any]) -> None:
    running = context()
    ends_when_cancelled(running, until, site.asked, lambda: ask(site, path, within=running, timeout_seconds=60))


# --- where to ---------------------------------------------------------------------------------------------------


def test_a_redirect_leads_to_the_same_server_only(site: Site) -> None:
    told = ask(site, "there", {"kept": 1})
    assert (told["method"], told["path"], told["body"]) == ("POST", "/echo", '{"kept": 1}')
    with pytest.raises(HandlerError, match=r"redirects to http://other\.example:\d+, and redirects are followed on"):
        ask(site, "away")
    with pytest.raises(HandlerError, match=r"redirects to http://127\.0\.0\.1"):
        ask(site, "inside")
    with pytest.raises(HandlerError, match="more than 5 times"):
        ask(site, "round")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1"]
)
def test_addresses_that_are_not_public_are_refused_however_they_are_written(site: Site, host: str) -> None:
    call = HttpCall(url=f"http://{host}:{site.server_port}/echo")
    with pytest.raises(HandlerError, match="is no public address; an operator can allow its network with BRAIN_HTTP_"):
        http.handler(call)({}, context())
    assert site.asked == []


def test_a_name_with_one_address_that_is_not_public_is_refused(site: Site) -> None:
    call = HttpCall(url=f"http://api.example:{site.server_port}/echo")
    with pytest.raises(HandlerError, match=r"api\.example is at 10\.0\.0\.5, which is no public address"):
        http.handler(call, (), lambda *_: ["8.8.8.8", "10.0.0.5"])({}, context())


def test_a_name_is_resolved_once_a_job_and_the_connection_goes_to_what_was_checked(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def rebinding(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    connected = []
    original = socket.create_connection

    def watched(address: Any, *args: Any, **options: Any) -> socket.socket:
        connected.append(address)
        return original(address, *args, **options)

    monkeypatch.setattr(socket, "create_connection", watched)
    told = ask(site, "there", {}, resolving=rebinding, headers={"Connection": "close"})
    assert told["path"] == "/echo"
    assert asked == ["api.example"]
    assert connected == [("127.0.0.1", site.server_port)] * 2


def test_the_next_address_is_tried_when_one_does_not_answer(site: Site) -> None:
    assert ask(site, "nothing", resolving=lambda *_: ["127.0.0.9", "127.0.0.1"]) is None


def test_proxies_of_the_environment_are_not_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert ask(site, "nothing") is None


def test_the_certificate_is_checked_against_the_name_and_not_the_address(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(CERTIFICATE)
    site.socket = serving.wrap_socket(site.socket, server_side=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    wire.ssl_context.cache_clear()
    try:
        url = f"https://api.example:{site.server_port}/echo"
        assert ask(site, "", url=url)["headers"]["Host"] == f"api.example:{site.server_port}"
        with pytest.raises(Retry, match=r"(?i)certificate"):
            ask(site, "", url=url.replace("api.example", "other.example"))
    finally:
        wire.ssl_context.cache_clear()
