"""Jobs by REST, the durable way: once the API has answered, a job is in PostgreSQL."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

from brain_clusters.client.errors import JobCancelled, JobFailed
from brain_clusters.client.events import follow
from brain_clusters.client.rest import Rest

_MOST_JOBS = 10_000
# Below the 16 MiB that the API reads, with room for what a job has besides its payload.
_MOST_BYTES = 12_000_000
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
_ENDED = ("failed", "dead")


class Client:
    """The API at ``url``. key: of BRAIN_API_KEYS; timeout: the seconds that a request may take, with repetitions.

    A request that finds nobody, or a server that is busy, is repeated with the same Idempotency-Key, so nothing is
    done twice. Thread-safe. Options of a job are those of ``POST /api/clusters/{id}/jobs``: priority, eta or delay,
    timeout, max_attempts, backoff, backoff_max, expires, key.
    """

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 30.0) -> None:
        self._rest = Rest(url, key, timeout)

    def submit(
        self, cluster: str, payload: Any = None, *, to: str | None = None, capability: str | None = None, **options: Any
    ) -> Job:
        """Send a job to a group of a cluster by name, or by capability; without either to its supervisor."""
        body = {"payload": payload, **_stated(to=to, capability=capability), **options}
        return Job(self._rest, self._rest.post(f"/api/clusters/{quote(cluster, safe='')}/jobs", body)["job"]["id"])

    def submit_many(
        self,
        cluster: str,
        payloads: Iterable[Any],
        *,
        to: str | None = None,
        capability: str | None = None,
        keys: Sequence[str] | None = None,
        **options: Any,
    ) -> list[Job]:
        """Send a job for each payload, all with the same options; a request for every ten thousand.

        A request is accepted as a whole or not at all. keys: one for each payload, so that a job that was sent before
        is not made again.
        """
        path, found = f"/api/clusters/{quote(cluster, safe='')}/jobs", list[Job]()
        common = {**_stated(to=to, capability=capability), **options}
        for chunk in _chunks(payloads, common, keys):
            found += [Job(self._rest, one["id"]) for one in self._rest.post(path, chunk)["jobs"]]
        return found

    def submit_to(self, capability: str, payload: Any = None, **options: Any) -> Job:
        """Send a job to the cluster that offers the capability and will begin it first; ``routing`` says which."""
        found = self._rest.post("/api/jobs", {"capability": capability, "payload": payload, **options})
        return Job(self._rest, found["job"]["id"], routing=found["routing"])

    def job(self, job_id: str) -> Job:
        """Return a job by its id, without asking whether there is one."""
        return Job(self._rest, job_id)

    def events(
        self, *, cluster: str | None = None, kind: str | None = None, after: str | None = None, patience: float = 300.0
    ) -> Iterator[dict[str, Any]]:
        """Yield events as they happen, for ever: none is left out and none comes twice, however often it is cut off.

        From now on, or after the ``position`` of an event. One of the kind "reset" says that events after the place
        it was at are not kept any more. Raises ApiError for a refusal, and Unreachable when it has heard nothing for
        ``patience`` seconds and the API does not answer.
        """
        return follow(self._rest, _stated(cluster_id=cluster, kind=kind), after, patience)

    def close(self) -> None:
        """Close this thread's connection."""
        self._rest.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Job:
    """A job that was sent. routing: where it went and why, as the API told; None where its cluster was named."""

    def __init__(self, rest: Rest, job_id: str, *, routing: dict[str, Any] | None = None) -> None:
        self._rest, self._path = rest, f"/api/jobs/{quote(job_id, safe='')}"
        self.id, self.routing = job_id, routing

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def info(self) -> dict[str, Any]:
        """Return all that the API tells of the job now."""
        found: dict[str, Any] = self._rest.get(self._path)
        return found

    def status(self) -> str:
        """Return queued, running, succeeded, failed, dead or cancelled."""
        return str(self.info()["status"])

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the job's end and return its result.

        Raises JobFailed, JobCancelled, or TimeoutError when it has not ended after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE_SECONDS
        while True:
            found = self.info()
            if found["status"] == "succeeded":
                return found["result"]
            if found["status"] in _ENDED:
                raise JobFailed(self.id, found["error"] or {})
            if found["status"] == "cancelled":
                raise JobCancelled(self.id)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"job {self.id} is still {found['status']} after {timeout:g} s")
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)

    def cancel(self, *, grace: float | str | None = None) -> None:
        """Cancel the job. One that runs is asked to end, and is ended after ``grace``, a duration."""
        self._rest.post(f"{self._path}/cancel", _stated(grace=grace))

    def retry(self) -> None:
        """Queue the job again, which failed, is dead or was cancelled."""
        self._rest.post(f"{self._path}/retry", {})

    def tree(self) -> dict[str, Any]:
        """Return the jobs that this one belongs to or handed down, as a tree."""
        found: dict[str, Any] = self._rest.get(f"{self._path}/tree")
        return found


def _stated(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _chunks(
    payloads: Iterable[Any], common: dict[str, Any], keys: Sequence[str] | None
) -> Iterator[list[dict[str, Any]]]:
    """Yield the bodies of requests, none too long."""
    chunk: list[dict[str, Any]] = []
    size = 0
    for place, payload in enumerate(payloads):
        job = {"payload": payload, **common, **({"key": keys[place]} if keys is not None else {})}
        length = len(json.dumps(job))
        if chunk and (len(chunk) == _MOST_JOBS or size + length > _MOST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(job)
        size += length
    if chunk:
        yield chunk
