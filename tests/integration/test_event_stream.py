"""Events as they happen: the API under gunicorn, spoken to over raw sockets, by many at once."""

from __future__ import annotations

import json
import random
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from brain_clusters.api.app import create_app
from brain_clusters.api.context import hub_of
from brain_clusters.client import Client
from brain_clusters.config import Settings
from brain_clusters.domain.access import LOCAL, Role
from brain_clusters.services import access, feed
from brain_clusters.services.blueprints import store
from brain_clusters.services.control import Control
from tests.conftest import OFFICE
from tests.integration.served_api import ServedApi

Until = Callable[..., Any]


class Ear:
    """A client of the stream on a socket of its own. ids: of the events it got, in order; resets: how many."""

    def __init__(self, port: int, query: str = "", **headers: str) -> None:
        self.port, self.query, self.headers = port, query, headers
        self.ids: list[int] = []
        self.kinds: list[str] = []
        self.resets = 0
        self.position: str | None = None
        self._buffer = b""
        self.peer = socket.socket()
        self.connect()

    def connect(self) -> None:
        """Connect, or connect again where it was."""
        self.peer.close()
        self.peer = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        told = dict(self.headers)
        if self.position is not None:
            told["Last-Event-ID"] = self.position
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in told.items())
        self.peer.sendall(f"GET /api/events/stream{self.query} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        self._buffer = b""
        while b"\r\n\r\n" not in self._buffer:
            said = self.peer.recv(65536)
            assert said, self._buffer
            self._buffer += said
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.status = int(head.split(b" ")[1])
        self.head = head.decode()
        self._digest()

    def read(self) -> bool:
        """Read once; return False when the server has hung up."""
        said = self.peer.recv(65536)
        self._buffer += said
        self._digest()
        return bool(said)

    def read_until(self, condition: Callable[[], Any]) -> None:
        """Read until ``condition`` holds, coming back where the server hangs up."""
        while not condition():
            if not self.read():
                self.connect()

    def _digest(self) -> None:
        while b"\n\n" in self._buffer:
            frame, _, self._buffer = self._buffer.partition(b"\n\n")
            fields = dict(line.split(": ", 1) for line in frame.decode().splitlines() if not line.startswith(":"))
            self.position = fields.get("id", self.position)
            if fields.get("event") == "reset":
                self.resets += 1
            elif "data" in fields:
                told = json.loads(fields["data"])
                assert told["position"] == self.position
                self.ids.append(told["id"])
                self.kinds.append(told["kind"])

    def close(self) -> None:
        """Hang up."""
        self.peer.close()


@pytest.fixture(scope="module")
def server(settings: Settings, control: Control) -> Iterator[ServedApi]:
    with ServedApi(replace(settings, api_listeners=260)) as server:
        yield server


@pytest.fixture(autouse=True)
def _empty(control: Control) -> None:
    with control.database.transaction() as session:
        session.execute(text("DELETE FROM events"))


def write(control: Control, count: int = 1, kind: str = "test.written", size: int = 0) -> list[int]:
    """Write events in one transaction; return their ids."""
    with control.database.transaction() as session:
        statement = text(
            "INSERT INTO events (kind, actor, reason, data) SELECT :kind, 'test', repeat('x', :size), '{}' "
            "FROM generate_series(1, :count) RETURNING id"
        )
        return list(session.scalars(statement, {"kind": kind, "count": count, "size": size}))


def in_order(control: Control) -> list[int]:
    """Return the ids of all events in the order that everybody is told them."""
    with control.database.transaction() as session:
        return list(session.scalars(text("SELECT id FROM events ORDER BY txid, id")))


# --- one listener -----------------------------------------------------------------------------------------------


def test_an_event_is_told_as_it_happens(server: ServedApi, control: Control) -> None:
    with closing(Ear(server.port)) as ear:
        assert (ear.status, "text/event-stream" in ear.head, "X-Brain-Version" in ear.head) == (200, True, True)
        before = ear.position
        written = write(control)
        ear.read_until(lambda: ear.ids)
        assert ear.ids == written
        assert ear.position != before


def test_filters_choose_and_the_others_move_the_place_on(server: ServedApi, control: Control) -> None:
    with closing(Ear(server.port, "?kind=test.wanted")) as ear:
        write(control, 3)
        wanted = write(control, 1, "test.wanted")
        ear.read_until(lambda: ear.ids)
        assert ear.ids == wanted


def test_who_comes_back_gets_what_it_missed_by_position_and_by_an_events_id(
    server: ServedApi, control: Control
) -> None:
    with closing(Ear(server.port)) as ear:
        first = write(control, 2)
        ear.read_until(lambda: len(ear.ids) == 2)
        ear.close()
        missed = write(control, 700)
        ear.connect()
        ear.read_until(lambda: len(ear.ids) == 702)
        assert (ear.ids, ear.resets) == (first + missed, 0)
    with closing(Ear(server.port, f"?last_event_id={first[0]}")) as ear:
        ear.read_until(lambda: len(ear.ids) == 701)
        assert ear.ids == first[1:] + missed


def test_what_a_page_told_and_the_stream_after_it_are_all_there_is(server: ServedApi, control: Control) -> None:
    write(control, 3)
    page = json.loads(server.request("GET", "/api/events?limit=2")[1])
    assert [len(page["events"]), page["total"]] == [2, 3]
    rest = json.loads(server.request("GET", f"/api/events?limit=2&cursor={page['next_cursor']}")[1])
    told = [event["id"] for event in page["events"] + rest["events"]]
    assert told == in_order(control)[::-1]
    new = write(control, 2)
    with closing(Ear(server.port, f"?last_event_id={page['position']}")) as ear:
        ear.read_until(lambda: len(ear.ids) == 2)
        assert ear.ids == new


def test_a_place_that_is_forgotten_or_of_another_database_is_told_of(server: ServedApi, control: Control) -> None:
    old = write(control, 2)
    with closing(Ear(server.port, f"?last_event_id={old[0]}")) as ear:
        ear.read_until(lambda: ear.ids)
        place = ear.position
    kept = write(control)
    with control.database.transaction() as session:
        session.execute(text("DELETE FROM events WHERE id <= :id"), {"id": old[1]})
    for query, resets in ((f"?last_event_id={old[0]}", 1), (f"?last_event_id={place}", 0), ("?last_event_id=0-0", 1)):
        with closing(Ear(server.port, query)) as ear:
            ear.read_until(lambda ear=ear: ear.ids)
            assert (ear.ids, ear.resets) == (kept, resets), query
    with closing(Ear(server.port, "?last_event_id=99999999999-1")) as ear:
        ear.read_until(lambda: ear.resets)
    assert server.request("GET", "/api/events/stream?last_event_id=nonsense")[0] == 422


def test_a_head_request_takes_no_place(server: ServedApi) -> None:
    assert server.request("HEAD", "/api/events/stream")[0] == 200


@pytest.mark.parametrize("since", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00%2B23:59"])
def test_a_time_that_no_database_knows_is_the_first_or_the_last(server: ServedApi, since: str) -> None:
    assert server.request("GET", f"/api/events?since={since}")[0] == 200


def test_the_client_goes_on_where_it_was_when_the_api_is_started_anew(settings: Settings, control: Control) -> None:
    with ServedApi(settings) as server, closing(Client(f"http://127.0.0.1:{server.port}")) as client:
        before = write(control, 3)
        after = json.loads(server.request("GET", "/api/events?limit=1&since=2020-01-01T00:00:00Z")[1])["position"]
        told = client.events(after=after, kind="test.written")
        written = write(control, 2)
        assert [next(told)["id"] for _ in written] == written
        server.process.kill()
        server.process.communicate()
        missed = write(control, 2)
        with ServedApi(settings, port=server.port):
            assert [next(told)["id"] for _ in missed] == missed
            told.close()
            lost = client.events(after="0-0")
            assert next(lost)["kind"] == "reset"
            assert next(lost)["id"] == before[0]
            lost.close()


# --- who may listen to what ----------------------------------------------------------------------------------------


def test_a_tenant_hears_of_its_own_clusters_only(control: Control) -> None:
    """In this process, where no socket can be taken over."""
    keyed = replace(control, settings=replace(control.settings, insecure_dev=False))
    app = create_app(keyed)
    with control.database.transaction() as session:
        new = access.NewKey(name="tenant", role=Role.VIEWER, tags=("mine",))
        row, shown = access.make(session, new, "the test")
    api = app.test_client()
    headers = {"Authorization": f"Bearer {shown}"}
    assert api.get("/api/events/stream").status_code == 401
    store(control, OFFICE)
    with control.database.transaction() as session:
        place = str(feed.now(session))
    for cluster_id, tags in (("theirs", []), ("ours", ["mine"]), ("also-theirs", ["other"])):
        made = new_cluster_in(control, cluster_id, tags)
        assert made.status_code == 202
    write(control)
    answer = api.get(f"/api/events/stream?last_event_id={place}", headers=headers, buffered=False)
    told = iter(answer.response)
    assert next(told).startswith(b"retry: ")
    frames = next(told).decode().split("\n\n")[:-1]
    assert {json.loads(frame.partition("data: ")[2])["cluster_id"] for frame in frames} == {"ours"}
    assert {event["cluster_id"] for event in api.get("/api/events", headers=headers).json["events"]} == {"ours"}
    caller = access.of_row(row)
    with control.database.transaction() as session:
        assert access.still_good(session, [caller, LOCAL]) == {caller, LOCAL}
        access.revoke(session, row.id)
        assert access.still_good(session, [caller, LOCAL]) == {LOCAL}
    answer.close()
    hub_of(app).close()


def new_cluster_in(control: Control, cluster_id: str, tags: list[str]) -> Any:
    body = {"blueprint_id": "office", "name": "n", "id": cluster_id, "tags": tags}
    return create_app(control).test_client().post("/api/clusters", json=body)


# --- the order ----------------------------------------------------------------------------------------------------


def test_transactions_that_commit_in_another_order_than_they_began_leave_no_gap(
    server: ServedApi, control: Control, settings: Settings
) -> None:
    """The lower id commits last: a reader that went by ids would have passed it by."""
    engine = create_engine(str(settings.database_url))
    insert = text("INSERT INTO events (kind, actor, reason) VALUES ('test.slow', 'test', '') RETURNING id")
    with closing(Ear(server.port)) as ear, engine.connect() as slow:
        late = slow.execute(insert).scalar_one()
        early = write(control)
        with control.database.transaction() as session:
            assert not feed.after(session, feed.now(session), 10).entries
            assert feed.after(session, feed.now(session), 10).unsettled
        slow.commit()
        ear.read_until(lambda: len(ear.ids) == 2)
        assert ear.ids == in_order(control) == [late, *early]
    engine.dispose()


def test_many_listeners_miss_nothing_and_get_nothing_twice_however_they_are_cut_off(
    server: ServedApi, settings: Settings, control: Control
) -> None:
    """240 on two processes of the API; writers commit out of order and roll back; connections are cut at random."""
    chance, stop = random.Random(7), threading.Event()
    with ServedApi(settings) as second:
        ears = [Ear(port) for port in (server.port, second.port) for _ in range(120)]
        writers = [threading.Thread(target=_write_at_random, args=(settings, seed, stop)) for seed in range(4)]
        for writer in writers:
            writer.start()
        try:
            _read_and_cut(ears, chance, cuts=300)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        expected = in_order(control)
        assert len(expected) > 100
        for ear in ears:
            ear.read_until(lambda ear=ear: ear.ids and ear.ids[-1] == expected[-1])
            assert (ear.ids, ear.resets) == (expected, 0)
            ear.close()


def _write_at_random(settings: Settings, seed: int, stop: threading.Event) -> None:
    chance, engine = random.Random(seed), create_engine(str(settings.database_url))
    insert = text("INSERT INTO events (kind, actor, reason) VALUES ('test.random', 'test', '')")
    with engine.connect() as connection:
        while not stop.is_set():
            for _ in range(chance.randint(1, 3)):
                connection.execute(insert)
                stop.wait(chance.random() / 10)
            if chance.random() < 0.2:
                connection.rollback()
            else:
                connection.commit()
    engine.dispose()


def _read_and_cut(ears: list[Ear], chance: random.Random, cuts: int) -> None:
    """Read from all; hang up on the server, often in the midst of a frame, and come back."""
    with selectors.DefaultSelector() as selector:
        for ear in ears:
            selector.register(ear.peer, selectors.EVENT_READ, ear)
        while cuts:
            for key, _ in selector.select(30):
                ear = key.data
                if chance.random() < 0.1 and cuts:
                    cuts -= 1
                    ear.peer.recv(chance.randint(1, 200))
                    _come_back(ear, selector)
                else:
                    _read_or_come_back(ear, selector)


def _read_or_come_back(ear: Ear, selector: selectors.BaseSelector) -> None:
    """Read; a machine so slow that the server gave this one up makes one cut more."""
    try:
        heard = ear.read()
    except ConnectionResetError:
        heard = False
    if not heard:
        _come_back(ear, selector)


def _come_back(ear: Ear, selector: selectors.BaseSelector) -> None:
    selector.unregister(ear.peer)
    ear.connect()
    selector.register(ear.peer, selectors.EVENT_READ, ear)


# --- bounds -------------------------------------------------------------------------------------------------------


def test_one_that_does_not_read_is_hung_up_on_and_can_come_back(server: ServedApi, control: Control) -> None:
    with closing(Ear(server.port)) as stuck, closing(Ear(server.port)) as other:
        write(control, 200, size=1000)
        for _ in range(40):  # far more than sockets and memory hold
            written = write(control, 200, size=1000)
            other.read_until(lambda: other.ids and other.ids[-1] == written[-1])  # noqa: B023
        with suppress(OSError):
            while stuck.read():
                pass
        assert len(stuck.ids) < len(other.ids)
        stuck.connect()
        stuck.read_until(lambda: stuck.ids[-1] == other.ids[-1])
        assert (stuck.ids, stuck.resets) == (other.ids, 0)


def test_there_is_a_bound_and_places_become_free(server: ServedApi, control: Control, until: Until) -> None:
    ears = [Ear(server.port) for _ in range(260)]
    status, body = server.request("GET", "/api/events/stream")
    assert (status, b"BRAIN_API_LISTENERS" in body) == (503, True)
    # None of them holds a thread: there are 16, and all others are answered.
    assert server.request("GET", "/api/clusters")[0] == 200
    for ear in ears:
        ear.close()
    until(lambda: server.request("HEAD", "/api/events/stream")[0] == 200)
    with closing(until(lambda: (found := Ear(server.port)).status == 200 and found)) as ear:
        written = write(control)
        ear.read_until(lambda: ear.ids)
        assert ear.ids == written


def test_sigterm_ends_it_with_listeners(settings: Settings, control: Control) -> None:
    with ServedApi(settings) as server:
        ears = [Ear(server.port) for _ in range(5)]
        written = server.stop()
        assert server.process.returncode == 0
        assert not written
        for ear in ears:
            with suppress(ConnectionResetError):
                while ear.read():
                    pass
            ear.close()
