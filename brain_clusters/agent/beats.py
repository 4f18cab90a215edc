"""What an agent tells about itself: a key in Redis that it keeps fresh, and that expires with it."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis

from brain_clusters.agent.hearing import Hearing
from brain_clusters.broker import names

log = logging.getLogger(__name__)

# Weight of the newest job in the learned service time: about the last ten jobs count.
_EWMA_WEIGHT = 0.2
# EX_UNAVAILABLE of sysexits.h: everything it needs has gone.
EXIT_ORPHANED = 69
# EX_NOPERM of sysexits.h: this agent was given up, and others do its work.
EXIT_FENCED = 77
# An agent that is the process of a container or pod, and that Redis does not answer for so long, ends.
ALONE_SECONDS = 600.0
_DAY_SECONDS = 86_400
# A tick that missed this many days of beats would miss what an agent did before them.
_DAYS_KEPT = 3
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class BusyTime:
    """How long an agent worked, by day (UTC) for its last days: each second in which it had at least one job.

    Of each day: seconds while it took jobs, seconds while it drained, and the sum over its slots. Not safe for threads.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.days: dict[str, list[float]] = {}
        self._mark = time.monotonic()

    def spend(self, slots: int, *, draining: bool) -> None:
        """Count the time since the last call, in which so many slots were busy."""
        now = time.monotonic()
        elapsed, self._mark = now - self._mark, now
        if not slots:
            return
        self.total += elapsed
        wall = time.time()
        today = min(elapsed, wall % _DAY_SECONDS)
        for at, seconds in ((wall - elapsed, elapsed - today), (wall, today)):
            if seconds > 0:
                day = self.days.setdefault(time.strftime("%Y-%m-%d", time.gmtime(at)), [0.0, 0.0, 0.0])
                day[draining] += seconds
                day[2] += seconds * slots
        for name in sorted(self.days)[:-_DAYS_KEPT]:
            del self.days[name]


class Counters:
    """What the agent did so far. Safe for several slots. Times in seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = BusyTime()
        self._draining = False
        self._job_seconds = 0.0
        self._in_flight = 0
        # The sum of the times at which the jobs in flight began: with their number it gives their mean age.
        self._begun = 0.0
        self._completed = 0
        self._failed = 0
        self._service_time: float | None = None
        self._last_error: str | None = None
        self._idle_since = time.time()

    def begin(self) -> None:
        """A job begins."""
        with self._lock:
            self._busy.spend(self._in_flight, draining=self._draining)
            self._in_flight += 1
            self._begun += time.monotonic()

    def end(self, seconds: float, *, failed: bool | None, error: str | None = None) -> None:
        """An attempt ended after ``seconds``. failed: None for one that is cancelled or tried again: it is neither.

        error: for a person.
        """
        with self._lock:
            self._busy.spend(self._in_flight, draining=self._draining)
            self._in_flight -= 1
            self._begun = self._begun - (time.monotonic() - seconds) if self._in_flight else 0.0
            self._completed += failed is False
            self._failed += failed is True
            self._last_error = error or self._last_error
            self._job_seconds += seconds if failed is not None else 0.0
            before = self._service_time if self._service_time is not None else seconds
            self._service_time = before + _EWMA_WEIGHT * (seconds - before)
            self._idle_since = time.time()

    def drop(self, seconds: float) -> None:
        """A job is not done here any more: its process died after ``seconds``."""
        with self._lock:
            self._busy.spend(self._in_flight, draining=self._draining)
            self._in_flight -= 1
            self._begun = self._begun - (time.monotonic() - seconds) if self._in_flight else 0.0
            self._idle_since = time.time()

    def in_flight(self) -> int:
        """Return how many jobs are being done. Takes no lock: one number is read whole."""
        return self._in_flight

    def snapshot(self, *, draining: bool = False) -> dict[str, Any]:
        """Return the counters as they stand in a beat. draining: whether the agent takes no more jobs."""
        with self._lock:
            self._draining = draining
            self._busy.spend(self._in_flight, draining=draining)
            ended = self._completed + self._failed
            return {
                "draining": draining,
                "busy_seconds": round(self._busy.total, 3),
                "busy_days": {day: [round(one, 3) for one in found] for day, found in self._busy.days.items()},
                "mean_time": self._job_seconds / ended if ended else None,
                "state": "busy" if self._in_flight else "idle",
                "in_flight": self._in_flight,
                "completed": self._completed,
                "failed": self._failed,
                "service_time": self._service_time,
                "running_for": self._running_for(),
                "idle_since": self._idle_since,
                **({"last_error": self._last_error} if self._last_error else {}),
            }

    def _running_for(self) -> float | None:
        """Return how long the jobs in flight have run so far, on average."""
        return max(0.0, time.monotonic() - self._begun / self._in_flight) if self._in_flight else None


class Usage:
    """Share of one core used since the last look, and resident memory."""

    def __init__(self) -> None:
        self._at, self._cpu = time.monotonic(), time.process_time()

    def sample(self) -> dict[str, float]:
        """Return cpu (%) and memory (bytes)."""
        at, cpu = time.monotonic(), time.process_time()
        percent = 100.0 * (cpu - self._cpu) / max(at - self._at, 1e-6)
        self._at, self._cpu = at, cpu
        return {"cpu": round(percent, 1), "memory": _resident_bytes()}


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:  # not Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Beats:
    """Writes the beat every ``interval`` seconds from a thread of its own.

    The key lives for ``stale`` seconds, so its presence is its freshness and no clocks need to agree.

    An agent without a host also says that it is there, until it leaves, so that it is given up once its beats cease.

    An agent that nobody would ever stop ends by itself after ``orphan`` seconds: it leaves when Redis answers and its
    host's key is not there, and is gone at once when Redis is away and its zygote, too, has died. alone: it has no
    zygote; then it waits for Redis for ten minutes, and longer while it works: an installation that was removed never
    stops it.

    An agent that was given up, as its host was lost, ends at once and takes what it started along: what it held is
    given to others.
    """

    def __init__(
        self, client: redis.Redis, agent_id: str, snapshot: Callable[[], dict[str, Any]], hearing: Hearing,
        *, host_id: str | None, alone: bool = False,
    ) -> None:  # fmt: skip
        self._client = client
        self._hearing = hearing
        self._alone = alone
        self._agent_id = agent_id
        self._snapshot = snapshot
        self._fenced_key = names.fenced_key(agent_id)
        self._host_key = names.host_key(host_id) if host_id else None
        self._usage = Usage()
        self._host_seen = time.monotonic()
        self._zygote = os.getppid()

    def start(self, *, interval: float, stale: float, orphan: float) -> None:
        """Write the first beat now and the others from a daemon thread."""
        self._once(stale, orphan)
        threading.Thread(target=self._run, args=(interval, stale, orphan), name="beats", daemon=True).start()

    def last(self, *, stale: float) -> None:
        """Write what was done up to the end; whoever sees that the agent left reads it."""
        try:
            self._client.set(names.beat_key(self._agent_id), self._text(), px=int(stale * 1000))
            self._client.srem(names.ALONE_SET, self._agent_id)
        except (redis.RedisError, OSError) as exc:
            log.warning("the last beat was not written: %s", type(exc).__name__)

    def _run(self, interval: float, stale: float, orphan: float) -> None:
        well = time.monotonic()
        while True:
            time.sleep(interval)
            try:
                self._once(stale, orphan)
                well = time.monotonic()
            except Exception:  # a job's code can change anything in its process; an agent must not be silent for good
                with suppress(Exception):
                    log.exception("beat failed")
                if time.monotonic() - well > orphan:
                    os._exit(EXIT_ORPHANED)

    def _text(self) -> str:
        return json.dumps({**self._snapshot(), **self._usage.sample(), "pid": os.getpid(), "at": time.time()})

    def _gave_up_waiting(self, silent: float) -> bool:
        return self._alone and silent > ALONE_SECONDS and not self._hearing.works

    def _once(self, stale: float, orphan: float) -> None:
        try:
            if self._host_key is None:
                self._client.sadd(names.ALONE_SET, self._agent_id)
            pipe = self._client.pipeline(transaction=False)
            pipe.set(names.beat_key(self._agent_id), self._text(), px=int(stale * 1000))
            pipe.exists(self._fenced_key)
            if self._host_key:
                pipe.exists(self._host_key)
            _, fenced, *host_is_there = pipe.execute()
            if fenced:
                _end_at_once()
            self._hearing.check()
        except (redis.RedisError, OSError) as exc:
            log.warning("beat was not written: %s", type(exc).__name__)
            self._hearing.forgive()
            silent = time.monotonic() - self._host_seen
            if (os.getppid() != self._zygote and silent > orphan) or self._gave_up_waiting(silent):
                log.error("Redis and the host are gone; what this agent held is in Redis, if that ever returns")
                os._exit(EXIT_ORPHANED)  # a worker without its broker hears no other signal
            return
        if all(host_is_there):
            self._host_seen = time.monotonic()
        elif time.monotonic() - self._host_seen > orphan:
            log.warning("host is gone; leaving")
            os.kill(os.getpid(), signal.SIGTERM)


def _end_at_once() -> None:
    log.error("this agent was given up, as its host did not answer; others do its work")
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(EXIT_FENCED)
