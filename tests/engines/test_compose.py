"""docker-compose.yml for real: built from a clean checkout, worked with, killed in every order, and removed.

The engine must have the images that the files name, or be able to pull them. What is tested is what is committed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from brain_clusters import __version__
from tests.engines.compose import KEY, OURS, SERVERS, Project, clone, run, run_git, until

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]

HANDS = """
metadata: {id: hands, name: Hands, version: "1"}
cluster: {type: persistent, min_workers: 4, max_workers: 12}
agents:
  - {role: supervisor, name: Head}
  - {role: worker, name: Hands, count: 3, command: [sh, -c, "sleep 1; echo done"], max_attempts: 20, max_deliveries: 20}
"""

# Everything in a container but its init and this very program.
SIGNAL_ALL = """
import os, sys
for name in filter(str.isdigit, os.listdir("/proc")):
    if int(name) not in (1, os.getpid()):
        os.kill(int(name), int(sys.argv[1]))
"""
STOP, CONTINUE, KILL = "19", "18", "9"


@pytest.fixture(scope="module")
def project(docker_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The system as somebody has it who cloned the repository and called ``docker compose up``."""
    assert docker_host
    project = Project(clone(tmp_path_factory.mktemp("compose") / "checkout"))
    try:
        project.build()
        project.up()
        project.rest.post("/api/blueprints", {"yaml": HANDS})
        yield project
    finally:
        project.remove()
    assert project.left() == ""


def ended(project: Project, jobs: list[str]) -> Callable[[], bool]:
    """Return a condition: every job has succeeded. A job that ended otherwise, or is not there, fails the test."""

    def look() -> bool:
        found = project.statuses(jobs)
        assert set(found) <= {"queued", "running", "succeeded"}, found
        return found == {"succeeded": len(jobs)}

    return look


def destroy(project: Project, cluster: str) -> None:
    """Destroy a cluster, and do not wait for it."""
    run("curl", "-sf", "-X", "DELETE", "-H", f"Authorization: Bearer {KEY}",
        f"http://127.0.0.1:{project.port}/api/clusters/{cluster}")  # fmt: skip


def test_it_is_up_as_the_checkout_has_it(project: Project) -> None:
    commit = run_git("HEAD")
    assert project.rest.get("/version") | {"schema": ""} == {"version": __version__, "commit": commit, "schema": ""}
    headers = run("curl", "-si", f"http://127.0.0.1:{project.port}/api/clusters")
    assert f"x-brain-version: {__version__}+{commit[:12]}" in headers.lower()
    assert " 401 " in headers.splitlines()[0]  # the key is needed, and the header is there all the same
    until(lambda: set(project.health().values()) == {"healthy"}, "everything is healthy")
    [migrate] = project.containers("migrate")
    assert (migrate["State"]["Status"], migrate["State"]["ExitCode"]) == ("exited", 0)
    published = {one["Name"]: one["HostConfig"]["PortBindings"] for one in project.containers()}
    assert [ports for ports in published.values() if ports] == [
        {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(project.port)}]}
    ]
    for service in OURS:
        assert project.python(service, "import os; print(os.getuid(), os.getgid())").split() == ["10001", "10001"]


def test_agents_get_none_of_our_variables(project: Project) -> None:
    cluster = project.cluster("hands")
    pids = until(lambda: [one["pid"] for one in project.agents(cluster) if one["pid"]], "agents are there")
    environ = project.python("host", f"print(open('/proc/{pids[0]}/environ').read())")
    assert "HOME=/var/lib/brain" in environ
    assert "BRAIN_" not in environ
    assert KEY not in environ
    destroy(project, cluster)


def test_the_main_job(project: Project) -> None:
    cluster = project.cluster("demo")
    most = 0
    # A file that takes a tenth of a second.
    path = project.python("host", "import sqlalchemy.sql.selectable as large; print(large.__file__)").strip()
    jobs = project.submit(cluster, 100, capability="source_digest", payload={"path": path})

    def drained() -> bool:
        nonlocal most
        most = max(most, len(project.agents(cluster)))
        return not project.rest.get(f"/api/clusters/{cluster}/jobs?status=queued,running&limit=1")["jobs"]

    until(drained, "the burst is done")
    assert project.statuses(jobs) == {"succeeded": 100}
    assert most > 2, "the burst brought more agents than the supervisor and one reader"
    until(lambda: project.seen(cluster)["status"] == "hibernated", "it falls asleep")
    until(lambda: not project.agents(cluster), "no agent is left")
    [woken] = project.submit(cluster, 1, capability="source_digest", payload={"path": path})
    until(ended(project, [woken]), "one more job wakes it")


def test_a_shipped_blueprint_is_scaled_put_to_sleep_and_woken(project: Project) -> None:
    cluster = project.cluster("marketing-v1", target_workers=6)
    until(lambda: len(project.agents(cluster)) == 6, "six agents are there")
    for target in (10, 5):
        project.rest.post(f"/api/clusters/{cluster}/scale", {"target_workers": target})
        until(lambda target=target: len(project.agents(cluster)) == target, f"{target} agents are there")
    project.rest.post(f"/api/clusters/{cluster}/hibernate", {})
    until(lambda: not project.agents(cluster), "no agent is left")
    [job] = project.submit(cluster, 1, to="Campaign Figures", payload={"path": "/etc/passwd"})
    until(lambda: project.statuses([job]) in ({"succeeded": 1}, {"failed": 1}), "the job woke it")
    project.rest.post(f"/api/clusters/{cluster}/hibernate", {})


@pytest.mark.parametrize("service", [*OURS, *SERVERS])
def test_no_accepted_job_is_lost_when_a_service_is_killed(project: Project, service: str) -> None:
    cluster = project.cluster("hands")
    jobs = project.submit(cluster, 12)
    until(lambda: set(project.statuses(jobs)) - {"queued"}, "some of the jobs run")
    project.compose("kill", "--signal", "KILL", service)
    if service not in ("api", "postgres"):
        jobs += project.submit(cluster, 6)  # accepted while it is away
    project.up()
    jobs += project.submit(cluster, 6)
    until(ended(project, jobs), "every job is done")
    until(lambda: len(project.agents(cluster)) == 4, "all agents are there")
    destroy(project, cluster)


@pytest.mark.parametrize("service", OURS)
def test_what_crashes_is_started_again_by_the_engine(project: Project, service: str) -> None:
    [before] = project.containers(service)
    project.compose("exec", "-T", service, "python", "-c", SIGNAL_ALL, KILL)
    until(lambda: project.containers(service)[0]["RestartCount"] > before["RestartCount"], "it is restarted")
    until(lambda: project.health(service)[service] == "healthy", "it is healthy again")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_accepted_job_is_lost_when_all_is_killed_and_comes_back_in_any_order(project: Project, seed: int) -> None:
    cluster = project.cluster("hands")
    jobs = project.submit(cluster, 12)
    until(lambda: set(project.statuses(jobs)) - {"queued"}, "some of the jobs run")
    project.compose("kill", "--signal", "KILL")
    ids = [one["Id"] for one in project.containers()]
    assert len(ids) == len(OURS) + len(SERVERS)
    random.Random(seed).shuffle(ids)
    for one in ids:
        run("docker", "container", "start", one)
    jobs += project.submit(cluster, 6)
    until(ended(project, jobs), "every job is done")
    until(lambda: set(project.health().values()) == {"healthy"}, "everything is healthy")
    destroy(project, cluster)


def test_three_workers_and_three_hosts_share_the_load(project: Project) -> None:
    project.up("--scale", "worker=3", "--scale", "host=3")
    assert len(project.containers()) == 10  # and postgres, redis, api, beat
    until(lambda: all(one["State"]["Health"]["Status"] == "healthy" for one in project.containers()), "all are up")
    clusters = [project.cluster("hands", name=f"share {number}") for number in range(12)]
    until(lambda: sum(len(project.agents(one)) for one in clusters) == 48, "all agents are there")
    hosts = {agent["host_id"] for one in clusters for agent in project.agents(one)}
    assert hosts == {one["Config"]["Hostname"] for one in project.containers("host")}
    # A worker connects to PostgreSQL with its first command.
    asked = (
        "SELECT DISTINCT split_part(application_name, '.', 2) FROM pg_stat_activity WHERE application_name ~ '^worker'"
    )
    until(lambda: len(project.sql(asked)) == 3, "all workers run commands and ticks")
    jobs = [job for one in clusters for job in project.submit(one, 5)]
    project.up("--scale", "worker=1", "--scale", "host=1")  # two of each leave in order, with jobs in their agents
    until(ended(project, jobs), "every job is done")
    until(lambda: sum(len(project.agents(one)) for one in clusters) == 48, "one host has all agents")
    for one in clusters:
        destroy(project, one)


def test_health_checks_notice_processes_that_hang_and_servers_that_are_away(project: Project) -> None:
    def all_are(status: str, *services: str) -> Callable[[], bool]:
        return lambda: set(project.health(*services).values()) == {status}

    for service in OURS:
        project.compose("exec", "-T", service, "python", "-c", SIGNAL_ALL, STOP)
    until(all_are("unhealthy", *OURS), "what hangs is unhealthy")
    for service in OURS:
        project.compose("exec", "-T", service, "python", "-c", SIGNAL_ALL, CONTINUE)
    until(all_are("healthy", *OURS), "what goes on is healthy")
    project.compose("stop", "redis")
    until(all_are("unhealthy", "worker", "beat", "host"), "who needs Redis is unhealthy")
    assert project.health("api") == {"api": "healthy"}  # it stores what comes
    project.compose("stop", "postgres")
    until(all_are("unhealthy", "api"), "who needs PostgreSQL is unhealthy")
    project.up()
    until(all_are("healthy"), "everything is healthy again")
