"""Kombu's Redis transport, with the one gap closed through which a killed worker loses a message.

Kombu pops a message with BRPOP and then writes it to the unacked hash; a worker killed in between loses it (measured:
30 % of kills in the first 3 ms after a publish). Here one script moves it out of its queue into its owner's hash; and
where it is a job, counts the delivery and begins its record. ``broker.restore`` returns what a dead owner held.

A script cannot block. When it found nothing the connection waits with BLMOVE on the list of the default priority, which
moves what comes into the owner's claim list, and there the same script takes it. So a message of another priority may
wait for up to ``polling_interval``.

A message whose ETA lies ahead is not delivered: Celery would take such messages without bound and hold them in memory.
It is parked in the queue's sorted set, and whoever looks when it is due claims it from there.
Pinned to kombu 5.7 by tests/integration/test_transport.py.
"""

from __future__ import annotations

import hashlib
import logging
from time import monotonic, time
from typing import Any, ClassVar, NamedTuple

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import NoScriptError

from brain_clusters.broker.claiming import CLAIM
from brain_clusters.broker.holding import QoS
from brain_clusters.broker.names import DELIVERY_HEADER, JOB_TASK, JOINED_HEADER, UNREADABLE_LIST, eta_key, high_list
from brain_clusters.domain.jobs import MESSAGE_PRIORITY, Priority
from brain_clusters.failpoints import failpoint

log = logging.getLogger(__name__)

_CLAIM_HASH = hashlib.sha1(CLAIM.encode(), usedforsecurity=False).hexdigest()

# Redis waits in whole milliseconds, and 0 is for ever.
_SHORTEST_WAIT_SECONDS = 0.001


class Claimed(NamedTuple):
    """What the script tells of a message that it has entered.

    settled: no ETA is left to be judged. attempt: of a job, if it was counted, else -1. See ``record_scripts``.
    """

    raw: bytes
    queue: bytes
    tag: bytes
    settled: int
    attempt: int
    deaths: int
    cancelled: int


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """A channel that claims before it takes.

    Transport options: ``owner``; ``claim_key``, its claim list; ``record_ttl``, in seconds, of the jobs it begins.
    """

    QoS = QoS
    owner = "nobody"
    claim_key = "brain:claim"
    record_ttl = 86_400
    from_transport_options = (*kombu_redis.Channel.from_transport_options, "owner", "claim_key", "record_ttl")

    # How many looks and waits of this process were answered.
    answers: ClassVar[int] = 0
    # Whether Redis may not know the script.
    _untold: ClassVar[bool] = True
    _waiting_on: str | None = None
    _lent: Any = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Leave out CLIENT SETINFO: redis-py reads its own package's metadata for it, 1 ms per connection."""
        found: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        return {**found, "driver_info": None}

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Keep one client for all that is published and acknowledged; kombu makes a new one each time, 0.2 ms."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._lent is None or self._lent.connection_pool is not self.pool:
            self._lent = super()._create_client()
        return self._lent

    @property
    def _broken(self) -> tuple[type[Exception], ...]:
        return (*self.connection_errors, *self.connection.channel_errors)

    @property
    def asks(self) -> bool:
        """Whether a question for a message is under way; its reply may bring one."""
        return bool(self._in_poll)

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        """Begin to consume: at the start of a worker, and anew after every loss of its connection."""
        self.qos.return_left_over()
        return super().basic_consume(queue, *args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:  # noqa: ARG002 - kombu's signature
        """Send the look at all lists. Its reply, and if need be that of the wait, comes to ``_brpop_read``."""
        if self.active_queues:
            self._look("")

    def _look(self, claimed_from: str) -> None:
        """Send the script. claimed_from: the queue that what lies in the claim list came from, if it is known."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        lists = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        keys = [self.claim_key, self.unacked_key, *map(high_list, queues), *map(eta_key, queues), *lists]
        script = ("EVAL", CLAIM) if self._untold else ("EVALSHA", _CLAIM_HASH)
        self._waiting_on = None
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command(
            *script, len(keys), *keys, self.owner, repr(time()), self.record_ttl, claimed_from, *queues
        )

    def _brpop_read(self, **options: Any) -> bool:
        """Take the reply: deliver the message it brings, or begin to wait, or raise Empty."""
        reply = self._reply(**options)
        waited_on = self._waiting_on
        if waited_on is not None and reply is not None:  # a message is in the claim list now
            failpoint("brought")
            self._look(waited_on.rsplit(self.sep, 1)[0])
            if not self._closing:
                raise virtual.Empty()
            reply = self._reply(**options)
        elif waited_on is None and not isinstance(reply, list) and not self._closing:
            self._wait(None if reply is None else float(reply))
            raise virtual.Empty()
        self._in_poll = None
        self._flush_brpop_reauth()
        if not isinstance(reply, list):
            raise virtual.Empty()
        return self._deliver_claimed(reply)

    def _reply(self, **options: Any) -> Any:
        connection = self.client.connection
        try:
            reply = self.client.parse_response(connection, "EVAL", **options)
        except NoScriptError:
            self._in_poll = None
            Channel._untold = True
            raise virtual.Empty() from None
        except BaseException as exc:
            self._in_poll = None
            if isinstance(exc, self.connection_errors):
                connection.disconnect()  # the next round reconnects
            raise
        Channel._untold = False
        Channel.answers += 1
        return reply

    def _wait(self, due_in: float | None) -> None:
        """Block, on the server, until a message of the default priority comes or, in ``due_in`` seconds, is due."""
        timeout = self.brpop_timeout or 0
        if due_in is not None:
            timeout = max(_SHORTEST_WAIT_SECONDS, min(due_in, timeout or due_in))
        queue = self._queue_cycle.consume(1)[0]
        self._waiting_on = self._q_for_pri(queue, 0)
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command("BLMOVE", self._waiting_on, self.claim_key, "RIGHT", "LEFT", timeout)

    def _deliver_claimed(self, reply: list[Any]) -> bool:
        failpoint("claimed")
        message = _parsed(reply[0]) if len(reply) > 1 else None
        if message is None:
            self._set_aside(reply, "it is not a message of kombu's")
            raise virtual.Empty()
        claimed = Claimed(*reply)
        queue = bytes_to_str(claimed.queue)
        headers = message["headers"]
        headers.pop(DELIVERY_HEADER, None)  # a sender's own would be a forgery
        if claimed.settled:
            headers["eta"] = None  # or Celery sets a timer and raises its prefetch count for it
        if headers.get("task") == JOB_TASK:
            headers[DELIVERY_HEADER] = _delivery(claimed, queue, message)
        self._queue_cycle.rotate(queue)
        try:
            self.connection._deliver(message, queue)
        except Exception as exc:
            # Kombu counts KeyError as a lost connection, but in here it is a message that lacks something.
            if isinstance(exc, self._broken) and not isinstance(exc, KeyError):
                raise
            # Celery stumbled over it, and would at every agent that came next.
            self._give_up(bytes_to_str(claimed.tag))
            self._set_aside(reply, f"{type(exc).__name__}: {exc}")
            raise virtual.Empty() from None
        return True

    def _give_up(self, delivery_tag: str) -> None:
        """Forget a message that was delivered."""
        if delivery_tag in self.qos._delivered:
            self.qos.ack(delivery_tag)

    def _set_aside(self, reply: list[Any], why: str) -> None:
        """Keep a message that no Celery client sent where a person can see it; it must not stop the queue."""
        raw, tag = reply[0], reply[2] if len(reply) > 1 else None
        log.error("a message of %d bytes cannot be read and is moved to %s: %s", len(raw), UNREADABLE_LIST, why)
        with self.conn_or_acquire() as client:
            pipe = client.pipeline()
            if tag is None:
                pipe.lrem(self.claim_key, -1, raw)
            else:
                pipe.hdel(self.unacked_key, tag)
            pipe.lpush(UNREADABLE_LIST, raw).ltrim(UNREADABLE_LIST, 0, 999).execute()


def _delivery(claimed: Claimed, queue: str, message: Any) -> dict[str, Any]:
    """Return what ``broker.jobs.Delivery`` reads."""
    priority, key = message["properties"].get("priority"), message["properties"]["delivery_info"]["routing_key"]
    is_low = isinstance(priority, int) and priority >= MESSAGE_PRIORITY[Priority.LOW]
    return {
        "attempt": claimed.attempt,
        "deaths": claimed.deaths,
        "cancelled": bool(claimed.cancelled),
        "tag": bytes_to_str(claimed.tag),
        "queue": queue,
        "priority": Priority.HIGH if key == high_list(queue) else Priority.LOW if is_low else Priority.NORMAL,
        "goes_on": JOINED_HEADER in message["headers"],
    }


def _parsed(raw: bytes) -> Any | None:
    """Return the message that ``raw`` is, or None: the script reads text that is no Unicode, too."""
    try:
        return loads(bytes_to_str(raw))
    except (ValueError, RecursionError):
        return None


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """The transport for ``broker_transport``."""

    Channel = Channel
