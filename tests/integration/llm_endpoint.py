"""A real server that speaks the chat completions protocol: streams, calls of tools, and every way to go wrong.

What it does is in the last message: a word, or words after a colon. It counts a token a character, both ways.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Speaker(BaseHTTPRequestHandler):
    """Answers one request after the other."""

    server: Endpoint
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.note(self.path, headers, asked)
        self.asked = asked
        said = asked["messages"][-1]
        # After the answer of a tool, the model says what it was told, or asks on.
        word, _, rest = str(said["content"]).partition(":")
        if said["role"] == "tool" and not word.startswith("again"):
            return self.say(f"the tool says {said['content']}")
        return getattr(self, word, self.hello)(rest)

    # --- ways to answer

    def hello(self, _rest: str) -> None:
        self.say("Hello, world")

    def say(self, text: str) -> None:
        """Stream ``text`` in pieces of three characters, then how it ended, then what was used."""
        self.begin()
        for start in range(0, len(text), 3):
            self.delta({"content": text[start : start + 3]})
        self.end("stop", len(text))

    def tool(self, rest: str) -> None:
        """Ask for a tool, name=arguments, with its arguments in pieces; several by semicolons."""
        self.begin()
        for number, call in enumerate(rest.split(";")):
            name, _, arguments = call.partition("=")
            first = {"index": number, "id": f"id_{number}", "type": "function"}
            self.delta({"tool_calls": [{**first, "function": {"name": name, "arguments": ""}}]})
            for start in range(0, len(arguments), 4):
                part = {"index": number, "function": {"arguments": arguments[start : start + 4]}}
                self.delta({"tool_calls": [part]})
        self.end("tool_calls", len(rest))

    def again(self, _rest: str) -> None:
        """Ask for a tool for ever: what it answers begins with "again", too."""
        self.tool('echo={"text": "again"}')

    def costly(self, rest: str) -> None:
        """Stream a word and claim that it was so many tokens."""
        self.begin()
        self.delta({"content": "costly"})
        self.end("stop", int(rest))

    def unmetered(self, _rest: str) -> None:
        self.begin()
        self.delta({"content": "nobody counts"}, finish="stop")
        self.event("[DONE]")
        self.chunk(b"")

    def greedy(self, _rest: str) -> None:
        """Ask for a tool, and say that this took six hundred thousand tokens."""
        self.begin()
        function = {"name": "echo", "arguments": '{"text": "greedy"}'}
        self.delta({"tool_calls": [{"index": 0, "id": "a", "function": function}]})
        self.end("tool_calls", 600_000)

    def cut(self, _rest: str) -> None:
        """Break off in the middle of a stream."""
        self.begin()
        self.delta({"content": "half an ans"})
        self.close_connection = True

    def cut_at_first(self, rest: str) -> None:
        """Break off when asked for the first time, and then answer."""
        if len(self.server.requests) == 1:
            self.cut(rest)
        else:
            self.hello(rest)

    def short(self, _rest: str) -> None:
        """End the stream in order, and the answer not at all."""
        self.begin()
        self.delta({"content": "half an ans"})
        self.chunk(b"")

    def slow(self, _rest: str) -> None:
        """Stream without an end."""
        self.begin()
        while not self.server.closing.wait(0.02):
            self.delta({"content": "word "})

    def slow_at_first(self, rest: str) -> None:
        """Stream without an end when asked for the first time, and then answer."""
        if len(self.server.requests) == 1:
            self.slow(rest)
        else:
            self.hello(rest)

    def hang(self, _rest: str) -> None:
        self.server.closing.wait(30)

    def busy(self, _rest: str) -> None:
        self.plain(429, {"error": {"message": "too many requests"}}, Retry_After="9")

    def broken(self, _rest: str) -> None:
        self.plain(503, {"error": {"message": "overloaded"}})

    def wrong(self, _rest: str) -> None:
        key = self.headers["Authorization"]
        self.plain(401, {"error": {"message": f"Incorrect API key provided: {key}"}})

    def garbage(self, _rest: str) -> None:
        self.begin()
        self.event("{this is no JSON")
        self.chunk(b"")

    def odd(self, rest: str) -> None:
        """Stream JSON that is no chunk."""
        self.begin()
        self.event(rest)
        self.chunk(b"")

    def page(self, _rest: str) -> None:
        self.plain(200, "<html>a login page</html>", Content_Type="text/html")

    def failing(self, _rest: str) -> None:
        """Tell of an error in the stream."""
        self.begin()
        self.event(json.dumps({"error": {"message": "the model fell over"}}))
        self.chunk(b"")

    # --- the protocol

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def event(self, data: str) -> None:
        self.chunk(f"data: {data}\n\n".encode())

    def delta(self, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self.event(json.dumps({**self.head(), "choices": [choice]}))

    def head(self) -> dict[str, Any]:
        return {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": f"{self.asked['model']}-0001"}

    def end(self, finish: str, tokens: int) -> None:
        self.delta({}, finish)
        if self.asked.get("stream_options", {}).get("include_usage"):
            read = sum(len(str(message.get("content") or "")) for message in self.asked["messages"])
            usage = {"prompt_tokens": read, "completion_tokens": tokens, "total_tokens": read + tokens}
            self.event(json.dumps({**self.head(), "choices": [], "usage": usage}))
        self.event("[DONE]")
        self.chunk(b"")

    def plain(self, status: int, body: Any, **headers: str) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


class Endpoint(ThreadingHTTPServer):
    """The server. requests: what it was asked, as (headers, body)."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Speaker)
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def note(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> None:
        assert path == "/v1/chat/completions"
        self.requests.append((headers, body))

    def handle_error(self, *_: Any) -> None:
        """Clients that leave early are what is tried here."""


@contextmanager
def serving() -> Iterator[Endpoint]:
    """A server that runs until the end of the with statement."""
    with Endpoint() as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield endpoint
        finally:
            endpoint.closing.set()
            endpoint.shutdown()
            thread.join()
