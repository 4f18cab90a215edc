"""PostgreSQL, Redis, and what their contents tell of beat, workers and hosts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from brain_clusters.cli.doctor import Finding, failed, ok, skipped, warning
from brain_clusters.cli.words import size, span
from brain_clusters.config import Settings
from brain_clusters.embedded import connected
from brain_clusters.errors import BrainError, PermanentError

if TYPE_CHECKING:
    from brain_clusters.broker.diagnosis import RedisFacts
    from brain_clusters.services.control import Control
    from brain_clusters.services.diagnosis import DatabaseFacts

_LITTLE_LEAD, _MOST_LEAD = 1.0, 5.0
# Ticks come every few seconds; whoever has set longer pauses has them counted in.
_TICKS = 5
_PATIENCE_SECONDS = 30.0
_FULL = 0.9


def look(settings: Settings) -> Iterator[Finding]:
    """Yield what is found on the servers that are set, or that run embedded."""
    try:
        settings = connected(settings)
    except PermanentError as exc:
        yield skipped("servers", f"{exc}")
        return
    from brain_clusters.services.control import Control  # here: the libraries of databases are slow to import

    control = Control.open(settings, application="doctor")
    try:
        yield from _database(control, settings)
        yield from _redis(control)
    finally:
        control.close()


def _database(control: Control, settings: Settings) -> Iterator[Finding]:
    from brain_clusters.services.diagnosis import of_database

    try:
        facts = of_database(control)
    except BrainError as exc:
        yield failed("PostgreSQL", str(exc), "start it, or mend BRAIN_DATABASE_URL; commands wait for it meanwhile")
        return
    yield ok("PostgreSQL", f"version {facts.version}")
    yield judge_clock("PostgreSQL", facts.clock_lead)
    if facts.schema is not None:
        yield failed("schema", facts.schema, "run 'brain-clusters migrate' with the newest version that is to run")
        return
    yield ok("schema", "this version works with it")
    yield from judge_database(facts, settings)


def judge_database(facts: DatabaseFacts, settings: Settings) -> Iterator[Finding]:
    """Yield what the database's contents tell of beat, lifecycle commands and hosts."""
    patience = max(_PATIENCE_SECONDS, _TICKS * settings.tick_interval_seconds)
    begin = "'brain-clusters up', or the process 'brain-clusters"
    if facts.tick_age is None:
        yield warning("beat", "it never ticked: nothing is scaled, woken or swept", f"start {begin} beat'")
    elif facts.tick_age > patience:
        yield failed(
            "beat", f"the last tick was {span(facts.tick_age)} ago", f"start {begin} beat' and {begin} worker'"
        )
    else:
        yield ok("beat", f"the last tick was {span(facts.tick_age)} ago")
    if facts.waiting_age is not None and facts.waiting_age > patience:
        says = f"{facts.waiting} commands wait, the oldest for {span(facts.waiting_age)}"
        yield failed("commands", says, f"start {begin} worker', or more of them; its log tells what it does")
    else:
        yield ok("commands", f"{facts.waiting} wait to be begun")
    yield from _hosts(facts.hosts, settings)


def _hosts(hosts: dict[str, float], settings: Settings) -> Iterator[Finding]:
    if not hosts:
        yield warning(
            "hosts", "none runs, so no agent can start", "start 'brain-clusters host', or up without --no-host"
        )
    for name, seen in hosts.items():
        if seen > settings.host_lease_seconds:
            do = f"start it again, or leave it: its agents were replaced by other hosts (BRAIN_HOST_ID={name})"
            yield failed(f"host {name}", f"was seen {span(seen)} ago for the last time", do)
        else:
            yield ok(f"host {name}", f"was seen {span(seen)} ago")


def _redis(control: Control) -> Iterator[Finding]:
    from brain_clusters.broker.diagnosis import facts

    try:
        found = facts(control.broker.redis)
    except BrainError as exc:
        yield failed(
            "Redis", str(exc), "start it, or mend BRAIN_REDIS_URL; nothing is scaled meanwhile, nothing is lost"
        )
        return
    yield ok("Redis", f"version {found.version}, {size(found.memory)} in use")
    yield from judge_redis(found)


def judge_redis(found: RedisFacts) -> Iterator[Finding]:
    """Yield whether Redis may lose jobs, and who takes the commands that are queued in it."""
    if found.policy not in (None, "noeviction"):
        says = f"maxmemory-policy is {found.policy}: Redis throws queues and jobs away when it is full"
        yield failed("eviction", says, "CONFIG SET maxmemory-policy noeviction, and in its configuration")
    else:
        yield ok("eviction", "noeviction" if found.policy else "its policy may not be read; it has to be noeviction")
    if found.memory_limit and found.memory > _FULL * found.memory_limit:
        says = f"{size(found.memory)} of {size(found.memory_limit)} are in use"
        yield failed("Redis memory", says, "give it more (maxmemory), or let its jobs be done")
    if found.appendonly == "yes" or found.save:
        yield ok("persistence", "append-only file" if found.appendonly == "yes" else f"snapshots ({found.save})")
    elif found.appendonly is None:
        yield skipped("persistence", "may not be read; jobs by REST outlive a loss of Redis, others do not")
    else:
        says = (
            "off: messages that Celery clients queue by themselves are lost when Redis restarts; jobs by REST are not"
        )
        yield warning("persistence", says, "CONFIG SET appendonly yes, and in its configuration")
    if not found.workers:
        do = "start 'brain-clusters up', or the process 'brain-clusters worker'"
        yield failed("worker", f"none runs; {found.commands_waiting} messages wait for one", do)
    else:
        yield ok("worker", f"{found.workers} alive, {found.commands_waiting} messages wait for them")


def judge_clock(whose: str, lead: float) -> Finding:
    """Return how two clocks agree. lead: seconds that the other one is ahead of ours."""
    name, says = f"clock of {whose}", f"{abs(lead):.1f} s {'ahead of' if lead > 0 else 'behind'} this machine's"
    do = "let both machines keep time by NTP (timedatectl set-ntp true)"
    if abs(lead) > _MOST_LEAD:
        return failed(name, says, do)
    return warning(name, says, do) if abs(lead) > _LITTLE_LEAD else ok(name, "agrees with this machine's")
