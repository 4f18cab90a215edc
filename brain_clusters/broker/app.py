"""The Celery app, made by a factory: agents, lifecycle workers and publishers share its settings."""

from __future__ import annotations

from typing import Any

from celery import Celery

from brain_clusters.broker import names
from brain_clusters.domain.specs import VISIBILITY_SECONDS

TRANSPORT = "brain_clusters.broker.transport:Transport"


def transport_options(owner: str, *, record_ttl: int = 86_400) -> dict[str, Any]:
    """Return the broker options of ``owner``: its own unacked keys, and a connection that notices a dead peer.

    record_ttl: for how long (s) the record of a job is kept that is begun.
    polling_interval (s) bounds how long an idle worker takes to stop; socket_timeout must exceed it.
    retry_on_timeout stays unset: it would replay a publish, and with it a job.
    """
    return {
        "unacked_key": names.unacked_key(owner),
        "claim_key": names.claim_key(owner),
        "owner": owner,
        "record_ttl": record_ttl,
        "visibility_timeout": VISIBILITY_SECONDS,
        "polling_interval": 0.5,
        "socket_timeout": 10,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "client_name": owner,
    }


def make_app(redis_url: str, *, owner: str, result_expires: int = 86_400) -> Celery:
    """Return a Celery app on ``redis_url`` whose workers keep unacknowledged messages under ``owner``'s keys."""
    app = Celery("brain_clusters", set_as_current=False)
    app.conf.update(
        broker_url=redis_url,
        broker_transport=TRANSPORT,
        result_backend=redis_url,
        broker_transport_options=transport_options(owner),
        result_backend_transport_options={"socket_timeout": 10, "socket_connect_timeout": 3},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        accept_content=["json"],
        result_accept_content=["json"],
        task_serializer="json",
        result_serializer="json",
        result_expires=result_expires,
        event_serializer="json",
        enable_utc=True,
        timezone="UTC",
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        task_default_queue=names.LIFECYCLE_QUEUE,
        task_publish_retry=False,
    )
    return app
