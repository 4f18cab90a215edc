"""From a fork to a consuming Celery worker."""

from __future__ import annotations

import fcntl
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from brain_clusters import logs, tracing
from brain_clusters.agent import job as job_module
from brain_clusters.agent import pools
from brain_clusters.agent.beats import Beats
from brain_clusters.agent.config import AgentConfig
from brain_clusters.agent.draining import Draining
from brain_clusters.agent.handlers import Handler
from brain_clusters.agent.hearing import Hearing
from brain_clusters.broker import green
from brain_clusters.broker.app import make_app, transport_options
from brain_clusters.broker.client import connect
from brain_clusters.domain.agents import AgentSpec
from brain_clusters.processes import ProcessId

# EX_TEMPFAIL of sysexits.h: another process runs this agent already.
EXIT_ALREADY_RUNNING = 75
# Options of a Celery worker that neither greets others nor talks with them: the host and the beats know who is there.
ALONE = {"quiet": True, "without_mingle": True, "without_gossip": True, "without_heartbeat": True}


def prepare_app(config: AgentConfig) -> tuple[Celery, job_module.JobRunner]:
    """Make the app as far as it can be made before the fork. Opens no connection."""
    warnings.filterwarnings("ignore", message=".*superuser privileges.*")
    app = make_app(config.redis_url, owner="zygote", result_expires=config.job_ttl)
    runner = job_module.register(app)
    app.finalize()
    _ = app.amqp, app.log, app.backend.client
    return app, runner


def run(
    app: Celery,
    runner: job_module.JobRunner,
    spec: AgentSpec,
    handler: Handler,
    config: AgentConfig,
    on_ready: Callable[[], None],
) -> int:
    """Be the agent ``spec`` until told to stop; return the exit code. Called in the forked child.

    SIGTERM ends it once it has finished what it does; for SIGUSR1 see ``agent.draining``.
    """
    lock = hold_identity(Path(config.run_dir), spec.agent_id)
    if lock is None:
        return EXIT_ALREADY_RUNNING
    log_to_standard_error(spec, config)
    tracing.start("agent", cluster_id=spec.cluster_id, agent_id=spec.agent_id)
    client = connect(config.redis_url)
    pools.bind(runner, spec, handler, config)
    app.conf.broker_transport_options = transport_options(spec.agent_id, record_ttl=config.job_ttl)
    if pools.pool_of(spec) == "gevent":
        app.conf.broker_transport = green.TRANSPORT
    draining = Draining.of(spec, config, client, runner.counters.in_flight)
    beats = Beats(
        client,
        spec.agent_id,
        lambda: {**runner.counters.snapshot(draining=draining.hear()), "slots": spec.concurrency},
        Hearing(client, spec.agent_id, [spec.queue], runner.counters.in_flight, deaf_after=config.deaf_after),
        host_id=config.host_id,
        alone=config.told_by_redis,
    )

    once_it_consumes(config, draining, beats, on_ready)
    worker = app.Worker(
        hostname=spec.agent_id,
        queues=[spec.queue],
        pool=pools.pool_of(spec),
        concurrency=spec.concurrency,
        loglevel="WARNING",
        **ALONE,
    )
    worker.start()
    tracing.stop()
    beats.last(stale=config.beat_stale)
    return int(worker.exitcode or 0)


def once_it_consumes(config: AgentConfig, draining: Draining, beats: Beats, on_ready: Callable[[], None]) -> None:
    """Have the worker of this process listen to its host, beat, and tell ``on_ready``, as soon as it consumes."""

    def announce(sender: Any, **_: Any) -> None:
        draining.listen(sender)
        beats.start(interval=config.beat_interval, stale=config.beat_stale, orphan=config.orphan_after)
        on_ready()

    worker_ready.connect(announce, weak=False)


def hold_identity(run_dir: Path, agent_id: str) -> int | None:
    """Lock this agent's file for life and write who holds it; None when another process is this agent."""
    descriptor = os.open(run_dir / f"{agent_id}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    identity = ProcessId.current()
    os.write(descriptor, f"{identity.pid} {identity.started}\n".encode())
    return descriptor


def log_to_standard_error(spec: AgentSpec, config: AgentConfig) -> None:
    """Have everything logged to standard error, which is the agent's log."""
    ids = {"agent_id": spec.agent_id, "cluster_id": spec.cluster_id}
    logs.configure("agent", config.log_level, config.log_format, **ids)
    logging.getLogger("celery").setLevel(logging.WARNING)
    # On their own loggers: Celery sets the root's level to its own, and handlers' lines would be lost.
    for name in ("job", "brain_clusters"):
        logging.getLogger(name).setLevel(config.log_level)
