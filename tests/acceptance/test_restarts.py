"""The end of the whole system, orderly and by kill -9, and what the next start finds."""

from __future__ import annotations

import time
from collections.abc import Callable

from .brain import Brain, until

Measured = Callable[[str, float], None]


def test_a_backlog_survives_a_total_restart(own_brain: Brain, measured: Measured) -> None:
    brain = own_brain
    cluster, asleep = brain.cluster(target_workers=4), brain.cluster(target_workers=1)
    brain.command("POST", f"/api/clusters/{asleep}/hibernate")
    with brain.celery() as app:
        queue = brain.queue(cluster, "Hands")
        foreign = [app.send_task("brain.job", [{"sleep": 0.05}], queue=queue).id for _ in range(20)]
    jobs = [brain.job(cluster, sleep=0.05) for _ in range(40)]
    endless = brain.job(cluster, "Twos", gate=str(gate := brain.gate()))
    brain.until_begun(endless)
    began = time.monotonic()
    brain.stop()
    measured("an orderly stop with a job that does not end (grace 2 s)", time.monotonic() - began)
    began = time.monotonic()
    brain.start()
    measured("a start with data that are there", time.monotonic() - began)
    gate.touch()
    for job in [*jobs, *foreign, endless]:
        assert brain.outcome(job)["status"] == "succeeded"
    assert brain.outcome(endless)["attempts"] == 2
    brain.until_agents(cluster, 4)
    assert brain.seen(asleep)["status"] == "hibernated"
    assert {path.name for path in brain.folder.iterdir()} == {"home", "handlers", "up.log", gate.name}


def test_nothing_stays_when_up_is_killed_and_the_next_one_works(own_brain: Brain, measured: Measured) -> None:
    brain = own_brain
    cluster = brain.cluster(target_workers=6)
    jobs = [brain.job(cluster, sleep=0.2) for _ in range(20)]
    busy = brain.job(cluster, "Twos", gate=str(gate := brain.gate()))
    brain.until_begun(busy)
    began = time.monotonic()
    brain.kill()
    until(lambda: not brain.processes(), "every process is gone")
    measured("kill -9 of up: until its last process is gone (grace 2 s)", time.monotonic() - began)
    brain.start()
    gate.touch()
    for job in [*jobs, busy]:
        assert brain.outcome(job)["status"] == "succeeded"
    brain.until_agents(cluster, 6)


def test_a_start_after_everything_was_killed_at_once(own_brain: Brain) -> None:
    brain = own_brain
    cluster = brain.cluster(target_workers=6)
    jobs = [brain.job(cluster, sleep=0.2) for _ in range(20)]
    brain.kill_everything()
    brain.start()
    for job in jobs:
        assert brain.outcome(job)["status"] == "succeeded"
    brain.until_agents(cluster, 6)
    # Agents and jobs lost to a loss of power are nobody's fault.
    assert all(brain.outcome(job)["attempts"] <= 2 for job in jobs)
