"""The slots of an agent: ``pool: solo | threads | prefork | gevent``, each a pool of Celery's.

solo: one job at a time in the main thread. threads: several, in threads. prefork: several, in processes forked from the
agent. gevent: many, in greenlets; its agents have an interpreter of their own, as all has to be patched first.
"""

from __future__ import annotations

import importlib
from typing import Any

from celery.signals import worker_process_init, worker_process_shutdown

from brain_clusters import tracing
from brain_clusters.agent.config import AgentConfig
from brain_clusters.agent.flight import allow_waking
from brain_clusters.agent.handlers import Handler
from brain_clusters.agent.job import JobRunner
from brain_clusters.agent.tally import Tally
from brain_clusters.agent.watch import Watch
from brain_clusters.broker.client import connect
from brain_clusters.broker.jobs import JobRecords
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.errors import PermanentError


def pool_of(spec: AgentSpec) -> str:
    """Return the name of the pool that ``spec``'s slots run in."""
    return spec.pool or ("solo" if spec.concurrency == 1 else "threads")


def refuse_missing_gevent() -> None:
    """Raise PermanentError where gevent is not installed."""
    try:
        importlib.import_module("gevent")
    except ImportError as exc:
        raise PermanentError(
            "the group's pool is gevent, which is not installed: pip install 'brain-clusters[gevent]'"
        ) from exc


def bind(runner: JobRunner, spec: AgentSpec, handler: Handler, config: AgentConfig) -> None:
    """Give ``runner`` its part, in the process that does the jobs: called in each child of a prefork pool."""

    forks = pool_of(spec) == "prefork"

    def here() -> None:
        allow_waking()
        client = connect(config.redis_url)
        watch = Watch(client, stuck_after=config.stuck_after)
        watch.mind_finalizers()
        runner.bind(spec, handler, JobRecords(client, ttl_seconds=config.job_ttl), watch, acks=not forks)

    here()
    if not forks:
        return
    tally = runner.counters = Tally()

    def in_child(**_: Any) -> None:
        here()
        runner.counters = tally.teller()

    worker_process_init.connect(in_child, weak=False)
    worker_process_shutdown.connect(lambda **_: tracing.flush(), weak=False)
