"""The limit: one that knows every arrival and every service time.

Jobs begin in the order of arrival, as soon as fewer than ``maximum`` run: no work-conserving scaler in that order can
make them wait less. Each is given to the agent that became free last, and an agent whose next job is further away
than a start takes is stopped and started again in time. So its agent-hours are what no waiting costs, near the least
possible; a scaler that lets jobs wait can be cheaper, down to the service times themselves (``work``).
"""

from __future__ import annotations

from bisect import insort
from heapq import heappop, heappush

from tests.benchmarks.scaling.records import Run
from tests.benchmarks.scaling.traces import Trace

NAME = "oracle"


def begins(trace: Trace, maximum: int) -> list[float]:
    """Return when each job begins: first come, first served by ``maximum`` agents that are always there."""
    free = [0.0] * maximum
    out, back = trace.outage or (0.0, 0.0)
    found = []
    for at, service in zip(trace.listed, trace.service, strict=True):
        begin = max(at, heappop(free))
        if out <= begin < back:
            begin = back
        found.append(begin)
        heappush(free, begin + service)
    return found


def run(trace: Trace, start_time: float, maximum: int = 20) -> Run:
    """Return the oracle's figures for ``trace``."""
    free: list[float] = []  # when the agents that are not busy ended, ascending
    busy: list[float] = []
    seconds, agents, moments = 0.0, 0, set()
    began = begins(trace, maximum)
    for begin, service in zip(began, trace.service, strict=True):
        while busy and busy[0] <= begin:
            insort(free, heappop(busy))
        gap = begin - free.pop() if free else None
        if gap is None or gap > start_time:
            seconds += start_time
            moments.add(begin - start_time)
            if gap is not None:
                moments.add(begin - gap)
        else:
            seconds += gap
        seconds += service
        heappush(busy, begin + service)
        agents = max(agents, len(busy))
    waits = [at - due for at, due in zip(began, trace.due, strict=True)]
    ended = max(trace.horizon, max(busy, default=0.0))
    return Run(waits, seconds, 0.0, len(moments) + 1, 0, 0, agents, [1] * len(waits), ended)
