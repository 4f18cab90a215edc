"""Kombu's Redis transport, with the one gap closed through which a killed worker loses a message.

Kombu pops a message with BRPOP and then writes it to the unacked hash; a worker killed in between loses it (measured:
30 % of kills in the first 3 ms after a publish). Here a message moves atomically into the owner's claim list, and
leaves that list in the transaction that enters it into the hash. ``broker.restore`` returns both.

A script looks at the lists in order of priority; only when all are empty the connection blocks, with BLMOVE on the
list of the default priority. So a message of a lower priority may wait for up to ``polling_interval``.
Pinned to kombu 5.7 by tests/integration/test_transport.py.
"""

from __future__ import annotations

import logging
from time import monotonic, time
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from brain_clusters.broker.names import UNREADABLE_LIST

log = logging.getLogger(__name__)

# KEYS: the lists, then the claim list. Returns {list, message} or false.
_CLAIM = """
for i = 1, #KEYS - 1 do
  local message = redis.call('LMOVE', KEYS[i], KEYS[#KEYS], 'RIGHT', 'LEFT')
  if message then return {KEYS[i], message} end
end
return false
"""


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """Entering a message into the unacked hash ends its claim, in one transaction."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record ``message`` as delivered and not acknowledged."""
        info = message.delivery_info
        entry = dumps([message._raw, info["exchange"], info["routing_key"]])
        with self.pipe_or_acquire() as pipe:
            pipe.zadd(self.unacked_index_key, {delivery_tag: time()})
            pipe.hset(self.unacked_key, delivery_tag, entry)
            pipe.delete(self.channel.claim_key)
            pipe.execute()
        # Not super(): kombu's own append would write the same entries again.
        virtual.QoS.append(self, message, delivery_tag)


class Channel(kombu_redis.Channel):  # type: ignore[misc]
    """A channel that claims before it takes. Transport option ``claim_key``: the owner's claim list."""

    QoS = QoS
    claim_key = "brain:claim"
    from_transport_options = (*kombu_redis.Channel.from_transport_options, "claim_key")

    _waiting_on: str | None = None

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send the look at all lists. Its reply, and if need be that of the wait, comes to ``_brpop_read``."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        lists = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        self._waiting_on = None
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command("EVAL", _CLAIM, len(lists) + 1, *lists, self.claim_key)

    def _brpop_read(self, **options: Any) -> bool:
        """Take the reply: deliver the message it brings, or begin to wait, or raise Empty."""
        reply = self._reply(**options)
        if reply is None and self._waiting_on is None and not self._closing:
            self._wait()
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

    def _wait(self) -> None:
        """Block, on the server, until a message of the default priority comes."""
        queue = self._queue_cycle.consume(1)[0]
        self._waiting_on = self._q_for_pri(queue, 0)
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command(
            "BLMOVE", self._waiting_on, self.claim_key, "RIGHT", "LEFT", self.brpop_timeout or 0
        )

    def _deliver_claimed(self, source: str, raw: bytes) -> bool:
        queue = source.rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        try:
            message = loads(bytes_to_str(raw))
            message["properties"]["delivery_tag"], message["properties"]["delivery_info"]["exchange"]
            message["body"], message["headers"]
        except (ValueError, KeyError, TypeError, RecursionError):
            self._set_aside(queue, raw)
            raise virtual.Empty() from None
        self.connection._deliver(message, queue)
        return True

    def _set_aside(self, queue: str, raw: bytes) -> None:
        """Keep a message that no Celery client sent where a person can see it; it must not stop the queue."""
        log.error("message is not Celery's; moved to %s (queue %s, %d bytes)", UNREADABLE_LIST, queue, len(raw))
        with self.conn_or_acquire() as client:
            client.pipeline().lmove(self.claim_key, UNREADABLE_LIST, "RIGHT", "LEFT").ltrim(
                UNREADABLE_LIST, 0, 999
            ).execute()


class Transport(kombu_redis.Transport):  # type: ignore[misc]
    """The transport for ``broker_transport``."""

    Channel = Channel
