"""The processes of the system, one command each: api, worker, beat, host; and migrate, which they stand on."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from dataclasses import asdict

import click

from brain_clusters import logs, tracing
from brain_clusters.config import Settings, user_environment
from brain_clusters.domain.engines import PROCESS, Resources
from brain_clusters.embedded import connected, make_home
from brain_clusters.genesis.process import machine
from brain_clusters.processes import LifeLock


def _settings(process: str) -> Settings:
    settings = connected(Settings.from_env())
    _log_as(process, settings)
    return settings


def _log_as(process: str, settings: Settings, **ids: str) -> None:
    logs.configure(process, settings.log_level, settings.log_format, **ids)
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)  # it tells of each that it finds


@click.command()
def migrate() -> None:
    """Bring the schema up to date and store the blueprints; safe to run several times and at once."""
    from brain_clusters.services.setup import prepare

    made = prepare(_settings("migrate"))
    if made is not None:
        click.echo(f"made a key for an admin: {made}")
    click.echo("the database is up to date")


@click.command()
def api() -> None:
    """Run the REST API and the dashboard until SIGTERM."""
    from brain_clusters import dashboard
    from brain_clusters.api.server import serve

    serve(_settings("api"), dashboard.attach)


@click.command()
def worker() -> None:
    """Run a worker of lifecycle commands until SIGTERM. Run as many as you like."""
    settings = _settings("worker")
    from brain_clusters.services.setup import wait_for_schema

    wait_for_schema(settings)
    from brain_clusters.broker.client import Broker
    from brain_clusters.broker.names import LIFECYCLE_QUEUE
    from brain_clusters.services.workers import beat_forever
    from workers.app import OWNER, app

    assert settings.redis_url is not None  # noqa: S101 - connected() made sure
    stopped = threading.Event()
    beats = Broker(settings.redis_url, app=app)
    threading.Thread(target=beat_forever, args=(beats, OWNER, stopped), name="beats", daemon=True).start()
    celery_worker = app.Worker(
        hostname=OWNER,
        queues=[LIFECYCLE_QUEUE],
        pool="threads",
        concurrency=settings.worker_concurrency,
        loglevel=settings.log_level,
        quiet=True,
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,
    )
    tracing.start("worker")
    celery_worker.start()
    tracing.stop()
    stopped.set()
    sys.exit(celery_worker.exitcode or 0)


@click.command()
def beat() -> None:
    """Run the clock of the autoscaler until SIGTERM. A second one does no harm."""
    settings = _settings("beat")
    from brain_clusters.services.setup import wait_for_schema

    wait_for_schema(settings)
    from workers.app import app

    # The schedule has no memory worth keeping: intervals of seconds, so no schedule file is left anywhere.
    logging.getLogger("celery.beat").setLevel(logging.WARNING)  # or it tells of every tick
    clock = app.Beat(scheduler="celery.beat:Scheduler", quiet=True, loglevel="WARNING")
    clock.run()


@click.command()
@click.option(
    "--driver", default=PROCESS, help="The engine whose agents it runs: process, docker, kubernetes, remote, ..."
)
def host(driver: str) -> None:
    """Run the agents of this machine, or of another engine, until SIGTERM; SIGHUP leaves them to the next host.

    While another process is the same host, it stands by, and takes over when that one is dead or silent.
    With BRAIN_HOST_ON_STOP=leave SIGTERM leaves them, too.
    """
    settings = connected(Settings.from_env())
    host_id = _host_id(settings, driver)
    _log_as("host", settings, host_id=host_id)
    from brain_clusters import drivers
    from brain_clusters.broker.words import DrainWords
    from brain_clusters.cli.turns import Turns
    from brain_clusters.genesis.driver import Factory, Kit
    from brain_clusters.genesis.host import Host
    from brain_clusters.services.control import Control
    from brain_clusters.services.hosting import HostDesk

    _check_driver(driver)
    control = Control.open(settings, application=f"host.{host_id}"[:60])
    tracing.start("host", host_id=host_id)
    try:
        kit = Kit(
            settings, host_id, agent_config(settings, host_id), user_environment(), DrainWords(control.broker.redis),
            installation=control.database.identity,
        )  # fmt: skip
        factory: Factory = drivers.installed()[driver].load()
        capacity, lock = settings.host_capacity, LifeLock(settings.home / "run" / host_id / "host.held")
        desk = HostDesk(control, host_id, capacity, driver, has=_resources(settings, driver), lock=lock)
        turns = Turns(desk, lambda: Host(desk, factory(kit), capacity=capacity), local=driver == PROCESS)
        leaves = settings.host_on_stop == "leave"
        signal.signal(signal.SIGTERM, lambda *_: turns.abandon() if leaves else turns.stop(settings.stop_grace_seconds))
        signal.signal(signal.SIGINT, lambda *_: turns.stop(settings.stop_grace_seconds))
        signal.signal(signal.SIGHUP, lambda *_: turns.abandon())
        turns.run()
    finally:
        tracing.stop()
        control.close()


@click.command()
@click.option("--driver", default=PROCESS, help="The engine that runs the agents: process, docker, kubernetes, ...")
@click.option("--listen", default="127.0.0.1:8090", metavar="HOST:PORT", help="Where to listen; 127.0.0.1:8090.")
def genesis(driver: str, listen: str) -> None:
    """Run a Genesis service until SIGTERM: it starts agents for hosts elsewhere, whose driver is remote.

    Needs no database. The agents live on when it ends, and are found again by the next one of this BRAIN_HOME.
    """
    settings = Settings.from_env()
    _log_as("genesis", settings)
    from brain_clusters.api.genesis.server import serve

    _check_driver(driver)
    if driver == "remote":
        raise click.BadParameter("must be an engine, and no other Genesis service", param_hint="--driver")
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise click.BadParameter("must be an address and a port, such as 127.0.0.1:8090", param_hint="--listen")
    make_home(settings.home)
    serve(settings, driver, (host.strip("[]"), int(port)), agent_config(settings, None))


def _check_driver(name: str) -> None:
    from brain_clusters import drivers

    try:
        drivers.check_name(name)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--driver") from None
    drivers.check_usable(name)


def _host_id(settings: Settings, driver: str) -> str:
    """Return the host's name. That of an engine elsewhere does not change with the machine that this runs on."""
    if driver == PROCESS:
        return settings.host_id or socket.gethostname()
    return f"{settings.host_id}.{driver}" if settings.host_id else driver


def _resources(settings: Settings, driver: str) -> Resources:
    """Return what the host has for agents: what is set, else the machine's where they run on it, else no limit."""
    found = machine.resources() if driver == PROCESS else Resources()
    cpu = found.cpu if settings.host_cpus is None else settings.host_cpus
    return Resources(cpu, found.memory_bytes if settings.host_memory is None else settings.host_memory)


def agent_config(settings: Settings, host_id: str | None) -> dict[str, object]:
    """Return what every agent of a host is given, an ``agent.config.AgentConfig`` as JSON-ready data."""
    from brain_clusters.agent.config import AgentConfig

    return asdict(
        AgentConfig(
            redis_url=settings.redis_url or "",
            host_id=host_id,
            run_dir=str(settings.home / "run" / (host_id or "")),
            log_dir=str(settings.home / "logs" / "agents"),
            handler_path=(*settings.handler_path, os.getcwd()),
            beat_interval=settings.beat_interval_seconds,
            beat_stale=settings.beat_stale_seconds,
            job_ttl=settings.job_ttl_seconds,
            log_level=settings.log_level,
            log_format=settings.log_format,
            http_allowed_networks=settings.http_allowed_networks,
            llm_base_url=settings.llm_base_url,
            llm_api_key=settings.llm_api_key,
        )
    )
