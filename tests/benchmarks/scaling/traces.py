"""The loads: when jobs arrive and how long each takes. A seed fixes them; every trace begins and ends in quiet.

They are shapes that autoscalers are known for or complained about: bursts from nothing, ramps, a day, flapping round
a threshold, a trickle, long jobs, steady streams, heavy tails, a batch known in advance, a broker that goes away.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

QUIET_BEFORE = 300.0
# Each scaler pays for the agents that it leaves behind, the slowest (Ray Serve, 600 s) included.
QUIET_AFTER = 900.0

Rate = Callable[[float], float]


@dataclass(frozen=True)
class Trace:
    """due: when each job may begin, ascending; service: seconds; known: when the system is told, at most ``due``.

    outage: from when to when nobody reads the broker. horizon: the end of the trace, its quiet included.
    """

    name: str
    due: list[float]
    service: list[float]
    horizon: float
    known: list[float] | None = None
    outage: tuple[float, float] | None = None
    listed: list[float] = field(init=False)

    def __post_init__(self) -> None:
        begin, end = self.outage or (math.inf, math.inf)
        listed = [end if begin <= at < end else at for at in self.due]
        object.__setattr__(self, "listed", listed)  # when the broker has each


def _trace(
    name: str,
    jobs: list[tuple[float, float]],
    length: float,
    known: float | None = None,
    outage: tuple[float, float] | None = None,
) -> Trace:
    jobs.sort()
    due, service = [at for at, _ in jobs], [seconds for _, seconds in jobs]
    told = None if known is None else [min(known, at) for at in due]
    return Trace(name, due, service, QUIET_BEFORE + length + QUIET_AFTER, told, outage)


def _stream(rng: random.Random, rate: Rate, highest: float, length: float) -> list[float]:
    """Return arrivals of a Poisson process whose rate changes, by thinning (Lewis and Shedler, 1979)."""
    found: list[float] = []
    at = 0.0
    while True:
        at += rng.expovariate(highest)
        if at >= length:
            return found
        if rng.random() * highest < rate(at):
            found.append(QUIET_BEFORE + at)


def _about(rng: random.Random, mean: float, sigma: float = 0.3) -> float:
    """Return a lognormal service time with that mean."""
    return rng.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma)


def _batch(rng: random.Random, number: int, at: float, mean: float) -> list[tuple[float, float]]:
    return [(QUIET_BEFORE + at, _about(rng, mean)) for _ in range(number)]


def burst(rng: random.Random) -> Trace:
    """400 jobs of about 1 s at once, and again 10 minutes later."""
    return _trace("burst", _batch(rng, 400, 0.0, 1.0) + _batch(rng, 400, 600.0, 1.0), 660.0)


def ramp(rng: random.Random) -> Trace:
    """From none to 12 jobs a second and back in 30 minutes, each about 1 s."""
    length, top = 1800.0, 12.0
    times = _stream(rng, lambda at: top * (1 - abs(2 * at / length - 1)), top, length)
    return _trace("ramp", [(at, _about(rng, 1.0)) for at in times], length)


def diurnal(rng: random.Random) -> Trace:
    """A day in 90 minutes: from 0.1 to 5 jobs a second and back, each about 2 s."""
    length, low, top = 5400.0, 0.1, 5.0
    times = _stream(rng, lambda at: low + (top - low) * (1 - math.cos(math.tau * at / length)) / 2, top, length)
    return _trace("diurnal", [(at, _about(rng, 2.0)) for at in times], length)


def square(rng: random.Random) -> Trace:
    """A minute of 8 jobs a second, a minute of one every two seconds, twelve times; each about 1 s."""
    length, period = 1440.0, 120.0
    times = _stream(rng, lambda at: 8.0 if at % period < period / 2 else 0.5, 8.0, length)
    return _trace("square", [(at, _about(rng, 1.0)) for at in times], length)


def trickle(rng: random.Random) -> Trace:
    """One job of half a second every 20 to 60 s, for an hour."""
    jobs, at = [], 0.0
    while (at := at + rng.uniform(20.0, 60.0)) < 3600.0:
        jobs.append((QUIET_BEFORE + at, _about(rng, 0.5)))
    return _trace("trickle", jobs, 3600.0)


def long_jobs(rng: random.Random) -> Trace:
    """Sixteen jobs of 1 to 8 minutes, at random in 40 minutes."""
    jobs = [(QUIET_BEFORE + rng.uniform(0.0, 2400.0), rng.uniform(60.0, 480.0)) for _ in range(16)]
    return _trace("long jobs", jobs, 2880.0)


def slow(rng: random.Random) -> Trace:
    """A Poisson stream of one job in 10 s, exponential with mean 2 s, for an hour."""
    times = _stream(rng, lambda at: 0.1, 0.1, 3600.0)
    return _trace("poisson slow", [(at, rng.expovariate(1 / 2.0)) for at in times], 3600.0)


def fast(rng: random.Random) -> Trace:
    """A Poisson stream of 8 jobs a second, exponential with mean 1 s, for 30 minutes."""
    times = _stream(rng, lambda at: 8.0, 8.0, 1800.0)
    return _trace("poisson fast", [(at, rng.expovariate(1.0)) for at in times], 1800.0)


def heavy_tail(rng: random.Random) -> Trace:
    """Two jobs a second, Pareto (shape 1.5, mean about 3 s, none above 10 minutes), for 40 minutes."""
    times = _stream(rng, lambda at: 2.0, 2.0, 2400.0)
    return _trace("heavy tail", [(at, min(600.0, rng.paretovariate(1.5))) for at in times], 2400.0)


def eta_batch(rng: random.Random) -> Trace:
    """200 jobs of about 5 s, all due at one instant that is known 10 minutes ahead."""
    return _trace("eta batch", _batch(rng, 200, 600.0, 5.0), 720.0, known=QUIET_BEFORE)


def outage(rng: random.Random) -> Trace:
    """Two jobs a second for 10 minutes, 400 more at once in the third; 5 s later the broker is away for a minute."""
    jobs = [(at, _about(rng, 1.0)) for at in _stream(rng, lambda at: 2.0, 2.0, 600.0)]
    begin = QUIET_BEFORE + 185.0
    return _trace("outage", jobs + _batch(rng, 400, 180.0, 1.0), 600.0, outage=(begin, begin + 60.0))


MAKERS: dict[str, Callable[[random.Random], Trace]] = {
    "burst": burst,
    "ramp": ramp,
    "diurnal": diurnal,
    "square": square,
    "trickle": trickle,
    "long jobs": long_jobs,
    "poisson slow": slow,
    "poisson fast": fast,
    "heavy tail": heavy_tail,
    "eta batch": eta_batch,
    "outage": outage,
}


def make(name: str, seed: int) -> Trace:
    """Return the trace of that name for ``seed``, always the same."""
    return MAKERS[name](random.Random(f"{name}/{seed}"))
