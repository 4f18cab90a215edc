"""Kombu's Redis transport, with the one gap closed through which a killed worker loses a message.

Kombu pops a message with BRPOP and then writes it to the unacked hash; a worker killed in between loses it (measured:
30 % of kills in the first 3 ms after a publish). Here a message moves atomically into the owner's claim list, and
leaves that list in the transaction that enters it into the hash. ``broker.restore`` returns both.

A script looks at the lists in order of priority; only when all are empty the connection blocks, with BLMOVE on the
list of the default priority. So a message of a lower priority may wait for up to ``polling_interval``.

A message whose ETA lies ahead is not delivered: Celery would take such messages without bound and hold them in memory.
It is parked in the queue's sorted set, and whoever looks when it is due claims it from there.
Pinned to kombu 5.7 by tests/integration/test_transport.py.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from time import monotonic, time
from typing import Any, ClassVar

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from redis.exceptions import ResponseError

from brain_clusters.broker.names import ETA_PREFIX, UNREADABLE_LIST, eta_key

log = logging.getLogger(__name__)

# KEYS: the sorted sets of what waits for its time, the lists, then the claim list. ARGV: how many sets. Returns
# {key, message}; when nothing is there, in how many seconds the next message is due, or false. What lies in the claim
# list already came with a reply that a broken connection swallowed: it is first, and the list it came from is not
# known any more. A due message is claimed before it leaves its set, as a full Redis refuses the claim.
_CLAIM = """
local claim, sets = KEYS[#KEYS], tonumber(ARGV[1])
local left = redis.call('LINDEX', claim, -1)
if left then return {'', left} end
local time, next_in = redis.call('TIME'), nil
for i = 1, sets do
  local first = redis.pcall('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if first[2] then
    local due_in = first[2] - time[1] - time[2] / 1e6
    if due_in <= 0 then
      redis.call('LPUSH', claim, first[1])
      redis.call('ZREM', KEYS[i], first[1])
      return {KEYS[i], first[1]}
    end
    next_in = math.min(next_in or due_in, due_in)
  end
end
for i = sets + 1, #KEYS - 1 do
  local message = redis.call('LMOVE', KEYS[i], claim, 'RIGHT', 'LEFT')
  if message then return {KEYS[i], message} end
end
return next_in and string.format('%.6f', next_in) or false
"""

# KEYS: the claim list, a sorted set. ARGV: message, due time. A set that refuses it leaves the message claimed.
_PARK = """
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
return redis.call('LREM', KEYS[1], -1, ARGV[1])
"""

# Redis waits in whole milliseconds, and 0 is for ever.
_SHORTEST_WAIT_SECONDS = 0.001


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """Entering a message into the unacked hash ends its claim, in one transaction."""

    # Delivery tags that this process works on, whatever connection they came by.
    _at_work: ClassVar[set[str]] = set()
    # Whether this process takes messages; false while it drains.
    taking: ClassVar[bool] = True

    def can_consume(self) -> bool:
        """Return whether to ask for a message, and to read the reply. What was asked for is read in any case.

        Else a message could lie in the claim list, seen by nobody, for as long as the last job takes.
        """
        return (self.taking or self.channel.asks) and bool(super().can_consume())

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record ``message`` as delivered and not acknowledged."""
        info = message.delivery_info
        entry = dumps([message._raw, info["exchange"], info["routing_key"]])
        with self.pipe_or_acquire() as pipe:
            pipe.zadd(self.unacked_index_key, {delivery_tag: time()})
            pipe.hset(self.unacked_key, delivery_tag, entry)
            pipe.lrem(self.channel.claim_key, -1, self.channel.claimed)
            pipe.execute()
        self._at_work.add(delivery_tag)
        # Not super(): kombu's own append would write the same entries again.
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Forget a message that is done with. When Redis is away it stays in the hash, and is left over."""
        self._at_work.discard(delivery_tag)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Forget a message, or put it back."""
        self._at_work.discard(delivery_tag)
        super().reject(delivery_tag, requeue=requeue)

    def return_left_over(self) -> None:
        """Put back what this owner holds and does not work on: its connection broke before it began, or acknowledged.

        Its owner lives, so nobody else would ever return it.
        """
        with self.channel.conn_or_acquire() as client:
            for tag in map(bytes_to_str, client.hkeys(self.unacked_key)):
                if tag not in self._at_work:
                    self.restore_by_tag(tag, client=client)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Do nothing: time never returns a message here, its owner's death does. Saves a lock at every start."""


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """A channel that claims before it takes. Transport option ``claim_key``: the owner's claim list."""

    QoS = QoS
    claim_key = "brain:claim"
    from_transport_options = (*kombu_redis.Channel.from_transport_options, "claim_key")

    claimed: bytes = b""
    _waiting_on: str | None = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        """Leave out CLIENT SETINFO: redis-py reads its own package's metadata for it, 1 ms per connection."""
        found: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        return {**found, "driver_info": None}

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
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        lists = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        self._waiting_on = None
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        keys = [*map(eta_key, queues), *lists, self.claim_key]
        self.client.connection.send_command("EVAL", _CLAIM, len(keys), *keys, len(queues))

    def _brpop_read(self, **options: Any) -> bool:
        """Take the reply: deliver the message it brings, or begin to wait, or raise Empty."""
        reply = self._reply(**options)
        if self._waiting_on is None and not isinstance(reply, list):
            due_in, reply = reply, None
            if not self._closing:
                self._wait(None if due_in is None else float(due_in))
                raise virtual.Empty()
        source, self._in_poll = self._waiting_on, None
        self._flush_brpop_reauth()
        if reply is None:
            raise virtual.Empty()
        if source is None:
            source, reply = bytes_to_str(reply[0]), reply[1]
        return self._deliver_claimed(source, reply)

    def _reply(self, **options: Any) -> Any:
        connection = self.client.connection
        try:
            return self.client.parse_response(connection, "EVAL", **options)
        except BaseException as exc:
            self._in_poll = None
            if isinstance(exc, self.connection_errors):
                connection.disconnect()  # the next round reconnects
            raise

    def _wait(self, due_in: float | None) -> None:
        """Block, on the server, until a message of the default priority comes or, in ``due_in`` seconds, is due."""
        timeout = self.brpop_timeout or 0
        if due_in is not None:
            timeout = max(_SHORTEST_WAIT_SECONDS, min(due_in, timeout or due_in))
        queue = self._queue_cycle.consume(1)[0]
        self._waiting_on = self._q_for_pri(queue, 0)
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command("BLMOVE", self._waiting_on, self.claim_key, "RIGHT", "LEFT", timeout)

    def _deliver_claimed(self, source: str, raw: bytes) -> bool:
        message = _parsed(raw)
        if message is None:
            self._set_aside(raw, "it is not a message of kombu's")
            raise virtual.Empty()
        parked = source.startswith(ETA_PREFIX)
        queue = source.removeprefix(ETA_PREFIX) if parked else source.rsplit(self.sep, 1)[0]
        queue = queue or message["properties"]["delivery_info"]["routing_key"]
        due_at = _due_at(message)
        # What was parked is due by Redis's clock. Asking ours too could park it anew without end.
        ahead = due_at is not None and not parked and due_at > time()
        if ahead and self._park(queue, raw, due_at):
            raise virtual.Empty()
        if due_at is not None and not ahead:
            message["headers"]["eta"] = None  # or Celery sets a timer and raises its prefetch count for it
        self._queue_cycle.rotate(queue)
        self.claimed = raw
        try:
            self.connection._deliver(message, queue)
        except (*self.connection_errors, *self.connection.channel_errors):
            raise
        except Exception as exc:  # noqa: BLE001 - Celery stumbled over it, and would at every agent that came next
            self._give_up(message["properties"]["delivery_tag"])
            self._set_aside(raw, f"{type(exc).__name__}: {exc}")
            raise virtual.Empty() from None
        return True

    def _park(self, queue: str, raw: bytes, due_at: float | None) -> bool:
        """Keep a claimed message in its queue's sorted set until it is due; return False when Redis refuses it.

        Then Celery holds the message, as it always does.
        """
        try:
            with self.conn_or_acquire() as client:
                client.eval(_PARK, 2, self.claim_key, eta_key(queue), raw, repr(due_at))
        except ResponseError as exc:
            log.error("a message that is not due yet cannot be kept in %s: %s", eta_key(queue), exc)
            return False
        return True

    def _give_up(self, delivery_tag: str) -> None:
        """Take a message that was entered into the unacked hash out of it again."""
        if delivery_tag in self.qos._delivered:
            self.qos.ack(delivery_tag)

    def _set_aside(self, raw: bytes, why: str) -> None:
        """Keep a message that no Celery client sent where a person can see it; it must not stop the queue."""
        log.error("a message of %d bytes cannot be read and is moved to %s: %s", len(raw), UNREADABLE_LIST, why)
        with self.conn_or_acquire() as client:
            client.pipeline().lrem(self.claim_key, -1, raw).lpush(UNREADABLE_LIST, raw).ltrim(
                UNREADABLE_LIST, 0, 999
            ).execute()


def _parsed(raw: bytes) -> Any | None:
    """Return the message that ``raw`` is when kombu can work with it, else None."""
    try:
        message = loads(bytes_to_str(raw))
        properties = message["properties"]
        info = properties["delivery_info"]
        texts = (properties["delivery_tag"], info["exchange"], info["routing_key"])
        sound = all(isinstance(text, str) for text in texts) and isinstance(message["headers"], dict)
        return message if sound and "body" in message else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _due_at(message: Any) -> float | None:
    """Return when ``message`` is due (seconds since the epoch), or None: any time, or what only Celery can judge."""
    eta = message["headers"].get("eta")
    if not isinstance(eta, str):
        return None
    try:
        found = datetime.fromisoformat(eta)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """The transport for ``broker_transport``."""

    Channel = Channel
