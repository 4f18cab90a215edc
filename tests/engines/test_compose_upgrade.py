"""From one version to the next and back with docker-compose.yml, with jobs in flight: none is lost, none fails.

The older version is the last commit before the newest migration; a newer one than ours is ours with one migration more.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from brain_clusters.db.schema import Schema
from tests.engines.compose import PIP, PYTHON_VERSION, ROOT, Project, clone, need_images, run, until
from tests.engines.test_compose import HANDS, ended

pytestmark = [pytest.mark.engines, pytest.mark.timeout(3600)]

HEAD = Schema(ROOT / "migrations").head
NEWER = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"
branch_labels = depends_on = None
{works_with}


def upgrade():
    op.add_column("clusters", sa.Column("added", sa.Text(), nullable=True))


def downgrade():
    op.drop_column("clusters", "added")
"""

IMPORT_ALL = """
import importlib, pkgutil, brain_clusters
for found in pkgutil.walk_packages(brain_clusters.__path__, "brain_clusters."):
    if "__main__" not in found.name:
        importlib.import_module(found.name)
"""


def before_newest_migration() -> list[str]:
    """Return the last commits before the newest migration came, or skip where the history does not reach there."""
    [newest] = (ROOT / "migrations" / "versions").glob(f"{HEAD}_*.py")
    added = run("git", "-C", str(ROOT), "log", "--diff-filter=A", "--format=%H", "--", str(newest)).split()
    if not added:
        pytest.skip("the newest migration is not committed, so there is no commit before it")
    found = run("git", "-C", str(ROOT), "rev-list", "--max-count=10", f"{added[-1]}^", check=False).split()
    if not all(len(commit) == 40 for commit in found):
        pytest.skip("the clone is shallow: it does not reach to the commit before the newest migration")
    return found


def older_version(folder: Path) -> Path:
    """Return a checkout of the version before the newest migration: whole, and no commit in the middle of a change."""
    commits = before_newest_migration()
    older = clone(folder / "older", commits[0])
    for commit in commits:
        run("git", "-C", str(older), "checkout", "--quiet", "--detach", commit)
        if (
            subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=older, capture_output=True, check=False).returncode
            == 0
        ):
            return older
    pytest.skip("no commit shortly before the newest migration is whole")


@pytest.fixture
def project(docker_host: str, tmp_path: Path) -> Iterator[Project]:
    """A project whose image is built and which is not up."""
    assert docker_host
    project = Project(clone(tmp_path / "checkout"))
    try:
        project.build()
        yield project
    finally:
        project.remove()
    assert project.left() == ""


def build_older(project: Project, folder: Path) -> str:
    """Build the image of the version before the newest migration, by the Dockerfile of now; return its tag."""
    older = older_version(folder)
    need_images([f"python:{PYTHON_VERSION}-slim"])
    tag = project.new_tag()
    arguments = [f"--build-arg=PYTHON_VERSION={PYTHON_VERSION}", *PIP]
    dockerfile = f"--file={project.checkout / 'Dockerfile'}"
    run("docker", "build", "--quiet", *arguments, dockerfile, f"--tag=brain-clusters:{tag}", str(older))
    return tag


def build_newer(project: Project, folder: Path, works_with: str) -> str:
    """Make the image of a version with one migration more, which says with which code it works; return its tag."""
    folder.mkdir()
    (folder / "9999_newer.py").write_text(NEWER.format(head=HEAD, works_with=works_with))
    where = "import brain_clusters.shipped as s; print(s.shipped('migrations'))"
    image = f"brain-clusters:{project.tag}"
    migrations = run("docker", "run", "--rm", "--entrypoint", "python", image, "-c", where).strip()
    (folder / "Dockerfile").write_text(f"FROM {image}\nCOPY 9999_newer.py {migrations}/versions/\n")
    tag = project.new_tag()
    run("docker", "build", "--quiet", f"--tag=brain-clusters:{tag}", str(folder))
    return tag


@contextmanager
def clients(project: Project, cluster: str) -> Iterator[list[str]]:
    """Submit a job twice a second, and repeat what is not answered, as clients do; yield the accepted jobs' ids."""
    accepted: list[str] = []
    done = threading.Event()

    def send() -> None:
        while not done.wait(0.5):
            accepted.extend(project.submit(cluster, 1))
        project.rest.close()  # this thread's connection

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        try:
            yield accepted
        finally:
            done.set()
        sending.result()


def switch(project: Project, cluster: str, tag: str) -> list[str]:
    """Bring up the image ``tag`` in place of the one that runs, with jobs in flight; return these, all accepted."""
    jobs = project.submit(cluster, 30)
    until(lambda: set(project.statuses(jobs)) - {"queued"}, "some of the jobs run")
    with clients(project, cluster) as sent:
        project.tag = tag
        project.up()
    return jobs + sent


def test_an_upgrade_loses_no_job(project: Project, tmp_path: Path) -> None:
    newer, project.tag = project.tag, build_older(project, tmp_path)
    project.up()
    older = project.rest.get("/version")["schema"]
    assert older != HEAD
    project.rest.post("/api/blueprints", {"yaml": HANDS})
    cluster = project.cluster("hands")
    jobs = switch(project, cluster, newer)
    assert project.rest.get("/version")["schema"] == HEAD
    assert project.sql("SELECT version_num FROM alembic_version") == [HEAD]
    until(ended(project, jobs), "every job is done")
    until(lambda: len(project.agents(cluster)) == 4, "all agents are there")


def test_a_way_forth_and_back_loses_no_job(project: Project, tmp_path: Path) -> None:
    ours, newer = project.tag, build_newer(project, tmp_path / "newer", f'works_with = "{HEAD}"')
    project.up()
    project.rest.post("/api/blueprints", {"yaml": HANDS})
    cluster = project.cluster("hands")
    jobs = switch(project, cluster, newer)
    assert project.sql("SELECT version_num FROM alembic_version") == ["9999"]
    jobs += switch(project, cluster, ours)
    assert project.rest.get("/version")["schema"] == HEAD
    until(ended(project, jobs), "every job is done")


def test_a_way_back_that_is_not_possible_is_refused_with_a_sentence(project: Project, tmp_path: Path) -> None:
    ours, newer = project.tag, build_newer(project, tmp_path / "newer", "")
    project.up()
    project.rest.post("/api/blueprints", {"yaml": HANDS})
    cluster = project.cluster("hands")
    jobs = switch(project, cluster, newer)
    project.tag = ours
    project.compose("up", "--detach", "--no-build", check=False)
    [migrate] = project.containers("migrate")
    assert migrate["State"]["ExitCode"] == 1
    assert f"schema is 9999, with which this version does not work, as it knows {HEAD}" in project.compose(
        "logs", "--no-log-prefix", "migrate"
    )
    project.tag = newer
    project.up()
    until(ended(project, jobs), "every job is done")
