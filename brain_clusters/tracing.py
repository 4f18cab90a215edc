"""Traces by OpenTelemetry: from a request to the operation, the agents and the job that it brings about.

They are made where the extra ``tracing`` is installed and OTEL_EXPORTER_OTLP_ENDPOINT names who takes them; else
nothing of OpenTelemetry is imported, and each function here returns at once. A trace goes from process to process as a
*carrier*: the headers of the propagators that OTEL_PROPAGATORS chooses, of W3C by default, in messages and in rows.

Exporters begin threads, which no fork survives: ``start`` belongs after the last fork, ``preload`` before it.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal

from brain_clusters import config, logs

log = logging.getLogger(__name__)

Carrier = Mapping[str, str]
Kind = Literal["internal", "server", "client", "producer", "consumer"]
# How long a process that ends waits for its last spans to be taken.
_LAST_SECONDS = 2.0
_MODULES = (
    "opentelemetry.trace", "opentelemetry.propagate", "opentelemetry.sdk.resources", "opentelemetry.sdk.trace",
    "opentelemetry.sdk.trace.export", "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "requests",  # which an exporter imports when it is made: 0.1 s of each agent's start
)  # fmt: skip
_tracer: Any = None
_provider: Any = None


def preload() -> bool:
    """Import what ``start`` needs; return whether traces are wanted and can be made."""
    if not config.wants_traces():
        return False
    try:
        for name in _MODULES:
            importlib.import_module(name)
    except ImportError as exc:
        log.warning("traces are asked for, and cannot be made: pip install 'brain-clusters[tracing]' (%s)", exc)
        return False
    return True


def start(process: str, **attributes: str | None) -> None:
    """Begin to send spans from this process. process: what it is, which names its service where OTEL_* does not."""
    global _tracer, _provider
    if not preload():
        return
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    told = {f"brain.{name}": value for name, value in {"process": process, **attributes}.items() if value is not None}
    resource = Resource.create(told)
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": f"brain-{process}"}))
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(_provider)  # so that spans of handlers are below ours
    _tracer = _provider.get_tracer("brain_clusters")


def join() -> None:
    """Take part in the traces of a program that has set up OpenTelemetry itself; for another nothing is imported."""
    global _tracer
    if _tracer is not None or "opentelemetry.trace" not in sys.modules:
        return
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        _tracer = trace.get_tracer("brain_clusters")


def stop() -> None:
    """Send what is not sent yet; give up after a moment when nobody takes it."""
    global _tracer, _provider
    provider, _tracer, _provider = _provider, None, None
    if provider is not None:
        ending = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(_LAST_SECONDS)


def flush() -> None:
    """Send what is not sent yet, in a process that others end."""
    if _provider is not None:
        ending = threading.Thread(target=_provider.force_flush, name="last spans", daemon=True)
        ending.start()
        ending.join(_LAST_SECONDS)


def is_on() -> bool:
    """Return whether this process traces, where telling of it would cost something."""
    return _tracer is not None


@contextmanager
def span(
    name: str, kind: Kind = "internal", parent: Carrier | None = None, *,
    expected: tuple[type[BaseException], ...] = (), **attributes: object,
) -> Iterator[Any]:  # fmt: skip
    """Trace what is done meanwhile; yield the span, None where there are no traces.

    parent: whom it is below; without it, the span at hand. expected: exceptions that are no failures. attributes: names
    without a dot get ``brain.`` before them, the others are of the semantic conventions.
    """
    if _tracer is None:
        yield None
        return
    options: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}
    with (
        _tracer.start_as_current_span(
            name, context=_context(parent), kind=_kind(kind), attributes=_named(attributes), **options
        ) as found,
        logs.bound(trace_id=format(found.get_span_context().trace_id, "032x")),
    ):
        try:
            yield found
        except expected:
            raise
        except Exception as exc:
            fail(found, exc)
            raise


def note(**attributes: object) -> None:
    """Add attributes to the span at hand."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes(_named(attributes))


def messaging(
    queue: str | None, doing: Literal["send", "process"], message: str | None = None, count: int = 1
) -> dict[str, Any]:
    """Return the attributes of a span about so many messages, by the semantic conventions. queue: None for several."""
    return {
        "messaging.system": "celery", "messaging.operation.name": doing, "messaging.operation.type": doing,
        "messaging.destination.name": queue, "messaging.message.id": message,
        "messaging.batch.message_count": count if count > 1 else None,
    }  # fmt: skip


def fail(found: Any, exc: BaseException | str) -> None:
    """Mark a span as one that failed; None is no span."""
    if found is None:
        return
    from opentelemetry.trace import Status, StatusCode

    if isinstance(exc, BaseException):
        found.record_exception(exc)
        if "error.type" not in (getattr(found, "attributes", None) or {}):  # else somebody knew better
            found.set_attribute("error.type", type(exc).__qualname__)
    found.set_status(Status(StatusCode.ERROR, str(exc)[:500]))


def record(name: str, begin: datetime, end: datetime, parent: Carrier | None, **attributes: object) -> None:
    """Trace what is over already."""
    if _tracer is None:
        return
    made = _tracer.start_span(
        name, context=_context(parent), start_time=_nanoseconds(begin), attributes=_named(attributes)
    )
    made.end(_nanoseconds(end))


def carrier() -> dict[str, str]:
    """Return what tells another process of the span at hand; {} where there is none."""
    found: dict[str, str] = {}
    if _tracer is not None:
        from opentelemetry import propagate

        propagate.inject(found)
    return found


def carried(get: Callable[[str], Any]) -> dict[str, str]:
    """Return the carrier in the headers of a message or a request, each of which ``get`` returns by its name."""
    if _tracer is None:
        return {}
    from opentelemetry import propagate

    headers = {name: get(name) for name in propagate.get_global_textmap().fields}
    return {name: value for name, value in headers.items() if isinstance(value, str)}


def _context(parent: Carrier | None) -> Any:
    if not parent:
        return None
    from opentelemetry import propagate

    return propagate.extract(parent)


def _kind(kind: Kind) -> Any:
    from opentelemetry.trace import SpanKind

    return SpanKind[kind.upper()]


def _named(attributes: Mapping[str, object]) -> dict[str, Any]:
    return {
        name if "." in name else f"brain.{name}": value if isinstance(value, (bool, int, float)) else str(value)
        for name, value in attributes.items()
        if value is not None
    }


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1e9)
