"""What this process was given and has not done with: kombu's QoS, for messages that are in Redis as this owner's."""

from __future__ import annotations

from typing import Any, ClassVar

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str

from brain_clusters.broker.restore import give_back


class QoS(kombu_redis.QoS):  # type: ignore[misc]
    """What this process was given. The script that claims has written that down in Redis already."""

    # Delivery tags that this process works on, whatever connection they came by.
    _at_work: ClassVar[set[str]] = set()
    # Those that the script which ended the job has acknowledged.
    settled: ClassVar[set[str]] = set()
    # Whether this process takes messages; false while it drains.
    taking: ClassVar[bool] = True

    def can_consume(self) -> bool:
        """Return whether to ask for a message, and to read the reply. What was asked for is read in any case.

        Else a message could lie in Redis as claimed, seen by nobody, for as long as the last job takes.
        """
        return (self.taking or self.channel.asks) and bool(super().can_consume())

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message."""
        self._at_work.add(delivery_tag)
        # Not super(): kombu's own append would write the entry again.
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Forget a message that is done with. When Redis is away it stays in the hash, and is left over."""
        self._at_work.discard(delivery_tag)
        if delivery_tag in self.settled:
            self.settled.discard(delivery_tag)
        else:
            with self.channel.conn_or_acquire() as client:
                client.hdel(self.unacked_key, delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Forget a message, or put it back: what is rejected was begun, and was an attempt."""
        if requeue and delivery_tag not in self.settled:
            with self.channel.conn_or_acquire() as client:
                give_back(client, self.channel.owner, delivery_tag, begun=True)
        self.ack(delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Put back what is not begun, as this channel closes. What runs goes on, and is acknowledged when it ends."""
        from celery.worker import state  # only a worker needs it, and only a worker pays for it

        running = {request.message.delivery_tag for request in state.active_requests}
        for tag in list(self._delivered):
            if tag not in running:
                self.restore_by_tag(tag, client=client)
        self._delivered.clear()

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:  # noqa: ARG002 - kombu's
        """Put a message that was not begun back, as the next of its queue."""
        self._at_work.discard(tag)
        with self.channel.conn_or_acquire(client) as lent:
            give_back(lent, self.channel.owner, tag)

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
