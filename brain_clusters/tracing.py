"""Spans by OpenTelemetry, from a request over its operation and the host to the agent that does the job.

On where OTEL_EXPORTER_OTLP_ENDPOINT is set and the extra ``tracing`` is installed; else nothing is imported, and each
function here returns at once. What a trace is known by on its way through rows and messages is a W3C ``traceparent``,
here called a trace. OpenTelemetry's own variables say the rest: sampling, headers, names, and how often spans are sent.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from brain_clusters import __version__, logs
from brain_clusters.config import traces_wanted

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

Kind = Literal["internal", "server", "producer", "consumer"]
Attributes = Mapping[str, str | int]

# What ``set_up`` needs; a zygote imports it before it forks agents.
_LIBRARY = (
    "opentelemetry.sdk.resources", "opentelemetry.sdk.trace", "opentelemetry.sdk.trace.export",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.trace.propagation.tracecontext",
)  # fmt: skip
_NAME = "brain_clusters"
# A process that ends waits no longer for a collector that does not answer.
_FLUSH_SECONDS = 2.0


class _Process:
    """What this process traces with: nothing until it was set up."""

    tracer: Tracer | None = None
    send_rest: Callable[[], object] | None = None


_process = _Process()


def preload() -> None:
    """Import what ``set_up`` needs where traces are wanted. Starts no thread, and opens no connection."""
    if traces_wanted():
        _import()


def set_up(part: str, **ids: str) -> None:
    """Send this process's spans from now on, where that is wanted. Call it after the last fork.

    part: what the process is, as in ``brain-api``, its service.name unless OTEL_SERVICE_NAME says another. ids: further
    attributes of all its spans. A provider that the user's own code has set stays, and is used.
    """
    if not traces_wanted() or _process.tracer is not None:
        return
    if not _import():
        log.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed, and no trace is sent: "
            "pip install 'brain-clusters[tracing]'"
        )
        return
    from opentelemetry import trace

    found = trace.get_tracer_provider()
    if isinstance(found, trace.ProxyTracerProvider):
        made = _provider({"service.name": part, "service.namespace": "brain-clusters", **ids})
        trace.set_tracer_provider(made)  # for handlers, too
        _process.send_rest = made.shutdown
    else:
        _process.send_rest = getattr(found, "force_flush", None)
    _process.tracer = trace.get_tracer(_NAME, __version__)


def join() -> None:
    """Take part in the traces of a program that has set up OpenTelemetry itself; for another nothing is imported."""
    if _process.tracer is not None or "opentelemetry.trace" not in sys.modules:
        return
    from opentelemetry import trace

    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        _process.tracer = trace.get_tracer(_NAME, __version__)


def shut_down() -> None:
    """Send what was not sent yet, for two seconds at most, and end."""
    send_rest, _process.send_rest, _process.tracer = _process.send_rest, None, None
    if send_rest is not None:
        closing = threading.Thread(target=send_rest, name="last-spans", daemon=True)
        closing.start()
        closing.join(_FLUSH_SECONDS)


def is_on() -> bool:
    """Return whether this process traces."""
    return _process.tracer is not None


def current() -> str | None:
    """Return the trace that this thread is in now; None outside of any."""
    if _process.tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def span(
    name: str, kind: Kind = "internal", attributes: Attributes | None = None, *, parent: object = None,
    expected: tuple[type[BaseException], ...] = (),
) -> AbstractContextManager[None]:  # fmt: skip
    """Return a context whose time is a span, and whose lines of log tell its ids.

    parent: the trace that it goes on, as another process left it; without one it goes on that of this thread.
    expected: exceptions that are no failure of it, or that ``tell`` told already.
    """
    tracer = _process.tracer
    return nullcontext() if tracer is None else _span(tracer, name, kind, attributes, parent, expected)


def tell(attributes: Attributes, *, error: str | None = None, message: str | None = None) -> None:
    """Add to the span of this thread. error: its kind, by which the span has failed."""
    if _process.tracer is None:
        return
    from opentelemetry.trace import Status, StatusCode, get_current_span

    now = get_current_span()
    now.set_attributes(attributes if error is None else {**attributes, "error.type": error})
    if error is not None:
        now.set_status(Status(StatusCode.ERROR, message))


def over(name: str, began: datetime, ended: datetime, attributes: Attributes, *, parent: str | None) -> None:
    """Tell of a span that is over already."""
    if _process.tracer is not None:
        found = _process.tracer.start_span(
            name, _context(parent), attributes=dict(attributes), start_time=_nanoseconds(began)
        )
        found.end(_nanoseconds(ended))


def messaging(
    queue: str, doing: Literal["send", "process"], *, message_id: str | None = None, count: int = 1
) -> dict[str, str | int]:
    """Return the attributes of a span about so many messages of ``queue``, by the semantic conventions."""
    found: dict[str, str | int] = {
        "messaging.system": "celery", "messaging.destination.name": queue, "messaging.operation.name": doing,
        "messaging.operation.type": doing,
    }  # fmt: skip
    if message_id is not None:
        found["messaging.message.id"] = message_id
    if count > 1:
        found["messaging.batch.message_count"] = count
    return found


@contextmanager
def _span(
    tracer: Tracer, name: str, kind: Kind, attributes: Attributes | None, parent: object,
    expected: tuple[type[BaseException], ...],
) -> Iterator[None]:  # fmt: skip
    from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

    with tracer.start_as_current_span(
        name, _context(parent), SpanKind[kind.upper()], dict(attributes or {}),
        record_exception=False, set_status_on_exception=False,
    ) as found:  # fmt: skip
        ids = found.get_span_context()
        known = {"trace_id": format_trace_id(ids.trace_id), "span_id": format_span_id(ids.span_id)}
        with logs.bound(**known if ids.is_valid else {}):
            try:
                yield
            except expected:
                raise
            except BaseException as exc:
                tell({}, error=type(exc).__qualname__, message=str(exc))
                raise


def _context(trace: object) -> Context | None:
    """Return what ``trace`` stands for. Anybody can send anything: what is no traceparent is as if there were none."""
    if not isinstance(trace, str):
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": trace})


def _nanoseconds(when: datetime) -> int:
    return int(when.timestamp() * 1e6) * 1000


def _import() -> bool:
    try:
        for module in _LIBRARY:
            importlib.import_module(module)
    except ImportError:
        return False
    return True


def _provider(own: Mapping[str, str]) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # Not Resource.create: it searches all installed packages, which takes longer than an agent takes to start.
    resource = Resource({**own, "service.version": __version__, "telemetry.sdk.language": "python"})
    provider = TracerProvider(resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
